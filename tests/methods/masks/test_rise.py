"""RISE: the estimator and its masks written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import Patch, SmallNet
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from faithmap import RISE, Classifier, EmptyHeatmapWarning, image_generators

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning")


def test_the_map_is_the_estimator_on_the_methods_masks(small_net: SmallNet, images: Tensor) -> None:
    """1 / (N p) sum of f(x M) M, and the standard error of its terms."""
    explain = RISE(small_net, masks=60, cells=(4, 3), probability=0.3, baseline="black")
    explanation = explain(images)
    (generator,) = image_generators(0, [1])
    masks = explain.draw(60, (32, 32), generator)
    target = small_net.eval()(images).argmax(dim=1)[1]
    with torch.no_grad():
        scores = small_net(images[1] * masks.unsqueeze(1)).softmax(dim=1)[:, target]
    terms = scores.view(-1, 1, 1) * masks / 0.3
    assert torch.allclose(explanation.heatmap[1], terms.mean(dim=0), atol=1e-5)
    assert explanation.diagnostics[1]["standard_error"] == pytest.approx(float((terms.std(dim=0) / 60**0.5).mean()), rel=1e-4)


def test_masks_are_those_of_the_paper() -> None:
    """A grid resized to one cell more than the image, shifted by less than a cell."""
    explain = RISE(nn.Identity(), cells=4)
    masks = explain.draw(50, (20, 20), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    for mask in masks:
        numbers = torch.rand(18, generator=generator)
        large = F.interpolate((numbers[2:] < 0.5).float().view(1, 1, 4, 4), (25, 25), mode="bilinear", align_corners=False)
        top, left = (int(n * 5) for n in numbers[:2])
        assert torch.allclose(mask, large[0, 0, top : top + 20, left : left + 20], atol=1e-6)
    assert 0.45 < float(masks.mean()) < 0.55


def test_the_map_shows_the_patch_that_the_model_sees() -> None:
    model = Patch(slice(4, 12), slice(16, 24))
    heatmap = RISE(model, masks=500, baseline="black")(torch.full((1, 3, 32, 32), 0.9), 0).heatmap[0]
    top = int(heatmap.argmax())
    assert 4 <= top // 32 < 12
    assert 16 <= top % 32 < 24


def test_the_default_number_of_masks_is_the_papers(small_net: SmallNet) -> None:
    with torch.device("meta"):
        resnet = resnet18()
    assert RISE(resnet).most == RISE(Classifier(nn.Sequential(resnet))).most == 8000
    assert RISE(resnet, masks=10).settings["masks"] == 10
    assert RISE(small_net).settings["masks"] == 4000


def test_the_tolerance_stops_at_the_same_mask_for_any_chunks() -> None:
    model = Patch(slice(4, 12), slice(16, 24))
    image = torch.full((1, 3, 32, 32), 0.9)
    sure = RISE(model, masks=5000, tolerance=0.08, every=64, baseline="black")(image, 0)
    taken = sure.diagnostics[0]["forward_passes"] - 1
    assert taken < 5000
    assert taken % 64 == 0
    spread = float(sure.heatmap.max() - sure.heatmap.min())
    assert sure.diagnostics[0]["standard_error"] <= 0.08 * spread
    same = RISE(model, masks=5000, tolerance=0.08, every=64, baseline="black", chunk_size=7)(image, 0)
    assert same.diagnostics[0]["forward_passes"] == taken + 1
    assert torch.allclose(same.heatmap, sure.heatmap, atol=1e-6)


def test_the_standard_error_of_two_masks_divides_by_one(small_net: SmallNet, images: Tensor) -> None:
    explain = RISE(small_net, masks=2, cells=(4, 3), baseline="black")
    report = explain(images[:1]).diagnostics[0]
    masks = explain.draw(2, (32, 32), image_generators(0, [0])[0])
    with torch.no_grad():
        probabilities = small_net.eval()(torch.cat([images[:1], images[0] * masks.unsqueeze(1)])).softmax(dim=1)
    terms = probabilities[1:, probabilities[0].argmax()].view(-1, 1, 1) * masks / 0.5
    assert report["standard_error"] == pytest.approx(float((terms.std(dim=0) / 2**0.5).mean()), rel=1e-4)


def test_the_estimator_of_a_logit_takes_the_level_of_the_scores_out(small_net: SmallNet, images: Tensor) -> None:
    """The second equation, with the mean over the masks added to the map; and the standard error of its terms."""
    explain = RISE(small_net, masks=60, cells=(4, 3), probability=0.3, baseline="black", score="logit")
    explanation = explain(images[1:2], 2, generator=image_generators(0, [1]))
    masks = explain.draw(60, (32, 32), image_generators(0, [1])[0])
    with torch.no_grad():
        scores = small_net.eval()(images[1] * masks.unsqueeze(1))[:, 2]
    terms = (scores - scores.mean()).view(-1, 1, 1) * masks / 0.3
    assert torch.allclose(explanation.heatmap[0], scores.mean() + terms.mean(dim=0), atol=1e-4)
    error = float((terms.std(dim=0) / 60**0.5).mean())
    assert explanation.diagnostics[0]["standard_error"] == pytest.approx(error, rel=1e-3)


def test_a_shift_is_less_than_a_cell_also_for_the_largest_random_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 - 2^-24 times the cell's size can round to the size itself in single precision."""
    largest = torch.tensor(1 - 2**-24)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: largest.expand(*size).clone())
    (mask,) = RISE(nn.Identity(), cells=1).draw(1, (2**9, 2**9), torch.Generator())
    assert mask.shape == (2**9, 2**9)


