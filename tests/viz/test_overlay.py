from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from torch import Tensor

from faithmap.data import read_image, sample_photo
from faithmap.explanation import Explanation
from faithmap.model import Geometry
from faithmap.viz import colourise, flaw, limits, overlay, placed, scaled
from faithmap.viz.figure import COLORMAP

PHOTO = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 1, 3)


def colour(value: float, name: str = "plasma") -> torch.Tensor:
    return torch.tensor(colormaps[name](value)[:3], dtype=torch.float32)


def test_pixels_are_the_blend_of_the_formula() -> None:
    heat = torch.tensor([[[0.0, 5.0, 10.0]]])
    result = overlay(PHOTO, heat, opacity=0.8, saturation=1)[0, :, 0].T
    own = PHOTO[0, :, 0, 0]
    expected = torch.stack([own, 0.6 * own + 0.4 * colour(0.5), 0.2 * own + 0.8 * colour(1.0)])
    torch.testing.assert_close(result, expected)


def test_unimportant_pixels_of_the_image_do_not_change() -> None:
    photo = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    heat = torch.zeros(1, 5, 7)
    heat[0, 2, 3] = 1
    result = overlay(photo, heat, opacity=1, saturation=1)
    changed = (result != photo).any(dim=1)
    assert changed.nonzero().tolist() == [[0, 2, 3]]
    torch.testing.assert_close(result[0, :, 2, 3], colour(1.0))


def test_channels_are_red_green_blue() -> None:
    heat = torch.tensor([[[0.0, 1.0]]])
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    result = overlay(red, heat, opacity=1, saturation=1, colormap="winter_r")
    assert result[0, :, 0, 0].tolist() == [1, 0, 0]
    assert result[0, :, 0, 1].tolist() == [0, 0, 1]


def test_image_fades_to_its_luma() -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    grey = overlay(red, torch.tensor([[[0.0, 1.0]]]), saturation=0)[0, :, 0, 0]
    half = overlay(red, torch.tensor([[[0.0, 1.0]]]), saturation=0.5)[0, :, 0, 0]
    torch.testing.assert_close(grey, torch.full((3,), 0.299))
    torch.testing.assert_close(half, torch.tensor([0.6495, 0.1495, 0.1495]))


def test_pixels_outside_the_window_are_grey_and_pale() -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 3)
    result = overlay(red, torch.tensor([[[torch.nan, 0.0, 1.0]]]), saturation=1)
    torch.testing.assert_close(result[0, :, 0, 0], torch.full((3,), 0.299 + 0.701 * 2 / 3))
    assert result[0, :, 0, 1].tolist() == [1, 0, 0]


def test_result_has_the_dtype_of_the_image() -> None:
    photo = torch.rand(1, 3, 6, 4, dtype=torch.float64)
    result = overlay(photo, torch.rand(1, 6, 4))
    assert result.dtype == torch.float64
    assert result.min() >= 0
    assert result.max() <= 1


def test_heat_does_not_depend_on_the_brightness_of_the_image() -> None:
    heat = torch.rand(1, 6, 4, generator=torch.Generator().manual_seed(3))
    dark, bright = (overlay(torch.full((1, 3, 6, 4), x), heat, saturation=1) for x in (0.0, 1.0))
    scaled_heat = 0.8 * (heat - heat.min()) / (heat.max() - heat.min())
    torch.testing.assert_close(bright - dark, (1 - scaled_heat).unsqueeze(1).expand(-1, 3, -1, -1))


@pytest.mark.parametrize("heat", [torch.zeros(1, 1, 3), torch.full((1, 1, 3), torch.nan), torch.full((1, 1, 3), torch.inf)])
def test_constant_or_invalid_map_is_not_drawn(heat: Tensor) -> None:
    with pytest.raises(ValueError, match="ranks nothing"):
        overlay(PHOTO, heat)


@pytest.mark.parametrize(
    ("photo", "heat", "settings", "message"),
    [
        (PHOTO, torch.rand(1, 3, 1), {}, "heatmap .1, 3, 1."),
        (PHOTO[:, :1], torch.rand(1, 1, 3), {}, "photo has shape"),
        (PHOTO.expand(2, -1, -1, -1), torch.rand(2, 1, 3), {}, "photo has shape"),
        (PHOTO, torch.rand(1, 1, 3), {"opacity": 1.5}, "opacity is 1.5"),
        (PHOTO, torch.rand(1, 1, 3), {"saturation": -1}, "saturation is -1"),
    ],
)
def test_inputs_that_do_not_fit(photo: Tensor, heat: Tensor, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlay(photo, heat, **settings)


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (75, 75), (33, 100)])
@pytest.mark.parametrize("cell", [(0, 0), (3, 20), (14, 14), (27, 5), (27, 27)])
def test_hot_cell_is_drawn_at_its_position_in_the_original_image(size: tuple[int, int], cell: tuple[int, int]) -> None:
    geometry = Geometry(32, (28, 28))
    heat = torch.zeros(1, 28, 28)
    heat[0, cell[0], cell[1]] = 1
    photo = torch.zeros(1, 3, *size)
    result = overlay(photo, placed(Explanation(heat, (28, 28)), photo, geometry), opacity=1)
    visible = ~placed(Explanation(heat, (28, 28)), photo, geometry)[0].isnan()
    hot = (result[0].sum(dim=0) * visible).flatten().argmax()
    row, column = divmod(int(hot), size[1])
    window, scale = geometry.window(size), min(size) / 32
    assert abs(row + 0.5 - window.top - (cell[0] + 0.5) * scale) <= 0.5 * scale + 0.5
    assert abs(column + 0.5 - window.left - (cell[1] + 0.5) * scale) <= 0.5 * scale + 0.5


