"""I-GOS+ and I-GOS++: their gradient is that of their objective, and their masks delete and insert the score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import Patch, SmallNet
from torch import Tensor, nn

from faithmap import deletion_insertion, image_generators
from faithmap.baselines import compose, upsample
from faithmap.methods.masks import IGOS, IGOSPlus, IGOSPlusPlus, LineSearch, Nesterov
from faithmap.methods.masks.base import size_penalty, total_variation
from faithmap.methods.masks.igos import PathNoise
from faithmap.methods.masks.igos_plus import BilateralVariation
from faithmap.probe import MaskProbe
from faithmap.score import Score

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")

BOTH = pytest.mark.parametrize("method", [IGOSPlus, IGOSPlusPlus])


def probe_of(net: SmallNet, images: Tensor) -> MaskProbe:
    return MaskProbe(net.eval(), Score("probability", torch.tensor([0, 1, 2])), images, torch.full_like(images, 0.4))


def silent() -> PathNoise:
    return PathNoise(0.0, [])


@BOTH
def test_the_gradient_is_that_of_the_objective(method: type[IGOSPlus], small_net: SmallNet, images: Tensor) -> None:
    """With a single point on the path and no noise the integrated gradient is the gradient; by differences, in double."""
    objective = method(small_net, path_points=1).objective(probe_of(small_net.double(), images.double()), silent())
    every_image, shape = torch.arange(3), objective.initial_masks((4, 4)).shape
    masks = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.8 + 0.1
    gradient = objective.total_gradient(masks, every_image)
    for cell in (0, 11, gradient[0].numel() - 3):
        step = torch.zeros_like(masks)
        step.flatten(1)[:, cell] = 1e-5
        ahead, behind = (objective(masks + s * step, every_image) for s in (1, -1))
        assert torch.allclose(gradient.flatten(1)[:, cell], (ahead - behind) / 2e-5, rtol=1e-4, atol=1e-9)


@BOTH
def test_the_gradient_of_some_images_is_theirs_of_all(method: type[IGOSPlus], small_net: SmallNet, images: Tensor) -> None:
    objective = method(small_net, path_points=2).objective(probe_of(small_net.double(), images.double()), silent())
    masks = torch.rand_like(objective.initial_masks((4, 4)))
    every_image, some = torch.arange(3), torch.tensor([0, 2])
    assert torch.allclose(objective.total_gradient(masks, some), objective.total_gradient(masks, every_image)[some], atol=1e-12)


def test_the_objectives_are_the_papers_equations_written_out(small_net: SmallNet, images: Tensor) -> None:
    """The scores of Phi and Phi', one after the other; the weights are those of I-GOS at 4x4 cells."""
    net, images = small_net.double(), images.double()
    probe = probe_of(net, images)
    baseline, variation = probe.baseline, BilateralVariation(images, 0.1)
    generator = torch.Generator().manual_seed(0)
    deletion, insertion = (torch.rand(3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    product, index = deletion * insertion, torch.arange(3)

    def score(image: Tensor, removed: Tensor, mask: Tensor) -> Tensor:
        composed = compose(image, removed, upsample(mask.unsqueeze(1), (32, 32)))
        probabilities: Tensor = net(composed).detach().softmax(dim=1)
        return probabilities[index, index]

    def penalty(mask: Tensor) -> Tensor:
        return 0.1 * size_penalty(mask) + 2.0 * variation(mask, index)

    single = score(images, baseline, deletion) - score(baseline, images, deletion) + penalty(deletion)
    objective = IGOSPlus(net, resolution=4).objective(probe, silent())
    assert torch.allclose(objective(deletion, index), single, atol=1e-12)
    kept = (score(images, baseline, deletion) + score(images, baseline, product)) / 2
    removed = (score(baseline, images, insertion) + score(baseline, images, product)) / 2
    double = IGOSPlusPlus(net, resolution=4).objective(probe, silent())
    masks = torch.stack([deletion, insertion], dim=1)
    assert torch.allclose(double(masks, index), kept - removed + penalty(product), atol=1e-12)
    assert torch.equal(double.final_mask(masks), product)


def test_igos_plus_plus_of_equal_masks_that_are_ones_is_igos_plus(small_net: SmallNet, images: Tensor) -> None:
    probe, ones, index = probe_of(small_net, images), torch.ones(3, 4, 4), torch.arange(3)
    single = IGOSPlus(small_net, resolution=4).objective(probe, silent())(ones, index)
    double = IGOSPlusPlus(small_net, resolution=4).objective(probe, silent())(torch.ones(3, 2, 4, 4), index)
    assert torch.allclose(single, double, atol=1e-6)
    clean, gone = (MaskProbe(small_net, probe.score, x, x).scores(ones, index) for x in (images, probe.baseline))
    assert torch.allclose(single, clean - gone, atol=1e-6), "what a mask of ones removes, shown alone, is the baseline"


def test_bilateral_variation_is_cheap_where_the_image_has_an_edge() -> None:
    image = torch.zeros(1, 3, 33, 33)
    image[..., 16:] = 1
    flat = torch.full_like(image, 0.3)
    step = torch.ones(1, 33, 33)
    step[..., 16:] = 0
    plain = total_variation(step)
    for picture, share in ((flat, 1.0), (image, 0.5)):
        assert torch.allclose(BilateralVariation(picture, 0.1)(step, torch.tensor([0])), share * plain)
    assert torch.equal(BilateralVariation(image, None)(step, torch.tensor([0])), plain)


def test_bilateral_variation_is_its_equation_written_out() -> None:
    """Another number of rows than of columns, the second of two images, and cells that are not whole pixels apart."""
    images = torch.rand(2, 3, 12, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.rand(1, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    up = nn.functional.interpolate(mask.unsqueeze(1), (12, 17), mode="bilinear", align_corners=True)[0, 0]
    total = total_variation(mask)[0]
    for spread, step, edge in (
        (11 / 2, up[1:] - up[:-1], images[1, :, 1:] - images[1, :, :-1]),
        (16 / 4, up[:, 1:] - up[:, :-1], images[1, :, :, 1:] - images[1, :, :, :-1]),
    ):
        total = total + spread**2 * ((-edge.square().mean(dim=0) / 0.3**2).exp() * step.square()).mean()
    assert BilateralVariation(images, 0.3)(mask, torch.tensor([1])).item() == pytest.approx(total.item() / 2, rel=1e-12)


def test_a_coarse_step_weighs_the_same_in_both_halves() -> None:
    """Cells 8 pixels apart: a ramp from 0 to 1 over a cell has per-pixel steps of 1/8, counted 8 x 8 times."""
    flat = torch.full((1, 3, 33, 33), 0.3)
    ramp = torch.linspace(0, 1, 5).expand(1, 5, 5)
    assert torch.allclose(BilateralVariation(flat, 0.1)(ramp, torch.tensor([0])), total_variation(ramp), atol=1e-6)


@BOTH
def test_the_mask_shows_the_patch_and_deletes_and_inserts_well(method: type[IGOSPlus]) -> None:
    model = Patch(slice(8, 16), slice(16, 24))
    image = torch.full((1, 3, 32, 32), 0.9)
    explanation = method(model, resolution=8, baseline="black", iterations=8)(image, 0)
    heatmap = explanation.heatmap
    inside = heatmap[0, 2:4, 4:6]
    assert inside.min() > heatmap[0][heatmap[0] < inside.min()].max() or inside.mean() > 5 * heatmap.mean()
    curves = deletion_insertion(model, image, explanation, baseline=0.0)
    assert curves.deletion.area < 0.35 < 0.65 < curves.insertion.area


@pytest.mark.parametrize(("method", "scores"), [(IGOSPlus, 2), (IGOSPlusPlus, 4)])
def test_the_objective_never_rises_over_an_accepted_step(
    method: type[IGOSPlus], scores: int, small_net: SmallNet, images: Tensor
) -> None:
    for diagnostics in method(small_net, resolution=4, iterations=4, path_points=4, step=LineSearch())(images).diagnostics:
        objective = diagnostics["objective"]
        assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(objective))
        assert diagnostics["backward_passes"] == scores * 4 * (len(objective) - 1)


@pytest.mark.parametrize(("method", "scores"), [(IGOS, 1), (IGOSPlus, 2), (IGOSPlusPlus, 4)])
def test_passes_are_estimated(method: type[IGOS], scores: int, small_net: SmallNet, images: Tensor) -> None:
    """Exactly, if no step is searched for."""
    explain = method(small_net, resolution=4, iterations=3, path_points=2, step=Nesterov())
    report, estimate = explain(images[:1]).diagnostics[0], explain.passes(images[:1])
    assert estimate == (2 + scores + 3 * scores * (2 + 1), 3 * scores * 2)
    assert (report["forward_passes"], report["backward_passes"]) == estimate
    assert method(small_net, step=LineSearch()).passes(images[:1]).forward == 2 + scores + 15 * scores * (20 + 8)


@BOTH
def test_a_map_depends_neither_on_the_chunks_nor_on_the_other_images(
    method: type[IGOSPlus], small_net: SmallNet, images: Tensor
) -> None:
    settings: dict[str, Any] = {"resolution": 4, "iterations": 2, "path_points": 3}
    whole = method(small_net.double(), **settings)(images.double()).heatmap
    chunked = method(small_net, chunk_size=5, **settings)(images.double()).heatmap
    last = method(small_net, **settings)(images[2:].double(), generator=image_generators(0, [2])).heatmap
    assert torch.allclose(whole, chunked, atol=1e-6)
    assert torch.allclose(whole[2:], last, atol=1e-6)


@BOTH
def test_the_model_is_left_unchanged(
    method: type[IGOSPlus], small_net: SmallNet, images: Tensor, untouched: Callable[[nn.Module], nn.Module]
) -> None:
    small_net.train()
    untouched(small_net)
    method(small_net, resolution=4, iterations=1, path_points=2)(images)
    with pytest.raises(ValueError, match="sigma is 0; give a number above 0, or None"):
        method(small_net, sigma=0)(images)


@pytest.mark.parametrize("method", [IGOS, IGOSPlus, IGOSPlusPlus])
def test_nesterovs_rule_is_its_recurrence(method: type[IGOS], small_net: SmallNet, images: Tensor) -> None:
    probe, every_image = probe_of(small_net.double(), images.double()), torch.arange(3)
    explain = method(small_net, resolution=4, iterations=4, path_points=3, noise_std=0.0, average=False, step=Nesterov(5.0))
    found, trace = explain._optimise(probe, image_generators(0, range(3)), lambda done, total: None)
    objective = explain.objective(probe, silent())
    previous = masks = objective.initial_masks((4, 4))
    for done in range(4):
        ahead = (masks + done / (done + 3) * (masks - previous)).clamp(0, 1)
        previous, masks = masks, (ahead - 5 * objective.total_gradient(ahead, every_image)).clamp(0, 1)
        assert (masks < 1).double().mean() > 0.01
    assert torch.allclose(found, objective.final_mask(masks), atol=1e-12)
    assert torch.allclose(torch.tensor(trace.as_dicts()[1]["objective"][-1]).double(), objective(masks, every_image)[1])


def test_a_step_size_that_is_not_above_zero_is_refused(small_net: SmallNet, images: Tensor) -> None:
    with pytest.raises(ValueError, match="step is -1; give a LineSearch, a Nesterov, a StepRule or a number above 0"):
        IGOSPlusPlus(small_net, step=-1)(images)


class Waves(nn.Module):
    """The logit of class 0 is half of sin(5 pi u) + u, with u the mean brightness less 1/2."""

    def forward(self, images: Tensor) -> Tensor:
        u = images.mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([(torch.sin(5 * math.pi * u) + u) / 2, 0 * u], dim=1)


@pytest.mark.parametrize("explainer", [IGOSPlus, IGOSPlusPlus])
def test_diverse_starts_leave_a_local_minimum(explainer: type[IGOSPlus]) -> None:
    """One cell m of a white image over black: F = sin(5 pi u) + u with u = m - 1/2, for D = K as well.

    From m = 1, F falls into the nearest minimum, where 5 pi cos(5 pi u) = -1. The lowest is at the end, m = 0: F = -3/2.
    """
    settings: dict[str, Any] = {"resolution": 1, "lambda1": 0.0, "lambda2": 0.0, "path_points": 1, "noise_std": 0.0}
    settings |= {"baseline": "black", "score": "logit", "step": 0.004, "iterations": 80, "average": False}
    image = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    from_ones = explainer(Waves(), **settings)(image, 0)
    local = 0.5 + (1.5 * math.pi - math.asin(1 / (5 * math.pi))) / (5 * math.pi)
    several = explainer(Waves(), starts=12, **settings)(image, 0)
    if explainer is IGOSPlus:
        assert float(from_ones.heatmap) == pytest.approx(1 - local, abs=1e-3)
    assert float(several.heatmap) == pytest.approx(1.0, abs=1e-6)
    assert several.diagnostics[0]["objective"][-1] == pytest.approx(-1.5, abs=1e-6)
    assert from_ones.diagnostics[0]["objective"][-1] > -0.8
    assert several.diagnostics[0]["backward_passes"] == 12 * from_ones.diagnostics[0]["backward_passes"]


def test_more_starts_never_raise_the_last_objective(small_net: SmallNet, images: Tensor) -> None:
    settings: dict[str, Any] = {"resolution": 4, "iterations": 3, "path_points": 2}
    one, three = (IGOSPlusPlus(small_net, starts=n, **settings)(images) for n in (1, 3))
    last = [[found["objective"][-1] for found in explanation.diagnostics] for explanation in (one, three)]
    assert all(after <= alone for alone, after in zip(*last, strict=True))
    estimate = IGOSPlusPlus(small_net, starts=3, **settings).passes(images[:1])
    assert three.diagnostics[0]["backward_passes"] == estimate.backward