def test_passes_are_counted_and_progress_rises_to_its_total(small_net: SmallNet, images: Tensor) -> None:
    calls: list[tuple[int, int]] = []
    explain = RISE(small_net, masks=10, every=4, chunk_size=3)
    report = explain(images, progress=lambda done, total: calls.append((done, total))).diagnostics
    assert [(r["forward_passes"], r["backward_passes"]) for r in report] == [(11, 0)] * 3
    assert explain.passes(images[:1]) == (11, 0)
    assert calls == sorted(calls)
    assert calls[-1] == (30, 30)


def test_a_map_depends_neither_on_the_chunks_nor_on_the_other_images(
    small_net: SmallNet, images: Tensor, untouched: Callable[[nn.Module], nn.Module]
) -> None:
    """The model is left unchanged."""
    untouched(small_net.train())
    whole = RISE(small_net, masks=20)(images).heatmap
    assert torch.allclose(RISE(small_net, masks=20, chunk_size=3)(images).heatmap, whole, atol=1e-5)
    last = RISE(small_net, masks=20)(images[2:], generator=image_generators(0, [2])).heatmap
    assert torch.allclose(last, whole[2:], atol=1e-5)


def test_the_defaults_are_the_papers(small_net: SmallNet) -> None:
    settings = RISE(small_net).settings
    assert (settings["cells"], settings["probability"], settings["baseline"]) == (7, 0.5, {"name": "zero"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"masks": 0}, "masks is 0; give a whole number of at least 1, or None"),
        ({"probability": 1.0}, "probability is 1.0; give a number above 0 and below 1"),
        ({"every": 1}, "every is 1; give a whole number of at least 2"),
        ({"cells": 0}, "cells are .0, 0.; give 1 to 32 rows"),
        ({"cells": (1, 33)}, "cells are .1, 33.; give 1 to 32 rows"),
        ({"tolerance": 0.0}, "tolerance is 0.0; give a number above 0, or None"),
    ],
)
def test_settings_outside_their_range_are_refused(
    settings: dict[str, Any], message: str, small_net: SmallNet, images: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        RISE(small_net, **settings)(images)


def test_a_grid_of_one_cell_is_accepted(small_net: SmallNet, images: Tensor) -> None:
    """Its masks are 0 or 1 everywhere, so that the map has one value, which is warned about."""
    with pytest.warns(EmptyHeatmapWarning):
        assert RISE(small_net, masks=4, cells=1)(images[:1]).heatmap.shape == (1, 32, 32)
