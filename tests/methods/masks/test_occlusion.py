"""Occlusion: linear models have closed forms, and captum agrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import Linear, SmallNet
from torch import Tensor, nn

from faithmap import EmptyHeatmapWarning, Occlusion, image_generators

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning")

WEIGHT = torch.randn(3, 12, 10, generator=torch.Generator().manual_seed(4))
PICTURES = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(5))


def test_the_map_of_a_linear_model_has_the_contribution_of_each_pixel() -> None:
    """Patches of one pixel: w (x - b)."""
    explain = Occlusion(Linear(WEIGHT), patch=1, stride=1, baseline=0.25, score="logit")
    explanation = explain(PICTURES, 0)
    assert torch.allclose(explanation.heatmap, (WEIGHT * (PICTURES - 0.25)).sum(dim=1), atol=1e-4)
    assert explanation.diagnostics[0]["forward_passes"] == explain.cost((12, 10)) == 121


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


def test_the_map_is_that_of_captum(small_net: SmallNet, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    target = small_net.eval()(images).argmax(dim=1)
    theirs = attr.Occlusion(small_net).attribute(images, (3, 8, 6), (3, 4, 3), baselines=0.5, target=target)
    ours = Occlusion(small_net, patch=(8, 6), stride=(4, 3), baseline=0.5, score="logit")(images)
    assert torch.allclose(ours.heatmap, theirs[:, 0].to(ours.heatmap), atol=1e-4)


def test_the_default_patch_is_a_seventh_and_the_stride_a_quarter_of_it() -> None:
    """At 224x224, 32 and 8 pixels; at least one pixel each."""
    explain = Occlusion(nn.Identity())
    assert explain.cost((224, 224)) == Occlusion(nn.Identity(), patch=32, stride=8).cost((224, 224)) == 626
    assert explain.cost((3, 4)) == 1 + 3 * 4
    assert Occlusion(nn.Identity(), patch=(8, 4)).cost((16, 16)) == 1 + 5 * 13


def test_passes_are_known_and_progress_rises_to_its_total(small_net: SmallNet, images: Tensor) -> None:
    calls: list[tuple[int, int]] = []
    explain = Occlusion(small_net, patch=16, stride=16)
    report = explain(images, progress=lambda done, total: calls.append((done, total))).diagnostics
    assert [(r["forward_passes"], r["backward_passes"]) for r in report] == [(5, 0)] * 3
    assert explain.passes(images[:1]) == (5, 0)
    assert calls[-1][1] == 12


def test_a_map_depends_neither_on_the_chunks_nor_on_the_other_images(
    small_net: SmallNet, images: Tensor, untouched: Callable[[nn.Module], nn.Module]
) -> None:
    """The model is left unchanged."""
    untouched(small_net.train())
    settings: dict[str, Any] = {"patch": 8, "stride": 8}
    whole = Occlusion(small_net, **settings)(images).heatmap
    assert torch.allclose(Occlusion(small_net, chunk_size=3, **settings)(images).heatmap, whole, atol=1e-5)
    last = Occlusion(small_net, **settings)(images[2:], generator=image_generators(0, [2])).heatmap
    assert torch.allclose(last, whole[2:], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 33}, "patch is .33, 33.; give 1 to 32"),
        ({"patch": (32, 33)}, "patch is .32, 33.; give 1 to 32"),
        ({"patch": 0}, "patch is .0, 0.; give 1 to 32"),
        ({"patch": 8, "stride": 9}, "stride is .9, 9.; give at least 1 pixel"),
        ({"patch": 8, "stride": (8, 9)}, "stride is .8, 9.; give at least 1 pixel"),
        ({"patch": 8, "stride": 0}, "stride is .0, 0.; give at least 1 pixel"),
    ],
)
def test_settings_outside_their_range_are_refused(
    settings: dict[str, Any], message: str, small_net: SmallNet, images: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        Occlusion(small_net, **settings)(images)


def test_a_patch_of_the_size_of_the_image_is_accepted(small_net: SmallNet, images: Tensor) -> None:
    """One patch; the map is the same everywhere, which is warned about."""
    with pytest.warns(EmptyHeatmapWarning):
        heatmap = Occlusion(small_net, patch=32, stride=32, baseline="black")(images[:1]).heatmap
    assert float(heatmap.std()) == pytest.approx(0, abs=1e-6)
