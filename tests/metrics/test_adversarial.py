"""The adversarial check: what has to be inserted, of an image and of its adversarial twin."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from oracles import Linear, SmallNet, Untouched, fails_from, given
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.methods import IGOS
from faithmap.metrics import AdversarialDifference
from faithmap.metrics.functional import Curve, adversarial_check, fraction_needed, insertion, mi_fgsm
from faithmap.score import Target
from faithmap.seeds import Generators
from faithmap.warning_types import FaithmapWarning

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def images(images: Tensor) -> Tensor:
    return images[..., :16, :16]


class Evidence:
    """Of a linear model: what each pixel says for the class. Remembers what it was asked, and what was drawn."""

    def __init__(self, model: nn.Module, weight: Tensor, noise: float = 0.0) -> None:
        self.model, self.weight, self.noise = model, weight, noise
        self.targets: list[list[int]] = []
        self.drawn: list[list[float]] = []

    def __call__(
        self,
        images: Tensor,
        target: Target = None,
        *,
        generator: Generators = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Explanation:
        assert isinstance(target, Tensor)
        assert isinstance(generator, list)
        sign = 1 - 2 * target.view(-1, 1, 1).to(images)
        self.targets.append(target.tolist())
        self.drawn.append([float(torch.rand((), generator=one)) for one in generator])
        if progress is not None:
            progress(1, 1)
        noise = self.noise * torch.tensor(self.drawn[-1]).to(images).view(-1, 1, 1)
        heatmap = ((images - 0.5) * self.weight).sum(dim=1) * sign
        heatmap = heatmap + noise * torch.arange(heatmap[0].numel()).view(heatmap.shape[1:]).to(images)
        return Explanation(heatmap, (images.shape[-2], images.shape[-1]), target=target, method="evidence")


class Grey(nn.Module):
    """A linear model of the image minus grey."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.linear = Linear(weight)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x - 0.5)
        return logits


@pytest.fixture
def weight() -> Tensor:
    return torch.ones(1, 4, 4, dtype=torch.float64)


@pytest.fixture
def blot() -> Tensor:
    """Grey, with four cells that are bright: their evidence is 4 * 0.2."""
    image = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    image[..., 1:3, 1:3] = 0.7
    return image


def test_the_cells_needed_of_a_linear_model_are_those_of_its_closed_form(weight: Tensor, blot: Tensor) -> None:
    """Four cells of evidence 0.2 among grey. All fall by 0.1: four of 0.1 are left for the one class, twelve for the other.

    k cells of the clean image show sigmoid(2 * 0.2 k), and k of the adversarial one sigmoid(2 * 0.1 k), up to its twelve.
    """
    explainer = Evidence(Grey(weight), weight)
    check = adversarial_check(explainer, blot, radius=0.1, share=0.9, baseline=0.5, early_stop=False)
    assert explainer.targets == [[0], [1]]
    assert torch.allclose(check.attack.images, blot - 0.1)
    odds = torch.cat([0.4 * torch.arange(5), torch.full((12,), 1.6)]).double()
    assert torch.allclose(check.clean_insertion.scores[0], odds.sigmoid(), atol=1e-12)
    away = torch.cat([0.2 * torch.arange(13), 2.4 - 0.2 * torch.arange(1, 5)]).double()
    assert torch.allclose(check.adversarial_insertion.scores[0], away.sigmoid(), atol=1e-12)
    for needed, evidence in ((check.clean_needed, odds), (check.adversarial_needed, away)):
        first = next(k for k in range(17) if evidence[k].sigmoid() >= 0.9 * evidence[-1].sigmoid())
        assert needed.tolist() == [first / 16]
    assert (check.clean_needed.item(), check.adversarial_needed.item()) == (3 / 16, 6 / 16)
    assert check.difference.tolist() == [3 / 16]
    assert check.valid.tolist() == [True]
    assert check.resolution == (4, 4)


