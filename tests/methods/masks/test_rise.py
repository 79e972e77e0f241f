"""Occlusion, RISE and the controls: linear models have closed forms, the estimators are written out, captum agrees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles import Linear, Patch, SmallNet
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from faithmap import Classifier, image_generators
from faithmap.methods.controls import CentredGaussian, Edges, RandomMap
from faithmap.methods.masks import RISE, Occlusion

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning")

WEIGHT = torch.randn(3, 12, 10, generator=torch.Generator().manual_seed(4))
PICTURES = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(5))


def test_occlusion_of_a_linear_model_is_what_its_pixels_add() -> None:
    """Patches of one pixel: w (x - b)."""
    explain = Occlusion(Linear(WEIGHT), patch=1, stride=1, baseline=0.25, score="logit")
    why = explain(PICTURES, 0)
    assert torch.allclose(why.heatmap, (WEIGHT * (PICTURES - 0.25)).sum(dim=1), atol=1e-4)
    assert why.diagnostics[0]["forward_passes"] == explain.cost((12, 10)) == 121


def test_overlapping_patches_are_averaged_and_cut_off_at_the_border() -> None:
    """Written out, patch by patch."""
    evidence = (WEIGHT * PICTURES).sum(dim=1)
    total, count = torch.zeros_like(evidence), torch.zeros(12, 10)
    for top in (0, 3, 6, 9):
        for left in (0, 2, 4, 6):
            rows, columns = slice(top, top + 5), slice(left, left + 4)
            total[:, rows, columns] += evidence[:, rows, columns].sum(dim=(1, 2)).view(-1, 1, 1)
            count[rows, columns] += 1
    explain = Occlusion(Linear(WEIGHT), patch=(5, 4), stride=(3, 2), baseline="black", score="logit", chunk_size=7)
    assert torch.allclose(explain(PICTURES, 0).heatmap, total / count, atol=1e-4)
    assert explain.cost((12, 10)) == 17


def test_parity_of_occlusion_with_captum(small_net: SmallNet, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    target = small_net.eval()(images).argmax(dim=1)
    theirs = attr.Occlusion(small_net).attribute(images, (3, 8, 6), (3, 4, 3), baselines=0.5, target=target)
    ours = Occlusion(small_net, patch=(8, 6), stride=(4, 3), baseline=0.5, score="logit")(images)
    assert torch.allclose(ours.heatmap, theirs[:, 0].to(ours.heatmap), atol=1e-4)


def test_rise_is_the_estimator_on_its_own_masks(small_net: SmallNet, images: Tensor) -> None:
    """1 / (N p) sum of f(x M) M, and the standard error of its terms."""
    explain = RISE(small_net, masks=60, cells=(4, 3), probability=0.3, baseline="black")
    why = explain(images)
    (generator,) = image_generators(0, [1])
    masks = explain.draw(60, (32, 32), generator)
    target = small_net.eval()(images).argmax(dim=1)[1]
    with torch.no_grad():
        scores = small_net(images[1] * masks.unsqueeze(1)).softmax(dim=1)[:, target]
    terms = scores.view(-1, 1, 1) * masks / 0.3
    assert torch.allclose(why.heatmap[1], terms.mean(dim=0), atol=1e-5)
    assert why.diagnostics[1]["standard_error"] == pytest.approx(float((terms.std(dim=0) / 60**0.5).mean()), rel=1e-4)


def test_masks_are_those_of_the_paper() -> None:
    """A grid brought to one cell more than the image, shifted by less than a cell."""
    explain = RISE(nn.Identity(), cells=4)
    masks = explain.draw(50, (20, 20), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    for mask in masks:
        numbers = torch.rand(18, generator=generator)
        large = F.interpolate((numbers[2:] < 0.5).float().view(1, 1, 4, 4), (25, 25), mode="bilinear", align_corners=False)
        top, left = (int(n * 5) for n in numbers[:2])
        assert torch.allclose(mask, large[0, 0, top : top + 20, left : left + 20], atol=1e-6)
    assert 0.45 < float(masks.mean()) < 0.55


def test_rise_finds_the_patch() -> None:
    model = Patch(slice(4, 12), slice(16, 24))
    heatmap = RISE(model, masks=500, baseline="black")(torch.full((1, 3, 32, 32), 0.9), 0).heatmap[0]
    top = int(heatmap.argmax())
    assert 4 <= top // 32 < 12
    assert 16 <= top % 32 < 24


def test_the_papers_number_of_masks(small_net: SmallNet) -> None:
    with torch.device("meta"):
        resnet = resnet18()
    assert RISE(resnet).most == RISE(Classifier(nn.Sequential(resnet))).most == 8000
    assert RISE(resnet, masks=10).settings["masks"] == 10
    assert RISE(small_net).settings["masks"] == 4000


def test_rise_stops_when_it_is_sure_whatever_the_chunks() -> None:
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


def test_controls_are_what_they_say(small_net: SmallNet, images: Tensor) -> None:
    first, again = (RandomMap(small_net, resolution=(4, 5))(images).heatmap for _ in range(2))
    assert torch.equal(first, again)
    (generator,) = image_generators(0, [2])
    assert torch.equal(first[2], torch.rand(4, 5, generator=generator))
    bump = CentredGaussian(small_net, sigma=0.25, resolution=3)(images).heatmap[0]
    side = torch.exp(torch.tensor(-0.5 * (15.5 / 8) ** 2))
    assert torch.allclose(
        bump, torch.stack([side, torch.tensor(1.0), side]).outer(torch.stack([side, torch.tensor(1.0), side]))
    )
    ramp = torch.arange(8.0).expand(1, 3, 8, 8) / 10
    edges = Edges(Patch(slice(0, 8), slice(0, 8)))(ramp, 0).heatmap[0]
    assert torch.allclose(edges[:, 1:-1], torch.full((8, 6), 0.1), atol=1e-6)
    assert torch.allclose(edges[:, 0], torch.full((8,), 0.05), atol=1e-6), "a repeated border halves the slope"


METHODS: dict[str, Callable] = {
    "occlusion": lambda m, **k: Occlusion(m, patch=8, stride=8, **k),
    "rise": lambda m, **k: RISE(m, masks=20, **k),
    "random": RandomMap,
    "gaussian": CentredGaussian,
    "edges": Edges,
}


@pytest.mark.parametrize("name", METHODS)
def test_batch_and_chunk_do_not_matter_and_nothing_is_left(
    name: str, small_net: SmallNet, images: Tensor, untouched: Callable
) -> None:
    small_net.train()
    untouched(small_net)
    whole = METHODS[name](small_net)(images).heatmap
    assert torch.allclose(METHODS[name](small_net, chunk_size=3)(images).heatmap, whole, atol=1e-5)
    last = METHODS[name](small_net)(images[2:], generator=image_generators(0, [2])).heatmap
    assert torch.allclose(last, whole[2:], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Occlusion(m, patch=33), "patch is .33, 33.; give 1 to 32"),
        (lambda m: Occlusion(m, patch=8, stride=9), "stride is .9, 9.; give at least 1 pixel"),
        (lambda m: RISE(m, masks=0), "at least 1 mask"),
        (lambda m: RISE(m, probability=1.0), "a probability between 0 and 1"),
        (lambda m: RISE(m, cells=0), "cells are .0, 0.; give 1 to 32 rows"),
        (lambda m: RISE(m, tolerance=0.0), "tolerance is 0.0"),
        (lambda m: CentredGaussian(m, sigma=0.0), "sigma is 0.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable, message: str, small_net: SmallNet, images: Tensor) -> None:
    with pytest.raises(ValueError, match=message):
        make(small_net)(images)
