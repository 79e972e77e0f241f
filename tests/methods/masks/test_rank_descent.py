"""Rank descent: its gradient is that of the soft areas, and its ranking is the best one where that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from oracles import Patch, SmallNet
from torch import Tensor, nn

from faithmap import EvenBlurs, Expected, ExpectedFusedCAM, Gradient, deletion_insertion, image_generators
from faithmap.methods.masks.rank_descent import RankDescent, blurred, normalised, ranks
from faithmap.methods.references import GOLDEN
from faithmap.probe import MaskProbe
from faithmap.score import Score

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")

FEW: dict[str, Any] = {"resolution": 4, "iterations": 3, "prior_samples": 2}


def probe_of(net: SmallNet, images: Tensor) -> MaskProbe:
    score = Score("probability", torch.tensor([0, 1, 2, 0, 1, 2]))
    images = images.double().repeat(2, 1, 1, 1)
    return MaskProbe(net.double().eval(), score, images, torch.full_like(images, 0.4))


def test_the_gradient_is_that_of_the_soft_areas(small_net: SmallNet, images: Tensor) -> None:
    """By differences, in double precision, the equation written out."""
    probe, explain = probe_of(small_net, images), RankDescent(small_net, resolution=4, softness=0.2, smoothing=0.0)
    draw = torch.Generator().manual_seed(0)
    u, t, other = (torch.rand(*shape, generator=draw, dtype=torch.float64) for shape in ((3, 4, 4), (3,), (3,)))

    def area(u: Tensor) -> Tensor:
        deleted, inserted = (1 / (1 + torch.exp(-(u - (1 - s.view(3, 1, 1))) / 0.2)) for s in (t, other))
        deletion, insertion = probe.scores(torch.cat([1 - deleted, inserted]), torch.arange(6)).chunk(2)
        return deletion - insertion

    found = explain.gradient(probe, u, t, other)
    for row, column in ((0, 0), (2, 3), (3, 1)):
        step = torch.zeros_like(u)
        step[:, row, column] = 1e-5
        assert torch.allclose(found[:, row, column], (area(u + step) - area(u - step)) / 2e-5, rtol=1e-4, atol=1e-10)


def test_the_descent_is_its_recurrence_written_out(small_net: SmallNet, images: Tensor) -> None:
    probe = probe_of(small_net, images)
    explain = RankDescent(small_net, resolution=4, iterations=4, prior=None, momentum=0.6, step=0.3, smoothing=0.0)
    found = explain(images.double(), [0, 1, 2], baseline=torch.full_like(images, 0.4).double()).heatmap
    start = torch.cat([torch.rand(1, generator=g) for g in image_generators(0, range(3))]).double()
    h, v, maps = torch.full((3, 4, 4), 0.5).double(), torch.zeros(3, 4, 4).double(), []
    for k in range(4):
        t, other = (start + k * GOLDEN) % 1, (start + k * GOLDEN + 0.5) % 1
        v = 0.6 * v + 0.4 * normalised(explain.gradient(probe, ranks(h), t, other))
        h = h - 0.3 * normalised(v)
        maps.append(h)
    mean = torch.stack([(k + 1) ** 3 * h for k, h in enumerate(maps)]).sum(dim=0) / 100
    assert torch.allclose(found, mean, atol=1e-9)


@pytest.mark.parametrize("prior", ["expected_fusedcam", None])
def test_the_cells_that_the_model_sees_rank_first(prior: Literal["expected_fusedcam"] | None) -> None:
    model, image = Patch(slice(8, 16), slice(16, 24)), torch.full((1, 3, 32, 32), 0.9)
    explanation = RankDescent(model, resolution=8, baseline="black", prior=prior)(image, 0)
    cells = torch.zeros(8, 8, dtype=torch.bool)
    cells[2:4, 4:6] = True
    assert explanation.heatmap[0][cells].min() > explanation.heatmap[0][~cells].quantile(0.9)
    curves = deletion_insertion(model, image, explanation, baseline=0.0)
    assert curves.deletion.area < 0.15 < 0.85 < curves.insertion.area
    assert str(explanation.diagnostics[0]["prior"]).startswith("None" if prior is None else "none: ")


def test_ranks_of_a_constant_map_are_a_half_and_a_zero_gradient_stays_zero() -> None:
    zeros = torch.zeros(2, 3, 3)
    assert torch.equal(normalised(zeros), zeros)
    assert torch.equal(ranks(zeros), zeros + 0.5)


def test_blurring_is_a_gaussian_with_repeated_borders() -> None:
    point = torch.zeros(1, 28, 28, dtype=torch.float64)
    point[0, 14, 14] = 1
    found = blurred(point, 1.5)
    assert found.sum().item() == pytest.approx(1)
    assert (found[0, 14, 14] / found[0, 14, 16]).item() == pytest.approx(torch.tensor(4 / (2 * 1.5**2)).exp().item(), rel=1e-5)
    assert torch.allclose(blurred(torch.ones(1, 5, 9), 20.0), torch.ones(1, 5, 9))
    assert torch.equal(blurred(point, 0.0), point)
    assert torch.allclose(blurred(torch.ones(1, 1, 3), 1.0), torch.ones(1, 1, 3))


def test_the_unit_of_the_score_does_not_matter(small_net: SmallNet, images: Tensor) -> None:
    explain = RankDescent(small_net.double(), **FEW)
    plain, scaled = (explain(images.double(), lambda y, c=c: c * y[:, 1]).heatmap for c in (1.0, 1000.0))
    assert torch.allclose(plain, scaled, atol=1e-8)


def test_the_descent_starts_from_the_ranks_of_the_prior(small_net: SmallNet, images: Tensor) -> None:
    """With steps close to 0 the map has the ranks of the prior."""
    prior = Gradient(small_net)
    explanation = RankDescent(small_net, resolution=4, iterations=1, prior=prior, step=1e-6)(images)
    assert torch.allclose(explanation.heatmap, ranks(prior(images).at((4, 4))), atol=1e-4)
    assert explanation.diagnostics[0]["prior"] == "Gradient"
    assert explanation.settings["prior"] == "Gradient"
    assert (explanation.diagnostics[0]["forward_passes"], explanation.diagnostics[0]["backward_passes"]) == (6, 3)
    expected = RankDescent(small_net, resolution=4, iterations=1, prior_samples=3, step=1e-6)(images)
    even = Expected(samples=3, references=EvenBlurs(), jitter=False)
    theirs = ExpectedFusedCAM(small_net, relu=False, gradient=even)(images)
    assert torch.allclose(expected.heatmap, ranks(theirs.at((4, 4))), atol=1e-4)
    assert expected.diagnostics[0]["prior"] == "ExpectedFusedCAM"
    assert expected.diagnostics[0]["backward_passes"] == 5


def test_the_prior_follows_a_change_of_the_model(small_net: SmallNet, images: Tensor) -> None:
    torch.manual_seed(5)
    explain, other = RankDescent(small_net, **FEW), SmallNet()
    explain(images)
    explain.model = other
    assert torch.equal(explain(images).heatmap, RankDescent(other, **FEW)(images).heatmap)


def test_a_map_depends_neither_on_the_chunks_nor_on_the_other_images(small_net: SmallNet, images: Tensor) -> None:
    net, images = small_net.double(), images.double()
    whole = RankDescent(net, **FEW)(images).heatmap
    assert torch.allclose(RankDescent(net, chunk_size=2, **FEW)(images).heatmap, whole, atol=1e-7)
    assert torch.allclose(RankDescent(net, chunk_size=3, **FEW)(images).heatmap, whole, atol=1e-7)
    last = RankDescent(net, **FEW)(images[2:], generator=image_generators(0, [2])).heatmap
    assert torch.allclose(last, whole[2:], atol=1e-7)
    assert not torch.allclose(RankDescent(net, seed=1, **FEW)(images).heatmap, whole, atol=1e-2)


def test_in_single_precision_a_map_is_bit_for_bit_the_same_without_the_other_images(images: Tensor) -> None:
    """Rounding would be magnified, iteration by iteration."""
    torch.manual_seed(0)
    net = SmallNet()
    explain: dict[str, Any] = {"resolution": 8, "iterations": 25}
    whole = RankDescent(net, **explain)(images).heatmap
    last = RankDescent(net, **explain)(images[2:], generator=image_generators(0, [2])).heatmap
    assert torch.equal(last, whole[2:])


def test_passes_are_estimated_exactly(small_net: SmallNet, images: Tensor) -> None:
    explain = RankDescent(small_net, **FEW)
    for record in explain(images).diagnostics:
        assert (record["forward_passes"], record["backward_passes"]) == explain.passes(images[:1]) == (11, 8)
    assert RankDescent(small_net, prior=None).passes(images[:1]) == (52, 50)


class MapRecorder:
    """A progress callback that is given maps."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.received: list[tuple[int, Tensor]] = []

    def __call__(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    def maps(self, image: int, heatmap: Tensor) -> None:
        self.received.append((image, heatmap))


def test_a_progress_callback_can_get_the_map_of_each_iteration(small_net: SmallNet, images: Tensor) -> None:
    progress = MapRecorder()
    explanation = RankDescent(small_net, chunk_size=4, **FEW)(images, progress=progress)
    assert [image for image, _ in progress.received] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(torch.cat([heatmap for _, heatmap in progress.received[2::3]]), explanation.heatmap)
    assert progress.steps == [(done, 9) for done in range(1, 10)]


class Flat(nn.Module):
    """No layer with a spatial output."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 16 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1))
        return logits


def test_a_model_without_a_layer_has_no_prior(untouched: Callable[[nn.Module], nn.Module]) -> None:
    model = untouched(Flat())
    explanation = RankDescent(model, **FEW)(torch.rand(1, 3, 16, 16))
    assert explanation.diagnostics[0]["prior"].startswith("none: ")
    assert explanation.diagnostics[0]["forward_passes"] == 8


def test_the_model_is_left_unchanged_also_by_a_failure(
    small_net: SmallNet, images: Tensor, untouched: Callable[[nn.Module], nn.Module]
) -> None:
    untouched(small_net.train())
    images.requires_grad_()
    with torch.no_grad():
        assert not RankDescent(small_net, **FEW)(images).heatmap.requires_grad
    assert images.grad is None
    calls: list[int] = []

    def score(logits: Tensor) -> Tensor:
        calls.append(len(logits))
        if len(calls) == 6:
            raise ZeroDivisionError
        return logits[:, 0]

    with pytest.raises(ZeroDivisionError):
        RankDescent(small_net, **FEW)(images, score)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resolution": 33}, "resolution is"),
        ({"iterations": 0}, "iterations is 0; give a whole number of at least 1"),
        ({"momentum": 1.0}, "momentum is 1.0; give a number of at least 0 and below 1"),
        ({"softness": 0.0}, "softness is 0.0; give a number above 0"),
        ({"prior": "gradcam"}, "prior is 'gradcam'; give an Explainer, 'expected_fusedcam', or None"),
        ({"prior_samples": 0}, "prior_samples is 0; give a whole number of at least 1"),
    ],
)
def test_settings_outside_their_range_are_refused(
    settings: dict[str, Any], words: str, small_net: SmallNet, images: Tensor
) -> None:
    with pytest.raises(ValueError, match=words):
        RankDescent(small_net, **settings)(images)