class Background(nn.Module):
    """Two classes whose logits are 20 times the evidence and its negative, and a third one with the logit 4 on every image."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.grey = Grey(20 * weight)

    def forward(self, x: Tensor) -> Tensor:
        evidence = self.grey(x)[:, :1]
        return torch.cat([evidence, -evidence, torch.full_like(evidence, 4)], dim=1)


def test_an_early_stop_inverts_the_conclusion_of_the_papers_attack(weight: Tensor) -> None:
    """Two bright cells: evidence 2 * 0.28 * 20 = 11.2 for class 0, so that one of them is enough, 5.6 above 4.

    All 10 steps take 20 * 16 * 16/255 = 20.1 of it. Class 1 has 8.9, of which each of 14 cells has 1.25: four are needed. With
    an early stop the image stays where class 0 falls below 4. Its class is that of the baseline, and no cell is needed.
    """
    image = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    image[..., 1, 1:3] = 0.78
    explainer = Evidence(Background(weight), weight)
    paper = adversarial_check(explainer, image, baseline=0.5)
    stopped = [adversarial_check(explainer, image, baseline=0.5, early_stop=True, radius=r / 255) for r in (16, 8)]
    assert explainer.targets == [[0], [1], [0], [2], [0], [2]]
    assert paper.attack.adversarial_probabilities[0, 1].item() == pytest.approx(1 / (1 + math.exp(4 - 8.878)), abs=1e-4)
    assert [check.clean_needed.item() for check in (paper, *stopped)] == [1 / 16] * 3
    assert [check.adversarial_needed.item() for check in (paper, *stopped)] == [4 / 16, 0, 0]
    assert paper.difference.item() > 0 > max(check.difference.item() for check in stopped)
    assert all(check.valid.tolist() == [True] for check in (paper, *stopped))


def test_curves_are_those_of_the_function_insertion(small_net: SmallNet, images: Tensor) -> None:
    explainer = Evidence(small_net, torch.ones(3, 1, 1))
    explainer.weight = torch.rand(3, 16, 16)
    check = adversarial_check(explainer, images, radius=0.3, insertion_steps=8, protocol="rise")
    for curve, x, explanation in (
        (check.clean_insertion, images, check.clean),
        (check.adversarial_insertion, check.attack.images, check.adversarial),
    ):
        assert torch.equal(curve.scores, insertion(small_net, x, explanation, protocol="rise", steps=8).scores)
    assert check.protocol.name == "rise"
    assert torch.equal(given(check.clean.target), check.attack.clean_class)
    assert torch.equal(given(check.adversarial.target), check.attack.adversarial_class)


def test_the_attack_is_mi_fgsm_with_these_settings(small_net: SmallNet, images: Tensor) -> None:
    explainer = Evidence(small_net, torch.rand(3, 16, 16))
    settings: dict[str, Any] = {"radius": 0.2, "steps": 3, "decay": 0.5, "step_size": 0.1, "targeted": True}
    check = adversarial_check(explainer, images, 3, early_stop=False, insertion_steps=2, **settings)
    assert torch.equal(check.attack.images, mi_fgsm(small_net, images, 3, **settings).images)
    assert check.attack.targeted
    early = adversarial_check(explainer, images, radius=0.9, insertion_steps=2, early_stop=True).attack.images
    assert torch.equal(early, mi_fgsm(small_net, images, radius=0.9, early_stop=True).images)
    assert not torch.equal(early, mi_fgsm(small_net, images, radius=0.9).images)


def test_the_defaults_are_those_of_the_papers_attack(small_net: SmallNet, images: Tensor) -> None:
    """Dong et al. (2018): a radius of 16 of 255 levels, 10 steps, a momentum of 1, no early stop."""
    check = adversarial_check(Evidence(small_net, torch.rand(3, 16, 16)), images, insertion_steps=2)
    paper = mi_fgsm(small_net, images, radius=16 / 255, steps=10, decay=1.0, early_stop=False)
    assert torch.equal(check.attack.images, paper.images)
    assert torch.equal(mi_fgsm(small_net, images).images, paper.images)


def test_both_maps_are_made_with_the_same_random_numbers(small_net: SmallNet, images: Tensor) -> None:
    explainer = Evidence(small_net, torch.rand(3, 16, 16), noise=1.0)
    adversarial_check(explainer, images, insertion_steps=2, seed=5)
    first, second = explainer.drawn
    assert first == second
    assert len(set(first)) == 3
    adversarial_check(explainer, images, insertion_steps=2, seed=6)
    assert explainer.drawn[2] != first


def test_the_check_of_an_image_does_not_depend_on_the_other_images(small_net: SmallNet, images: Tensor) -> None:
    explainer = Evidence(small_net.double(), torch.rand(3, 16, 16).double(), noise=0.01)
    settings: dict[str, Any] = {"radius": 0.3, "insertion_steps": 8}
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    together = adversarial_check(explainer, images.double(), generator=generators, **settings)
    one = adversarial_check(
        explainer, images[2:].double(), generator=[torch.Generator().manual_seed(2)], chunk_size=3, **settings
    )
    for name in ("clean_needed", "adversarial_needed", "difference", "correlation"):
        assert torch.allclose(getattr(together, name)[2:], getattr(one, name), atol=1e-9, equal_nan=True)
        assert torch.equal(getattr(together[2], name).isnan(), getattr(one, name).isnan())
    assert torch.allclose(together[2].clean_insertion.scores, one.clean_insertion.scores, atol=1e-9)
    assert len(together[-1]) == 1
    assert len(together) == 3


def test_a_constant_map_has_nan_fractions_and_is_not_valid(weight: Tensor, blot: Tensor) -> None:
    check = adversarial_check(Evidence(Grey(weight), weight * 0), blot, radius=0.1, baseline=0.5)
    assert math.isnan(check.clean_needed)
    assert math.isnan(check.difference)
    assert math.isnan(check.correlation)
    assert check.fooled.tolist() == [True]
    assert check.valid.tolist() == [False]


def test_the_fraction_needed_is_the_first_that_reaches_the_share() -> None:
    at = torch.tensor([0.0, 0.2, 1.0])
    scores = torch.tensor([[0.5, 0.1, 0.8], [0.0, 0.9, 0.6], [0.0, 0.0, 0.0]])
    assert fraction_needed(Curve(at, scores), 0.5).tolist() == pytest.approx([0.0, 0.2, 0.0])
    assert fraction_needed(Curve(at, scores), 1.0).tolist() == pytest.approx([1.0, 0.2, 0.0])
    for share in (0, 1.01, math.nan):
        with pytest.raises(ValueError, match="share is"):
            fraction_needed(Curve(at, scores), share)
    with pytest.raises(ValueError, match="give curves of probabilities"):
        fraction_needed(Curve(at, -scores), 0.5)


def test_the_model_of_igos_is_left_unchanged_also_after_an_error(
    small_net: SmallNet, images: Tensor, untouched: Untouched
) -> None:
    untouched(small_net.train())
    explainer = IGOS(small_net, resolution=4, iterations=2, path_points=2)
    updates: list[tuple[int, int]] = []
    settings: dict[str, Any] = {"radius": 0.3, "insertion_steps": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaithmapWarning)
        check = adversarial_check(explainer, images, progress=lambda done, total: updates.append((done, total)), **settings)
        with pytest.raises(ZeroDivisionError):
            adversarial_check(explainer, images, progress=fails_from(300), **settings)
    assert check.resolution == (4, 4)
    assert updates == sorted(updates)
    assert updates[-1] == (1000, 1000)


def test_invalid_settings_and_explainers_are_refused(small_net: SmallNet, images: Tensor) -> None:
    explainer = Evidence(small_net, torch.rand(3, 16, 16))
    for settings, words in (
        ({"share": 0.0}, "share is 0.0"),
        ({"radius": -1}, "radius is -1"),
        ({"insertion_steps": 0}, "steps is 0"),
        ({"generator": [torch.Generator()]}, "1 entries for 3 images"),
        ({"protocol": "roar"}, "'roar' is unknown"),
    ):
        with pytest.raises(ValueError, match=words):
            adversarial_check(explainer, images, **settings)
    no_explainer: Any = lambda images, target: None  # noqa: E731
    with pytest.raises(TypeError, match="function has no model that could be attacked"):
        adversarial_check(no_explainer, images)


def test_the_metric_class_equals_the_function_for_every_batching(small_net: SmallNet, images: Tensor) -> None:
    small_net.double()
    images = images.double()
    explainer = Evidence(small_net, torch.rand(3, 16, 16).double(), noise=0.01)
    wanted = adversarial_check(explainer, images, radius=0.3, insertion_steps=8)
    assert wanted.valid.tolist() == [True, False, True]
    metric = AdversarialDifference(explainer, radius=0.3, insertion_steps=8)
    first = metric(images[:2])
    metric.update(images[2:])
    drawn = explainer.drawn
    assert drawn[2] + drawn[4] == drawn[3] + drawn[5] == drawn[0], "the random numbers of an image are its own"
    assert torch.allclose(first, wanted.difference[0])
    assert torch.allclose(metric.per_image(), wanted.difference[wanted.valid], atol=1e-9)
    assert torch.cat(metric.valid).tolist() == wanted.valid.tolist()
    assert torch.allclose(metric.compute(), wanted.difference[wanted.valid].mean())
    assert metric.higher_is_better
    assert not list(metric.parameters())
    unknown: dict[str, Any] = {"epsilon": 1}
    with pytest.raises(TypeError, match=r"no setting 'epsilon'; its settings are .*radius"):
        AdversarialDifference(explainer, **unknown)


def test_the_share_applies_to_both_maps(weight: Tensor, blot: Tensor) -> None:
    check = adversarial_check(Evidence(Grey(weight), weight), blot, radius=0.1, baseline=0.5, early_stop=False)
    assert replace(check, share=1.0).clean_needed.item() == 4 / 16
    assert replace(check, share=1.0).adversarial_needed.item() == 8 / 16, "2 * 0.1 * 8 is what is left at the end"
