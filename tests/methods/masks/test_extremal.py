"""Extremal perturbations: smooth maximum and area written out, the pyramid, and masks of a model that sees one patch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from oracles import Linear, Patch, SmallNet
from torch import Tensor, nn

from faithmap import Blur, image_generators
from faithmap.methods.masks import ExtremalPerturbation, Pyramid
from faithmap.methods.masks.extremal import PyramidProbe, SmoothMasks, area_gradient, area_penalty
from faithmap.probe import MaskProbe
from faithmap.score import Score
from faithmap.warning_types import EmptyHeatmapWarning

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"), pytest.mark.usefixtures("one_thread")]

ROWS, COLUMNS = slice(8, 16), slice(16, 24)
BRIGHT = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 0.2 + 0.8
FINE: dict[str, Any] = {"resolution": 16, "step": 14, "iterations": 50, "smoothing": 0.0, "baseline": "black"}


def smooth(shape: tuple[int, int], pitch: tuple[float, float], step: float = 6.0, sigma: float = 5.0) -> SmoothMasks:
    return SmoothMasks(shape, pitch, step, sigma, 0.05, torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize(("shape", "pitch"), [((12, 15), (2.0, 2.0)), ((7, 10), (3.1, 2.2)), ((1, 5), (6.0, 6.0))])
def test_masks_are_the_smooth_maximum_written_out(shape: tuple[int, int], pitch: tuple[float, float]) -> None:
    """Cell by cell, over the grid that goes on beyond the border as it ends there."""
    make = smooth(shape, pitch)
    numbers = torch.rand(2, *make.grid, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    masks = make(numbers)
    spans = [every * cell for every, cell in zip(make.steps, pitch, strict=True)]
    reach = [min(n - 1, math.floor(25 / span + 0.5)) for n, span in zip(make.grid, spans, strict=True)]
    for row in range(shape[0]):
        for column in range(shape[1]):
            values = []
            block = row // make.steps[0], column // make.steps[1]
            for i in range(block[0] - reach[0], block[0] + reach[0] + 1):
                for j in range(block[1] - reach[1], block[1] + reach[1] + 1):
                    y = (i + 0.5) * spans[0] - (row + 0.5) * pitch[0]
                    x = (j + 0.5) * spans[1] - (column + 0.5) * pitch[1]
                    far = math.hypot(y, x) / 5.0
                    bump = math.exp(-(max(0.0, far - 1) ** 2) / 4) if far <= 5 else 0.0
                    inside = min(max(i, 0), make.grid[0] - 1), min(max(j, 0), make.grid[1] - 1)
                    values.append(bump * numbers[:, inside[0], inside[1]])
            f = torch.stack([value for value in values if float(value.abs().sum()) > 0])
            expected = (f * (f / 0.05).exp()).sum(dim=0) / (f / 0.05).exp().sum(dim=0)
            # Numbers out of reach of this cell, but not of its block, count as zeros in the denominator.
            assert torch.allclose(masks[:, row, column], expected, atol=2e-3)


def test_a_full_grid_is_nearly_one_and_a_single_number_is_a_round_bump() -> None:
    make = SmoothMasks((33, 33), (1.0, 1.0), 4.0, 4 / math.sqrt(2), 0.05, torch.zeros(1))
    assert float(make(torch.ones(1, *make.grid)).min()) > 0.97
    single = torch.zeros(1, *make.grid)
    single[0, 4, 4] = 1
    bump = make(single)[0]
    middle = 4 * 4 + 1.5  # of the block, in cells
    at = torch.arange(33.0) - middle
    distance = (at[:, None].square() + at.square()).sqrt()
    assert float(bump[distance < 2.5].min()) > 0.999
    assert float(bump[distance > 5 * 4 / math.sqrt(2)].max()) == 0
    assert torch.allclose(bump, bump.T)


def test_the_pull_is_the_gradient_for_any_number_of_masks_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    make = smooth((9, 8), (2.0, 2.0))
    numbers = torch.rand(3, *make.grid, dtype=torch.float64)
    slope = torch.randn(3, 9, 8, dtype=torch.float64)
    found = make.pull(numbers, slope)
    step = torch.zeros_like(numbers)
    step[:, 1, 1] = 1e-6
    change = ((make(numbers + step) - make(numbers - step)) * slope).sum(dim=(1, 2)) / 2e-6
    assert torch.allclose(found[:, 1, 1], change, atol=1e-6)
    monkeypatch.setattr("faithmap.methods.masks.extremal._AT_ONCE", 1)
    assert torch.allclose(make.pull(numbers, slope), found)
    assert torch.allclose(make(numbers), make(numbers))


def test_the_area_penalty_is_its_equation() -> None:
    """vecsort against zeros, then ones; no penalty for a mask of the area, wherever it lies."""
    masks = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    areas = torch.tensor([0.1, 0.5, 0.9, 0.001], dtype=torch.float64)
    for mask, area, found in zip(masks, areas, area_penalty(masks, areas), strict=True):
        ones = max(1, round(float(area) * 30))
        template = torch.cat([torch.zeros(30 - ones), torch.ones(ones)]).double()
        assert torch.allclose(found, (mask.flatten().sort().values - template).square().mean())
    just = torch.zeros(1, 5, 6)
    just[0, 1, 2:5] = 1
    assert float(area_penalty(just, torch.tensor([0.1]))) == 0
    assert torch.equal(area_gradient(just, torch.tensor([0.1])), torch.zeros(1, 5, 6))


def test_the_area_gradient_is_that_of_the_penalty_and_equal_cells_share() -> None:
    masks = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    areas = torch.tensor([0.2, 0.7], dtype=torch.float64)
    found = area_gradient(masks, areas)
    masks.requires_grad_()
    area = area_penalty(masks, areas).sum()
    assert torch.allclose(found, torch.autograd.grad(area, masks)[0])
    flat = torch.full((1, 4, 5), 0.5) + 1e-8 * torch.randn(1, 4, 5)
    assert torch.allclose(area_gradient(flat, torch.tensor([0.25])), torch.full((1, 4, 5), 2 * 0.25 / 20), atol=1e-7)


def test_the_pyramid_blurs_the_more_the_less_is_kept(images: Tensor) -> None:
    pyramid = Pyramid(sigma=20, levels=4)
    probe = PyramidProbe(torch.nn.Identity(), Score(), images, pyramid(images), pyramid=pyramid)
    index = torch.arange(3)
    for share, sigma in ((1.0, 0.0), (0.75, 5.0), (0.5, 10.0), (0.0, 20.0)):
        expected = images if sigma == 0 else Blur(None, sigma)(images)
        assert torch.allclose(probe._composed(torch.full((3, 1, 32, 32), share), index), expected, atol=1e-6)
    between = probe._composed(torch.full((3, 1, 32, 32), 0.625), index)
    assert torch.allclose(between, (Blur(None, 5.0)(images) + Blur(None, 10.0)(images)) / 2, atol=1e-6)


@pytest.mark.parametrize("pyramid", [Pyramid(sigma=20, levels=3), None])
def test_gradients_through_the_perturbation(pyramid: Pyramid | None, small_net: SmallNet, images: Tensor) -> None:
    """By differences, in double precision, at masks off the levels."""
    net, pictures = small_net.double().eval(), images.double()
    score, black = Score("logit", torch.tensor([0, 1, 2])), torch.zeros_like(pictures)
    probe = MaskProbe(net, score, pictures, black)
    if pyramid is not None:
        probe = PyramidProbe(net, score, pictures, black, pyramid)
    masks = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.05 + 0.45
    found = probe.gradients(masks, torch.arange(3), torch.ones(3, dtype=torch.float64))
    step = torch.zeros_like(masks)
    step[:, 1, 2] = 1e-6
    ahead, behind = (probe.scores(masks + s * step, torch.arange(3)) for s in (1, -1))
    assert torch.allclose(found[:, 1, 2], (ahead - behind) / 2e-6, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
def test_the_mask_of_the_patchs_area_lies_on_it(variant: Literal["preserve", "delete", "dual"]) -> None:
    """Or on the cells next to it, for a mask's edges are soft."""
    explain = ExtremalPerturbation(Patch(ROWS, COLUMNS), areas=(1 / 16,), variant=variant, **FINE)
    explanation = explain(BRIGHT, 0)
    report = explanation.diagnostics[0]
    for heatmap in explanation.heatmap:
        assert float(heatmap[3:9, 7:13].sum() / heatmap.sum()) > 0.9
        assert float(heatmap[4:8, 8:12].mean()) > 0.8
    assert report["area_met"][0] == pytest.approx(1 / 16, abs=0.03)
    assert report["extremal_area"] == 1 / 16
    assert report["score_shown"][0] > 0.9
    assert report["score_hidden"][0] < 0.1


