"""The jury against models whose right answer is known, and who has a vote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from oracles import Patch, SmallNet, Untouched
from torch import Tensor, nn

import faithmap as fm
from faithmap.baselines import Shuffled, family_of
from faithmap.methods.cams import CAM, Smooth
from faithmap.methods.registry import METHODS
from faithmap.metrics import JuryGain
from faithmap.metrics.functional import PANELS, Case, Imputation, Panel, Removal, evidence, jury_values
from faithmap.metrics.functional.curves import prepared_inputs
from faithmap.metrics.functional.evidence import QUORUM
from faithmap.metrics.functional.jurors import OPTIMISED, other_photograph

CORNER = Patch(slice(0, 8), slice(0, 8))
"""Class 0 is as likely as the first quarter of a 16 x 16 image is bright."""


def photo() -> Tensor:
    """Dark, with a bright corner and a bright stripe that the model does not look at."""
    image = 0.1 * torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    image[:, :, :8, :8] = 1
    image[:, :, 12:, :] = 0.9
    return image


def corner_map(value: float = 1.0) -> Tensor:
    heatmap = torch.zeros(1, 4, 4)
    heatmap[:, :2, :2] = value
    return heatmap


def pixel(output: Tensor) -> Tensor:
    return output[:, 0]


def test_areas_of_one_pixel_that_matters() -> None:
    """16 pixels of 1, of which the score is the first; grey leaves half. Removed are 4, 8, 12 of 16 cells."""
    image, heatmap = torch.ones(1, 1, 4, 4), torch.zeros(1, 4, 4)
    heatmap[0, 0, 0] = 1
    panel = Panel((Removal("grey", ("grey",)),), (0.25, 0.5, 0.75))
    result = evidence(nn.Flatten(), image, heatmap, pixel, panel=panel)
    deletion = (1 + 0.5) / 2 / 4 + 0.5 * 3 / 4
    insertion = (0.5 + 1) / 2 / 4 + 1.0 * 3 / 4
    assert result.values[0, 0, 0].item() == pytest.approx(insertion - deletion)
    opposite = evidence(nn.Flatten(), image, -heatmap, pixel, panel=panel)
    assert opposite.values[0, 0, 0].item() == pytest.approx(deletion - insertion)
    assert result.own.item() == 1


def test_the_map_of_what_the_model_looks_at_is_supported_and_its_opposite_is_not() -> None:
    found = evidence(CORNER, photo(), fm.Explanation(corner_map(), (16, 16), target=torch.tensor([0])))
    (verdict,) = found.verdicts
    assert verdict.level == "supported"
    assert verdict.preferred == (verdict.votes,) * 3 == (3, 3, 3)
    reasons = dict(zip(found.jurors, (reason[0] for reason in found.reasons), strict=True))
    assert "still recognised" in reasons["blur"], "at 16 pixels its kernel is small"
    assert "not recognised in it" in reasons["mirrored image"], "there the corner is dark"
    assert min(verdict.gain) > 0.2
    assert evidence(CORNER, photo(), corner_map(-1.0), 0).verdicts[0].level == "unsupported"


def test_a_random_map_is_not_the_control_map() -> None:
    drawn = fm.RandomMap(CORNER, resolution=4)(photo(), 0)
    result = evidence(CORNER, photo(), drawn)
    assert not torch.equal(result.values[..., 0], result.values[..., 1])


def test_a_measure_that_the_method_optimised_has_no_vote() -> None:
    explanation = fm.Explanation(corner_map(), (16, 16), target=torch.tensor([0]), optimises=("colour",))
    jurors = (Removal("grey", ("grey",)), Removal("other", ("grey", other_photograph)), Removal("noise", ("noise",)))
    result = evidence(CORNER, photo(), explanation, panel=Panel(jurors, (0.1, 0.4)))
    assert [reason[0] for reason in result.reasons] == [OPTIMISED, "", ""]
    assert result.optimised.tolist() == [True, False, False]
    assert result.verdicts[0].votes == 2
    unaware = evidence(CORNER, photo(), corner_map(), 0, panel=Panel(jurors, (0.1, 0.4)))
    assert torch.equal(result.values[0], unaware.values[0]), "its value is reported all the same"
    assert not torch.equal(result.values[1], unaware.values[1]), "takes the photograph in place of the colour"


def test_a_removal_that_leaves_the_class_has_no_vote() -> None:
    image = torch.full((1, 3, 16, 16), 0.5)
    image[:, :, :8, :8] = 0.62
    result = evidence(CORNER, image, corner_map(), 0, panel=Panel((Removal("white", ("white",)),), (0.5,)))
    assert result.reasons[0][0] == "the class is still recognised: 1.000 of 0.947"
    assert result.verdicts[0].level == "undecided"
    assert result.value.isnan().all()


def test_a_class_that_the_model_does_not_recognise_has_no_map_to_trust() -> None:
    (verdict,) = evidence(CORNER, photo(), corner_map(), 1).verdicts
    assert verdict.level == "unrecognised"
    assert "no map to trust" in verdict.sentence


def test_an_exploited_removal_is_named() -> None:
    names = tuple(f"juror {i}" for i in range(QUORUM + 1))
    values = torch.tensor([[[0.5, 0.0, 0.0, 0.0]]]).expand(len(names), -1, -1)
    optimised = torch.tensor([True] + [False] * QUORUM)
    excess = torch.tensor([[0.3]] + [[0.1]] * QUORUM)
    own, yes = torch.tensor([0.6]), torch.tensor([True])
    result = fm.JuryResult(names, values, ~optimised[:, None], [[""]] * len(names), optimised, excess, excess, own, yes)
    (verdict,) = result.verdicts
    assert verdict.level == "mixed"
    assert "by 0.200 more" in verdict.sentence
    assert "exploited" in verdict.sentence
    assert replace(result, excess=torch.zeros_like(excess)).verdicts[0].level == "supported"


def test_better_than_random_but_not_than_edges_is_mixed() -> None:
    values = torch.tensor([[[0.5, 0.0, 0.1, 0.6]]]).expand(4, -1, -1)
    voting, none = torch.ones(4, 1, dtype=torch.bool), torch.zeros(4, 1)
    names = ("a", "b", "c", "d")
    result = fm.JuryResult(
        names, values, voting, [[""]] * 4, ~voting[:, 0], none, none, torch.tensor([0.6]), torch.tensor([True])
    )
    assert result.verdicts[0].level == "mixed"
    assert result.verdicts[0].sentence == "better than a random map for 4 of 4 jurors, but not than edges (0 of 4)"


def test_methods_are_compared_by_jurors_that_none_optimised() -> None:
    panel = Panel((Removal("grey", ("grey",)), Removal("noise", ("noise",))), (0.1, 0.4))
    values = evidence(CORNER, photo(), corner_map(), 0, panel=panel).values[:, 0, 0]
    assert torch.allclose(jury_values(CORNER, photo(), corner_map(), 0, panel=panel), values.mean())
    assert torch.allclose(jury_values(CORNER, photo(), corner_map(), 0, optimised={"noise"}, panel=panel), values[0])
    with pytest.raises(ValueError, match="no juror is free of colour, noise, which the methods optimise; give other jurors"):
        jury_values(CORNER, photo(), corner_map(), 0, optimised={"noise", "colour"}, panel=panel)


def test_each_image_is_judged_alone(small_net: SmallNet, images: Tensor, untouched: Untouched) -> None:
    model = untouched(small_net)
    maps = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(3))
    generators = fm.image_generators(0, range(3))
    together = evidence(model, images, maps, generator=fm.image_generators(0, range(3)))
    for i, generator in enumerate(generators):
        alone = evidence(model, images[i : i + 1], maps[i : i + 1], generator=[generator], chunk_size=7)
        assert torch.allclose(alone.values, together[i].values, atol=1e-5)
        assert alone.reasons == together[i].reasons
    metric = JuryGain(model, chunk_size=7)
    for i in range(3):
        metric.update(images[i : i + 1], maps[i : i + 1])
    assert torch.allclose(metric.per_image(), together.gain[:, 0], atol=1e-5, equal_nan=True)


def test_the_mirrored_image_is_nothing_new_to_a_model_that_is_mirrored_itself() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            value = 8 * (x.mean(dim=(1, 2, 3)) - 0.5)
            return torch.stack([value, -value], dim=1)

    panel = Panel(tuple(Removal(view, ("black",), view) for view in ("plain", "mirrored")), (0.2, 0.5))
    result = evidence(Mean(), torch.rand(1, 3, 8, 8), torch.rand(1, 4, 4), 0, panel=panel)
    assert torch.allclose(result.values[0], result.values[1], atol=1e-6)


def test_the_view_of_a_juror_is_the_composed_image() -> None:
    """A model that looks at the left corner looks, mirrored, at the right one."""
    panel = Panel((Removal("mirrored", ("black",), "mirrored"),), (0.25,))
    right = corner_map().flip(-1)
    image = photo().flip(-1)
    assert evidence(CORNER, image, right, pixel, panel=panel).values[0, 0, 0] > 0.3


def test_a_second_model_that_is_the_same_agrees() -> None:
    panel = Panel((Removal("blur", ("blur",)),), (0.2, 0.5))
    result = evidence(CORNER, photo(), corner_map(), 0, panel=panel, second=CORNER)
    assert result.jurors == ("blur", "second model")
    assert torch.allclose(result.values[0], result.values[1])


def test_a_second_model_with_other_classes_is_refused() -> None:
    first, second = (fm.Classifier(nn.Flatten(), labels=names) for names in (("a", "b"), ("a", "c")))
    with pytest.raises(ValueError, match="the second model has other classes: class 1 is 'c'; give one"):
        evidence(first, torch.rand(1, 3, 8, 8), torch.rand(1, 2, 2), second=second)


def test_an_unknown_panel_is_refused() -> None:
    with pytest.raises(ValueError, match="panel 'large' is unknown; give one of quick, full, or a Panel"):
        evidence(CORNER, photo(), corner_map(), panel="large")  # type: ignore[arg-type]


@contextmanager
def counting_rows(model: nn.Module) -> Iterator[list[int]]:
    rows: list[int] = []
    handle = model.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    yield rows
    handle.remove()


@pytest.mark.parametrize("panel", ["quick", "full"])
def test_the_estimated_passes_are_those_that_are_made(panel: str) -> None:
    with counting_rows(CORNER) as rows:
        evidence(CORNER, photo(), corner_map(), 0, panel=panel)  # type: ignore[arg-type]
    assert sum(rows) == PANELS[panel].passes()  # type: ignore[index]


def test_the_jurors_of_a_panel_are_asked_in_order() -> None:
    done: list[tuple[int, int]] = []
    evidence(CORNER, photo(), corner_map(), 0, progress=lambda *step: done.append(step))
    assert done == [(i, 6) for i in range(1, 7)]


def test_imputation_prefers_the_corner() -> None:
    explanation = fm.Explanation(corner_map(), (16, 16), target=torch.tensor([0]))
    with prepared_inputs(CORNER, photo(), explanation, None) as inputs, torch.no_grad():
        opposite = fm.Explanation(corner_map(-1.0), (16, 16))
        values = Imputation().judge(Case(CORNER, inputs, [explanation, opposite], (0.5,))).values
    assert values[0, 0] > 0.2
    assert values[0, 1] < -0.2


READS = {
    "blur": {"igos", "igos_plus", "igos_plus_plus", "mask", "extremal", "rank_descent"},
    "colour": {"rise", "occlusion", "lime", "kernelshap", "scorecam"},
}
"""Methods whose map is decided by scores under a removal, by the kind of their default baseline."""


@pytest.mark.parametrize("name", METHODS)
def test_every_method_declares_what_it_optimises(name: str) -> None:
    explainer = METHODS[name].explainer(nn.Identity())
    kinds = {kind for kind, names in READS.items() if name in names}
    wanted = ("blur", "colour", "noise") if name == "learned_mask" else tuple(kinds)
    assert explainer.optimises() == wanted
    if kinds:
        assert explainer.optimises(fm.Noise()) == ("noise",)


def test_an_explanation_says_what_decided_it() -> None:
    occlusion = fm.Occlusion(CORNER, patch=8, stride=8)
    assert occlusion(photo(), 0).optimises == ("colour",)
    assert occlusion(photo(), 0, baseline="blur")[0].optimises == ("blur",)
    assert CAM(CORNER, gradient=Smooth(), weighting="least_infidelity").optimises() == ("infidelity",)


def test_kinds_of_removal() -> None:
    kinds = {name: family_of(name) for name in (*fm.BASELINES, "zero")}
    blurs = dict.fromkeys(("blur", "strong_blur", "median_blur"), "blur")
    assert kinds == {**dict.fromkeys(("black", "grey", "white", "mean", "zero"), "colour"), **blurs, "noise": "noise"}
    assert family_of(Shuffled()) == "patches"
    assert family_of(lambda images: images) == "own"
