import pytest
import torch
from matplotlib import colormaps

from faithmap.data import read_image, sample_photo
from faithmap.explanation import Explanation
from faithmap.geometry import Geometry
from faithmap.viz import overlay, placed

PHOTO = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 1, 3)


def colour(value: float, name: str = "plasma") -> torch.Tensor:
    return torch.tensor(colormaps[name](value)[:3], dtype=torch.float32)


def test_pixels_are_the_blend_that_the_formula_says():
    heat = torch.tensor([[[0.0, 5.0, 10.0]]])
    result = overlay(PHOTO, heat, opacity=0.8, saturation=1)[0, :, 0].T
    own = PHOTO[0, :, 0, 0]
    expected = torch.stack([own, 0.6 * own + 0.4 * colour(0.5), 0.2 * own + 0.8 * colour(1.0)])
    torch.testing.assert_close(result, expected)


def test_unimportant_places_keep_the_photograph_exactly():
    photo = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    heat = torch.zeros(1, 5, 7)
    heat[0, 2, 3] = 1
    result = overlay(photo, heat, opacity=1, saturation=1)
    changed = (result != photo).any(dim=1)
    assert changed.nonzero().tolist() == [[0, 2, 3]]
    torch.testing.assert_close(result[0, :, 2, 3], colour(1.0))


def test_channels_are_red_green_blue():
    heat = torch.tensor([[[0.0, 1.0]]])
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    result = overlay(red, heat, opacity=1, saturation=1, colormap="winter_r")
    assert result[0, :, 0, 0].tolist() == [1, 0, 0]
    assert result[0, :, 0, 1].tolist() == [0, 0, 1]


def test_photograph_fades_to_its_luma():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    grey = overlay(red, torch.tensor([[[0.0, 1.0]]]), saturation=0)[0, :, 0, 0]
    half = overlay(red, torch.tensor([[[0.0, 1.0]]]), saturation=0.5)[0, :, 0, 0]
    torch.testing.assert_close(grey, torch.full((3,), 0.299))
    torch.testing.assert_close(half, torch.tensor([0.6495, 0.1495, 0.1495]))


def test_what_the_model_did_not_see_is_grey_and_pale():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 3)
    result = overlay(red, torch.tensor([[[torch.nan, 0.0, 1.0]]]), saturation=1)
    torch.testing.assert_close(result[0, :, 0, 0], torch.full((3,), 0.299 + 0.701 * 2 / 3))
    assert result[0, :, 0, 1].tolist() == [1, 0, 0]


def test_result_is_a_picture_of_the_photographs_dtype():
    photo = torch.rand(1, 3, 6, 4, dtype=torch.float64)
    result = overlay(photo, torch.rand(1, 6, 4))
    assert result.dtype == torch.float64
    assert result.min() >= 0
    assert result.max() <= 1


def test_heat_does_not_depend_on_the_brightness_of_the_photograph():
    heat = torch.rand(1, 6, 4, generator=torch.Generator().manual_seed(3))
    dark, bright = (overlay(torch.full((1, 3, 6, 4), x), heat, saturation=1) for x in (0.0, 1.0))
    shown = 0.8 * (heat - heat.min()) / (heat.max() - heat.min())
    torch.testing.assert_close(bright - dark, (1 - shown).unsqueeze(1).expand(-1, 3, -1, -1))


@pytest.mark.parametrize("heat", [torch.zeros(1, 1, 3), torch.full((1, 1, 3), torch.nan), torch.full((1, 1, 3), torch.inf)])
def test_map_that_ranks_nothing_is_not_drawn(heat):
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
def test_inputs_that_do_not_fit(photo, heat, settings, message):
    with pytest.raises(ValueError, match=message):
        overlay(photo, heat, **settings)


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (75, 75), (33, 100)])
@pytest.mark.parametrize("cell", [(0, 0), (3, 20), (14, 14), (27, 5), (27, 27)])
def test_hot_cell_lands_on_its_own_pixels_of_the_photograph(size, cell):
    geometry = Geometry(32, (28, 28))
    heat = torch.zeros(1, 28, 28)
    heat[0, cell[0], cell[1]] = 1
    photo = torch.zeros(1, 3, *size)
    result = overlay(photo, placed(Explanation(heat, (28, 28)), photo, geometry), opacity=1)
    seen = ~placed(Explanation(heat, (28, 28)), photo, geometry)[0].isnan()
    hot = (result[0].sum(dim=0) * seen).flatten().argmax()
    row, column = divmod(int(hot), size[1])
    window, scale = geometry.window(size), min(size) / 32
    assert abs(row + 0.5 - window.top - (cell[0] + 0.5) * scale) <= 0.5 * scale + 0.5
    assert abs(column + 0.5 - window.left - (cell[1] + 0.5) * scale) <= 0.5 * scale + 0.5


def test_only_the_crop_of_a_real_photograph_keeps_its_colours():
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


def test_photo_that_the_geometry_does_not_fit():
    why = Explanation(torch.rand(1, 7, 7), (28, 28))
    with pytest.raises(ValueError, match="seen as 60 x 90, but images of 28 x 28 were explained"):
        placed(why, torch.zeros(1, 3, 60, 90))
