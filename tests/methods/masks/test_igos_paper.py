"""The preset of I-GOS's paper is held to its Algorithm 1, written out for one image, one pass after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap import IGOS, Classifier, IGOSPlus, LineSearch, image_generators
from faithmap.baselines import make_baseline

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.warning_types.FaithmapWarning")

STD = (0.2, 0.25, 0.3)
ITERATIONS = 6


def network() -> Classifier:
    torch.manual_seed(1)
    layers: list[nn.Module] = [nn.Conv2d(3, 12, 7, stride=4), nn.ReLU(), nn.Conv2d(12, 16, 3, stride=2), nn.ReLU()]
    head = nn.Linear(256, 4)
    head.weight.data.mul_(25)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), head).double()
    return Classifier(model, mean=(0.4, 0.45, 0.5), std=STD, labels=list("abcd"))


def literal_masks(model: Classifier, image: Tensor, target: int, generator: torch.Generator, cells: int) -> list[Tensor]:
    """The mask after each iteration."""
    lambda1, lambda2, points = 1.0, 20.0, 20
    baseline = make_baseline("blur", image)

    def composed(mask: Tensor) -> Tensor:
        up = F.interpolate(mask.view(1, 1, cells, cells), image.shape[-2:], mode="bilinear", align_corners=True)
        return image * up + baseline * (1 - up)

    def probability(pixels: Tensor) -> Tensor:
        found: Tensor = model(pixels).softmax(dim=1)[0, target]
        return found

    def g(mask: Tensor) -> Tensor:
        rows, columns = (mask[1:] - mask[:-1]).square().mean(), (mask[:, 1:] - mask[:, :-1]).square().mean()
        return lambda1 * (1 - mask).abs().mean() + lambda2 * (rows + columns)

    def objective(mask: Tensor) -> float:
        with torch.no_grad():
            return float(probability(composed(mask)) + g(mask))

    mask, found = torch.ones(cells, cells, dtype=image.dtype), []
    for _ in range(ITERATIONS):
        total = torch.zeros_like(mask)
        for s in range(1, points + 1):
            noise = torch.empty(image.shape[1:]).normal_(generator=generator).double()
            noise[1:] = 0
            leaf = mask.clone().requires_grad_()
            score = probability(composed(s / points * leaf) + 0.2 * STD[0] * noise)
            total += torch.autograd.grad(score, leaf)[0] / points
        leaf = mask.clone().requires_grad_()
        total += torch.autograd.grad(g(leaf), leaf)[0]
        alpha, start = 1000.0, objective(mask)
        while alpha >= 1e-5:
            candidate = (mask - alpha * total).clamp(0, 1)
            if start - objective(candidate) >= alpha * 1e-4 * float(total.square().sum()):
                break
            alpha *= 0.2
        else:
            candidate = (mask - 1e-5 * total).clamp(0, 1)
        mask = candidate
        found.append(mask)
    return found


def test_the_preset_of_the_paper_is_its_algorithm_step_by_step() -> None:
    model = network()
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    image[:, :, 30:70, 40:90] = 0.5 + 0.5 * image[:, :, 30:70, 40:90]
    target = int(model(image).argmax())
    expected = literal_masks(model, image, target, image_generators(5, [0])[0], 28)
    assert not torch.equal(expected[0], torch.ones_like(expected[0])), "steps are taken"
    for iterations in (1, 3, ITERATIONS):
        explain = IGOS(model, **{**IGOS.paper(), "iterations": iterations})
        heatmap = explain(image, target, generator=image_generators(5, [0])).heatmap[0]
        assert (1 - heatmap - expected[iterations - 1]).abs().max() < 2e-4


def test_where_no_step_is_accepted_the_preset_takes_the_lower_bound() -> None:
    """A score that rises as the mask falls: any step is refused."""

    class Rising(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = 1 - x.mean(dim=(1, 2, 3))
            return torch.stack([score, -score], dim=1)

    settings: dict[str, Any] = {**IGOS.paper(resolution=2), "iterations": 2, "noise_std": 0.0, "path_points": 1}
    lower = LineSearch(upper=1.0, lower=0.5, take_lowest=True)
    image = torch.ones(1, 1, 4, 4)

    def report(step: LineSearch) -> tuple[list[float], float]:
        explain = IGOS(Rising(), **{**settings, "step": replace(step, beta=0.999), "score": "logit"})
        explanation = explain(image, 1, baseline="black")
        return explanation.diagnostics[0]["step"], float(explanation.heatmap.max())

    steps, moved = report(replace(lower, take_lowest=False))
    assert (steps[-1], moved) == (0.0, 0.0)
    steps, _ = report(lower)
    assert steps[-1] == 0.5


@pytest.mark.parametrize(("resolution", "weights"), [(7, (1, 20)), (28, (1, 20)), ((28, 112), (3, 60)), (224, (10, 20))])
def test_the_preset_has_the_published_weights(resolution: int | tuple[int, int], weights: tuple[float, float]) -> None:
    paper = IGOS.paper(resolution)
    assert (paper["lambda1"], paper["lambda2"]) == weights


def test_noise_in_normalised_units_and_on_one_channel() -> None:
    """A model that keeps its input sees the noise of the path's points: its standard deviation in each channel."""
    inputs: list[Tensor] = []

    class Seeing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                inputs.append(x.detach())
            score = x.mean(dim=(1, 2, 3))
            return torch.stack([score, -score], dim=1)

    model = Classifier(Seeing(), mean=(0.0, 0.0, 0.0), std=STD, labels=["a", "b"])
    for channels, expected in (("all", (0.2, 0.2, 0.2)), ("first", (0.2, 0.0, 0.0))):
        inputs.clear()
        settings: dict[str, Any] = {"noise_std": 0.2, "noise_units": "normalised", "noise_channels": channels}
        IGOS(model, **settings, path_points=4, iterations=1, resolution=2)(torch.full((1, 3, 64, 64), 0.5), 0, baseline=0.5)
        spread = torch.cat(inputs).std(dim=(0, 2, 3))
        assert torch.allclose(spread, torch.tensor(expected), atol=0.01)


def test_a_method_of_another_paper_has_no_such_preset() -> None:
    with pytest.raises(ValueError, match=r"I-GOS\+ has no preset 'paper'"):
        IGOSPlus.paper()
