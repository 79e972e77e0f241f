"""From the photograph to the model's view, and back."""

from __future__ import annotations

import pytest
import torch

from faithmap.model import Geometry


@pytest.mark.parametrize(
    ("size", "resized"),
    [((480, 640), (256, 341)), ((640, 480), (341, 256)), ((300, 300), (256, 256)), ((10, 1000), (256, 25600))],
)
def test_the_shorter_side_is_resized(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert Geometry(resize=256).resized(size) == resized


def test_a_square_stays_square() -> None:
    """300 * (342 / 300) is a little less than 342 in floating point."""
    assert all(Geometry(resize=side).resized((300, 300)) == (side, side) for side in range(1, 1000))


def test_window_of_a_centre_crop() -> None:
    window = Geometry(resize=100, crop=(80, 80)).window((200, 400))
    assert window == (20.0, 120.0, 160.0, 160.0)


def test_crop_without_resize_cuts_exactly_the_window() -> None:
    photo = torch.rand(1, 3, 20, 31)
    geometry = Geometry(crop=(10, 11))
    top, left, height, width = map(int, geometry.window((20, 31)))
    assert torch.equal(geometry(photo), photo[:, :, top : top + height, left : left + width])


def test_a_crop_larger_than_the_photograph_is_padded_with_black() -> None:
    view = Geometry(crop=(4, 6))(torch.ones(1, 3, 2, 2))
    assert view.shape == (1, 3, 4, 6)
    assert view.sum() == 3 * 4
    assert view[:, :, 1:3, 2:4].min() == 1


@pytest.mark.parametrize("size", [(120, 200), (200, 120), (150, 150)])
def test_a_pixel_of_the_models_input_is_placed_where_it_came_from(size: tuple[int, int]) -> None:
    geometry = Geometry(resize=100, crop=(80, 80))
    photo = torch.zeros(1, 1, *size)
    row, column = size[0] // 2 + 20, size[1] // 2 - 25
    photo[0, 0, row - 2 : row + 3, column - 2 : column + 3] = 1
    placed = geometry.place(geometry(photo)[:, 0], size)[0]
    hottest = placed.nan_to_num(-1).argmax()
    assert abs(int(hottest) // size[1] - row) <= 1
    assert abs(int(hottest) % size[1] - column) <= 1


def test_pixels_outside_the_models_input_are_nan() -> None:
    placed = Geometry(crop=(4, 4))
    heat = placed.place(torch.ones(1, 4, 4), (8, 10))[0]
    expected = torch.zeros(8, 10, dtype=torch.bool)
    expected[2:6, 3:7] = True
    assert torch.equal(heat.isfinite(), expected)
    assert torch.allclose(heat[expected], torch.ones(16))


def test_no_geometry_is_the_identity() -> None:
    photo = torch.rand(2, 3, 5, 7)
    assert torch.equal(Geometry()(photo), photo)
    heat = torch.rand(2, 5, 7)
    assert torch.allclose(Geometry().place(heat, (5, 7)), heat, atol=1e-6)