def test_only_the_crop_of_a_photograph_keeps_its_colours() -> None:
    photo = read_image(sample_photo("chelsea"))
    geometry = Geometry(256, (224, 224))
    heat = torch.zeros(1, 7, 7)
    heat[0, 3, 3] = 1
    result = overlay(photo, placed(Explanation(heat, (224, 224)), photo, geometry), saturation=1)
    top, left, height, width = (round(x) for x in geometry.window(photo.shape[-2:]))
    inner = result[..., top + 1 : top + height // 4, left + 1 : left + width // 4]
    torch.testing.assert_close(inner, photo[..., top + 1 : top + height // 4, left + 1 : left + width // 4])
    for outside in (result[..., : top - 1, :], result[..., : left - 1], result[..., left + width + 1 :]):
        assert bool((outside.amax(dim=1) - outside.amin(dim=1) < 1e-6).all())
        assert outside.min() >= 2 / 3 - 1e-6


def test_photo_that_does_not_fit_the_geometry_is_refused() -> None:
    explanation = Explanation(torch.rand(1, 7, 7), (28, 28))
    with pytest.raises(ValueError, match="becomes an input of 60 x 90, but images of 28 x 28 were explained"):
        placed(explanation, torch.zeros(1, 3, 60, 90))


def test_scale_runs_from_the_lowest_to_the_highest_value() -> None:
    torch.testing.assert_close(scaled(torch.tensor([[2.0, 3.0, 6.0]])), torch.tensor([[0.0, 0.25, 1.0]]))


def test_negative_values_are_unimportant() -> None:
    assert limits(torch.tensor([-3.0, -1.0, 0.0, 2.0])) == (0, 2)
    assert scaled(torch.tensor([-3.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 0.5, 1]
    assert limits(torch.tensor([-3.0, -1.0])) == (-3, -1)


def test_one_outlier_does_not_darken_the_rest() -> None:
    values = torch.cat([torch.linspace(0, 1, 999), torch.tensor([100.0])])
    low, high = limits(values)
    assert low == 0
    assert 0.99 < high <= 1
    assert scaled(values).max() == 1


def test_rare_values_are_not_cut_away_with_the_outliers() -> None:
    values = torch.zeros(1000)
    values[7] = 3
    assert limits(values) == (0, 3)


def test_small_map_keeps_its_highest_cell() -> None:
    assert limits(torch.arange(49.0).view(1, 7, 7)) == (0, 48)


def test_nan_does_not_change_the_limits() -> None:
    values = torch.tensor([torch.nan, 1.0, 2.0, 3.0])
    assert limits(values) == (1, 3)
    torch.testing.assert_close(scaled(values), torch.tensor([torch.nan, 0.0, 0.5, 1.0]), equal_nan=True)


@pytest.mark.parametrize("factor", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_scale_of_the_values_does_not_matter(factor: float) -> None:
    values = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(scaled(values * factor), scaled(values))


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e-20])
def test_constant_map_is_reported(value: float) -> None:
    constant = torch.full((1, 7, 7), value)
    assert flaw(constant) == "one value everywhere: ranks nothing"
    with pytest.raises(ValueError, match="one value everywhere"):
        scaled(constant)


def test_rounding_of_a_resampled_constant_map_is_no_heat() -> None:
    constant = torch.full((1, 7, 7), 0.1)
    resampled = torch.nn.functional.interpolate(constant[None], (225, 301), mode="bilinear", align_corners=True)
    assert resampled.min() < resampled.max()
    assert flaw(resampled) is not None


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_reported(value: float) -> None:
    assert "not finite" in (flaw(torch.tensor([0.0, 1.0, value])) or "")


@pytest.mark.parametrize("values", [[torch.inf, 0.0, 1.0], [torch.nan, torch.nan], []])
def test_no_scale_without_finite_values(values: list[float] | list[Any]) -> None:
    with pytest.raises(ValueError, match="ranks nothing"):
        limits(torch.tensor(values))


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (torch.nan, 1.0)])
def test_ends_of_the_scale_must_differ(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="ends of the scale"):
        scaled(torch.tensor([0.0, 1.0]), ends)


def test_given_ends_are_the_scale() -> None:
    assert scaled(torch.tensor([-1.0, 1.0, 9.0]), (0.0, 4.0)).tolist() == [0, 0.25, 1]


@pytest.mark.parametrize("name", [COLORMAP, "viridis", "tab10"])
def test_colours_are_those_of_matplotlib(name: str) -> None:
    values = torch.linspace(0, 1, 1001).view(1, 7, 143)
    expected = colormaps[name](values.numpy())[0, ..., :3]
    np.testing.assert_allclose(colourise(values, name)[0].permute(1, 2, 0).numpy(), expected, atol=1e-7)


def test_unknown_colormap() -> None:
    with pytest.raises(ValueError, match="colormap 'heat' is unknown"):
        colourise(torch.zeros(1, 2, 2), "heat")


def test_default_colours_become_brighter_step_by_step() -> None:
    ramp = colourise(torch.linspace(0, 1, 64).view(1, 1, 64))[0, :, 0]
    luma = (ramp * torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1)).sum(dim=0)
    assert bool((luma.diff() > 0).all())