@pytest.mark.parametrize("across", [True, False])
def test_an_image_of_one_row_or_column_has_a_map_that_is_high_on_the_patch(across: bool) -> None:
    long, short = slice(4, 8), slice(0, 1)
    model = Patch(*((short, long) if across else (long, short)))
    image = torch.full((1, 3, 1, 16) if across else (1, 3, 16, 1), 0.9)
    method = ExtremalPerturbation(model, areas=(0.25,), iterations=20, resolution=(1, 16) if across else (16, 1), smoothing=0)
    heatmap = method(image, 0, baseline="black").heatmap.flatten()
    assert float(heatmap[4:8].min()) > float(heatmap[[0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15]].max())


def test_an_image_of_one_pixel_has_a_map_of_one_cell() -> None:
    image, model = torch.full((1, 3, 1, 1), 0.9), Patch(slice(0, 1), slice(0, 1))
    with pytest.warns(EmptyHeatmapWarning):
        heatmap = ExtremalPerturbation(model, iterations=2)(image, 0, baseline="black").heatmap
    assert heatmap.shape == (1, 1, 1)


def test_areas_are_met() -> None:
    """To two cells in a hundred, on a linear model."""
    weight = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(4))
    weight = torch.nn.functional.interpolate(weight[None], (32, 32), mode="bilinear")[0] / 100
    areas = (0.1, 0.3, 0.6)
    explain = ExtremalPerturbation(Linear(weight), areas=areas, **{**FINE, "iterations": 100})
    report = explain(BRIGHT[:1], 0).diagnostics[0]
    assert report["areas"] == list(areas)
    assert report["area_met"] == pytest.approx(areas, abs=0.03)
    assert max(report["area_penalty"]) < 0.02


