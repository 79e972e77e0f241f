"""I-GOS+ and I-GOS++: their direction is the gradient of their objective, and their masks keep both promises."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from oracles import Patch, SmallNet
from torch import Tensor

from faithmap import deletion_insertion, image_generators
from faithmap.methods.masks import IGOS, IGOSPlus, IGOSPlusPlus, LineSearch, Nesterov
from faithmap.methods.masks.base import total_variation
from faithmap.methods.masks.igos_plus import BilateralModel
from faithmap.probe import MaskedModel
from faithmap.score import Score

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning")

BOTH = pytest.mark.parametrize("explainer", [IGOSPlus, IGOSPlusPlus])


def bilateral(net: SmallNet, images: Tensor, sigma: float | None = 0.1) -> BilateralModel:
    score = Score("probability", torch.tensor([0, 1, 2]))
    return BilateralModel(net.eval(), score, images, torch.full_like(images, 0.4), sigma=sigma)


@BOTH
def test_the_direction_is_the_gradient_of_the_objective(explainer: type[IGOSPlus], small_net: SmallNet, images: Tensor) -> None:
    """With a single point on the path and no noise the integrated gradient is the gradient; by differences, in double."""
    masked = bilateral(small_net.double(), images.double())
    explain = explainer(small_net, resolution=4, path_points=1, noise_std=0.0)
    everyone = torch.arange(3)
    rows = 4 * explainer.masks
    mask = torch.rand(3, rows, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.8 + 0.1
    found = explain.total_gradient(masked, mask, everyone, None)
    for row, column in ((0, 0), (2, 3), (rows - 1, 1)):
        step = torch.zeros_like(mask)
        step[:, row, column] = 1e-5
        ahead, behind = (explain._objective(masked, mask + s * step, everyone) for s in (1, -1))
        assert torch.allclose(found[:, row, column], (ahead - behind) / 2e-5, rtol=1e-4, atol=1e-9)


def test_i_gos_plus_plus_of_equal_masks_that_are_ones_is_i_gos_plus(small_net: SmallNet, images: Tensor) -> None:
    masked, ones = bilateral(small_net, images), torch.ones(3, 4, 4)
    single = IGOSPlus(small_net, resolution=4)._objective(masked, ones, torch.arange(3))
    double = IGOSPlusPlus(small_net, resolution=4)._objective(masked, torch.ones(3, 8, 4), torch.arange(3))
    assert torch.allclose(single, double, atol=1e-6)
    clean, gone = (MaskedModel(small_net, masked.score, x, x).scores(ones, torch.arange(3)) for x in (images, masked.baseline))
    assert torch.allclose(single, clean - gone, atol=1e-6), "shown by what a mask of ones removes is the baseline"


def test_bilateral_variation_is_cheap_where_the_image_has_an_edge() -> None:
    image = torch.zeros(1, 3, 33, 33)
    image[..., 16:] = 1
    flat = torch.full_like(image, 0.3)
    step = torch.ones(1, 33, 33)
    step[..., 16:] = 0
    plain = total_variation(step)
    for picture, share in ((flat, 1.0), (image, 0.5)):
        masked = BilateralModel(torch.nn.Identity(), Score(), picture, picture, sigma=0.1)
        assert torch.allclose(masked.bilateral_total_variation(step, torch.tensor([0])), share * plain)
    masked = BilateralModel(torch.nn.Identity(), Score(), image, image, sigma=None)
    assert torch.equal(masked.bilateral_total_variation(step, torch.tensor([0])), plain)


def test_a_coarse_step_weighs_the_same_in_both_halves() -> None:
    """Cells 8 pixels apart: a ramp from 0 to 1 over a cell has per-pixel steps of 1/8, counted 8 x 8 times."""
    flat = torch.full((1, 3, 33, 33), 0.3)
    ramp = torch.linspace(0, 1, 5).expand(1, 5, 5)
    masked = BilateralModel(torch.nn.Identity(), Score(), flat, flat, sigma=0.1)
    assert torch.allclose(masked.bilateral_total_variation(ramp, torch.tensor([0])), total_variation(ramp), atol=1e-6)


@BOTH
def test_the_mask_finds_the_patch_and_plays_both_games(explainer: type[IGOSPlus]) -> None:
    model = Patch(slice(8, 16), slice(16, 24))
    image = torch.full((1, 3, 32, 32), 0.9)
    why = explainer(model, resolution=8, baseline="black", iterations=8)(image, 0)
    inside = why.heatmap[0, 2:4, 4:6]
    assert inside.min() > why.heatmap[0][why.heatmap[0] < inside.min()].max() or inside.mean() > 5 * why.heatmap.mean()
    played = deletion_insertion(model, image, why, baseline=0.0)
    assert played.deletion.area < 0.35 < 0.65 < played.insertion.area


@BOTH
def test_the_objective_never_rises_over_an_accepted_step(
    explainer: type[IGOSPlus], small_net: SmallNet, images: Tensor
) -> None:
    for diagnostics in explainer(small_net, resolution=4, iterations=4, path_points=4, step=LineSearch())(images).diagnostics:
        objective = diagnostics["objective"]
        assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(objective))
        assert diagnostics["backward_passes"] == 2 * explainer.masks * 4 * (len(objective) - 1)


@BOTH
def test_batch_and_chunk_do_not_matter(explainer: type[IGOSPlus], small_net: SmallNet, images: Tensor) -> None:
    settings = {"resolution": 4, "iterations": 2, "path_points": 3}
    whole = explainer(small_net.double(), **settings)(images.double()).heatmap
    chunked = explainer(small_net, chunk_size=5, **settings)(images.double()).heatmap
    last = explainer(small_net, **settings)(images[2:].double(), generator=image_generators(0, [2])).heatmap
    assert torch.allclose(whole, chunked, atol=1e-6)
    assert torch.allclose(whole[2:], last, atol=1e-6)


@BOTH
def test_nothing_is_left_behind(explainer: type[IGOSPlus], small_net: SmallNet, images: Tensor, untouched: Callable) -> None:
    small_net.train()
    untouched(small_net)
    explainer(small_net, resolution=4, iterations=1, path_points=2)(images)
    with pytest.raises(ValueError, match="sigma is 0; give a pixel difference above 0"):
        explainer(small_net, sigma=0)(images)


@pytest.mark.parametrize("explainer", [IGOS, IGOSPlus, IGOSPlusPlus])
def test_nesterov_is_its_recurrence(explainer: type[IGOS], small_net: SmallNet, images: Tensor) -> None:
    masked, everyone = bilateral(small_net.double(), images.double()), torch.arange(3)
    explain = explainer(small_net, resolution=4, iterations=4, path_points=3, noise_std=0.0, average=False, step=Nesterov(5.0))
    found, trace = explain._optimise(masked, image_generators(0, range(3)), lambda done, total: None)
    before = mask = torch.ones(3, 4 * explain.masks, 4, dtype=torch.float64)
    for done in range(4):
        ahead = (mask + done / (done + 3) * (mask - before)).clamp(0, 1)
        before, mask = mask, (ahead - 5 * explain.total_gradient(masked, ahead, everyone, None)).clamp(0, 1)
        assert (mask < 1).double().mean() > 0.01
    assert torch.allclose(found, explain._answer(mask), atol=1e-12)
    assert torch.allclose(
        torch.tensor(trace.as_dicts(masked)[1]["objective"][-1]).double(), explain._objective(masked, mask, everyone)[1]
    )


def test_a_step_that_is_none(small_net: SmallNet, images: Tensor) -> None:
    with pytest.raises(ValueError, match="size is 0; give a step size above 0, or None"):
        Nesterov(0)
    with pytest.raises(ValueError, match="step is -1; give a LineSearch, Nesterov, or a step size above 0"):
        IGOSPlusPlus(small_net, step=-1)(images)


def test_i_gos_itself_has_one_mask_and_the_plain_penalty(small_net: SmallNet) -> None:
    explain = IGOS(small_net)
    assert explain.masks == 1
    assert explain._penalty(None, None) == explain.regulariser