def test_the_extremal_area_is_the_smallest_that_is_enough() -> None:
    """A quarter of the patch cannot keep nine tenths of the probability, the whole patch can."""
    settings: dict[str, Any] = {**FINE, "areas": (0.01, 0.09, 0.2), "share": 0.9}
    variants: tuple[Literal["preserve", "delete"], ...] = ("preserve", "delete")
    for variant in variants:
        explanation = ExtremalPerturbation(Patch(ROWS, COLUMNS), variant=variant, summary="extremal", **settings)(BRIGHT, 0)
        alone = ExtremalPerturbation(Patch(ROWS, COLUMNS), variant=variant, **{**settings, "areas": (0.09,)})(BRIGHT, 0)
        assert [report["extremal_area"] for report in explanation.diagnostics] == [0.09, 0.09]
        assert torch.allclose(explanation.heatmap, alone.heatmap, atol=1e-5)
    never = ExtremalPerturbation(Patch(ROWS, COLUMNS), summary="extremal", **{**settings, "areas": (0.01,)})(BRIGHT, 0)
    assert never.diagnostics[0]["extremal_area"] is None


@pytest.mark.parametrize("variant", ["preserve", "delete"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_enough_is_a_share_of_the_clean_probability(
    variant: Literal["preserve", "delete"], share: float, small_net: SmallNet, images: Tensor
) -> None:
    """Kept by the mask's part alone, or at most the rest of it without that part."""
    areas = (0.05, 0.3, 0.6, 0.9)
    explain = ExtremalPerturbation(small_net, areas=areas, variant=variant, share=share, iterations=3, resolution=8)
    explanation = explain(images)
    assert explanation.target is not None
    clean = small_net.eval()(images).softmax(dim=1).gather(1, explanation.target.unsqueeze(1))
    for report, probability in zip(explanation.diagnostics, clean[:, 0].tolist(), strict=True):
        kept, removed = report["score_shown"], report["score_hidden"]
        enough = [
            k >= share * probability if variant == "preserve" else r <= (1 - share) * probability
            for k, r in zip(kept, removed, strict=True)
        ]
        assert report["extremal_area"] == next((area for area, met in zip(areas, enough, strict=True) if met), None)


def test_the_map_is_the_blurred_mean_of_the_masks(small_net: SmallNet, images: Tensor) -> None:
    common: dict[str, Any] = {"iterations": 4, "resolution": 16}
    masks = [ExtremalPerturbation(small_net, areas=(a,), smoothing=0.0, **common)(images).heatmap for a in (0.1, 0.3)]
    plain = ExtremalPerturbation(small_net, areas=(0.1, 0.3), smoothing=0.0, **common)(images).heatmap
    assert torch.allclose(plain, torch.stack(masks).mean(dim=0), atol=1e-5)
    soft = ExtremalPerturbation(small_net, areas=(0.1, 0.3), **common)(images).heatmap
    assert torch.allclose(soft, Blur(None, 0.09 * 224)(plain.unsqueeze(1)).squeeze(1), atol=1e-5)


def test_the_weight_is_doubled_after_each_third(small_net: SmallNet, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of the descent written out."""
    net, picture = small_net.double().eval(), images[:1].double()
    explain = ExtremalPerturbation(net, areas=(0.2,), iterations=6, resolution=16, smoothing=0.0, baseline=0.2)
    found = explain(picture, 1).heatmap
    make = SmoothMasks((16, 16), (31 / 15, 31 / 15), 8 / 7, 8 / 7 / math.sqrt(2), 0.05, picture)
    numbers = torch.full((1, *make.grid), 0.5, dtype=torch.float64)
    speed = torch.zeros_like(numbers)
    probe = MaskProbe(net, Score("logit", torch.tensor([1])), picture, torch.full_like(picture, 0.2))
    for weight in (300, 300, 600, 600, 1200, 1200):
        masks = make(numbers)
        slope = weight * area_gradient(masks, torch.tensor([0.2]))
        slope = slope - probe.gradients(masks, torch.tensor([0]), torch.ones(1, dtype=torch.float64))
        speed = 0.9 * speed + make.pull(numbers, slope)
        numbers = (numbers - 0.01 * speed).clamp(0, 1)
    assert torch.allclose(found, make(numbers), atol=1e-9)


@pytest.mark.parametrize(("chunk_size", "baseline"), [(1, "blur"), (2, Pyramid(levels=3)), (9, Pyramid())])
def test_a_map_does_not_depend_on_the_other_images(
    small_net: SmallNet, images: Tensor, chunk_size: int, baseline: object
) -> None:
    settings: dict[str, Any] = {"areas": (0.1, 0.3), "resolution": 16, "iterations": 6, "variant": "dual", "baseline": baseline}
    together = ExtremalPerturbation(small_net.double(), **settings)(images.double())
    other = ExtremalPerturbation(small_net, **settings, chunk_size=chunk_size)
    assert torch.allclose(other(images.double()).heatmap, together.heatmap, atol=1e-9)
    alone = other(images[2:].double(), generator=image_generators(0, [2]))
    assert torch.allclose(alone.heatmap, together.heatmap[2:], atol=1e-9)
    assert alone.diagnostics[0]["area_met"] == pytest.approx(together.diagnostics[2]["area_met"], abs=1e-9)


def test_in_single_precision_maps_agree_to_a_thousandth(small_net: SmallNet, images: Tensor) -> None:
    settings: dict[str, Any] = {"areas": (0.1, 0.3), "resolution": 16, "iterations": 20}
    single = ExtremalPerturbation(small_net, **settings)(images).heatmap
    assert torch.allclose(ExtremalPerturbation(small_net, **settings, chunk_size=1)(images).heatmap, single, atol=1e-3)


def test_passes_are_counted_and_progress_rises_to_its_total(small_net: SmallNet, images: Tensor) -> None:
    calls: list[tuple[int, int]] = []
    explain = ExtremalPerturbation(small_net, areas=(0.1, 0.3), iterations=5, resolution=8, variant="dual", chunk_size=2)
    report = explain(images, progress=lambda done, total: calls.append((done, total))).diagnostics[1]
    assert report["backward_passes"] == 2 * 2 * 5
    assert report["forward_passes"] == 2 * 2 * 5 + 2 * 2 + 2
    assert calls[-1] == (15, 15)
    assert calls == sorted(calls)


def test_a_callable_target_decides_itself_whether_a_mask_is_enough(images: Tensor) -> None:
    model = Patch(ROWS, COLUMNS)
    explanation = ExtremalPerturbation(model, areas=(1 / 16,), **FINE)(BRIGHT, lambda output: output[:, 0])
    assert explanation.score is not None
    assert explanation.diagnostics[0]["score_shown"][0] > 0.6 * float(explanation.score[0])
    assert explanation.diagnostics[0]["extremal_area"] == 1 / 16


def test_the_model_is_left_unchanged(small_net: SmallNet, images: Tensor, untouched: Callable[[nn.Module], nn.Module]) -> None:
    untouched(small_net.train())
    images.requires_grad_()
    explain = ExtremalPerturbation(small_net, iterations=2, resolution=8)
    assert not explain(images).heatmap.requires_grad
    assert images.grad is None
    with pytest.raises(ZeroDivisionError):
        explain(images, lambda output: output / (1 // 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"areas": ()}, "areas are empty"),
        ({"areas": (0.1, 1.0)}, "areas is .0.1, 1.0.; give a list of numbers"),
        ({"variant": "keep"}, "variant is 'keep'; give one of preserve, delete, dual"),
        ({"summary": "sum"}, "summary is 'sum'; give one of mean, extremal"),
        ({"resolution": 33}, "resolution is 33; give 1 to 32 rows"),
        ({"iterations": 0}, "iterations is 0"),
        ({"temperature": 0.0}, "temperature is 0.0; give a number above 0"),
        ({"sigma": -1.0}, "sigma is -1.0"),
        ({"momentum": 1.0}, "momentum is 1.0; give a number of at least 0 and below 1"),
    ],
)
def test_settings_outside_their_range_are_refused(
    small_net: SmallNet, images: Tensor, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ExtremalPerturbation(small_net, **settings)(images)


def test_a_pyramid_given_in_the_call_is_used_as_one_of_the_method(small_net: SmallNet, images: Tensor) -> None:
    settings: dict[str, Any] = {"areas": (0.2,), "resolution": 16, "iterations": 3}
    given = ExtremalPerturbation(small_net, **settings)(images, baseline=Pyramid(levels=2)).heatmap
    assert torch.equal(given, ExtremalPerturbation(small_net, **settings, baseline=Pyramid(levels=2))(images).heatmap)
    assert not torch.allclose(given, ExtremalPerturbation(small_net, **settings, baseline=Pyramid())(images).heatmap)


def test_a_pyramid_without_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="give a sigma above 0, and a level"):
        Pyramid(levels=0)
