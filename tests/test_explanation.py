"""Heatmaps know where their cells lie."""

from __future__ import annotations

import pytest
import torch
from oracles import given
from torch.nn import functional as F

from faithmap.explanation import Explanation, interpolation_matrix


@pytest.mark.parametrize("cells", [(7, 7), (4, 9), (1, 5), (32, 40)])
def test_without_centres_the_corners_are_aligned_as_masks_are(cells: tuple[int, int]) -> None:
    heatmap = torch.rand(2, *cells)
    expected = F.interpolate(heatmap.unsqueeze(1), (32, 40), mode="bilinear", align_corners=True).squeeze(1)
    assert torch.allclose(Explanation(heatmap, (32, 40)).at(), expected, atol=1e-6)


def test_centres_decide_where_a_cell_is_drawn() -> None:
    """A stride-32 cell j of a ResNet is centred at pixel 32 j, not at 32 j + 15.5."""
    heatmap = torch.zeros(1, 7, 7)
    heatmap[0, 2, 5] = 1
    centres = torch.arange(7) * 32.0
    drawn = Explanation(heatmap, (224, 224), rows=centres, columns=centres).at()[0]
    assert divmod(int(drawn.argmax()), 224) == (64, 160)
    assert drawn[64 + 16, 160] == pytest.approx(0.5)


def test_beyond_the_outermost_centres_a_map_is_constant() -> None:
    matrix = interpolation_matrix(torch.tensor([2.0, 4.0]), torch.arange(7.0))
    assert matrix[:, 1].tolist() == [0, 0, 0, 0.5, 1, 1, 1]
    assert torch.allclose(matrix.sum(dim=1), torch.ones(7))


def test_an_explanation_can_be_indexed_by_image() -> None:
    maps = Explanation(torch.rand(3, 2, 2), (8, 8), target=torch.tensor([4, 5, 6]), diagnostics=[{"a": i} for i in range(3)])
    assert len(maps) == 3
    assert [(given(one.target).item(), one.diagnostics[0]["a"]) for one in maps] == [(4, 0), (5, 1), (6, 2)]
    assert torch.equal(maps[-1].heatmap, maps.heatmap[2:])
    with pytest.raises(IndexError):
        maps[3]


def test_the_first_image_counted_from_the_end_is_the_first() -> None:
    maps = Explanation(torch.rand(3, 2, 2), (8, 8))
    assert torch.equal(maps[-3].heatmap, maps.heatmap[:1])
    with pytest.raises(IndexError):
        maps[-4]


@pytest.mark.parametrize(("pixels", "centre"), [(8, 3.5), (5, 2.0), (1, 0.0)])
def test_a_single_cell_is_centred_in_the_image(pixels: int, centre: float) -> None:
    rows, columns = Explanation(torch.rand(1, 1, 3), (pixels, 9)).centres
    assert rows.tolist() == [centre]
    assert columns.tolist() == [0, 4, 8]
    finer = Explanation(torch.tensor([[[1.0], [3.0]]]), (3, pixels), columns=torch.tensor([centre]))
    assert finer.at((1, 1)).item() == pytest.approx(2), "a grid of one cell samples the middle of the image"


def test_cells_are_resampled_if_either_axis_has_centres_of_its_own() -> None:
    """Centres at 1 and 2 of 4 pixels: the corners' values are those of the outermost cells, the middle stays."""
    heatmap = torch.rand(1, 3, 3)
    aligned = Explanation(heatmap, (5, 5))
    assert torch.equal(aligned.cells, heatmap)
    rows = Explanation(heatmap, (5, 5), rows=torch.tensor([1.0, 2.0, 3.0]))
    columns = Explanation(heatmap.mT, (5, 5), columns=torch.tensor([1.0, 2.0, 3.0]))
    assert torch.allclose(rows.cells, heatmap)
    near = Explanation(heatmap, (5, 5), rows=torch.tensor([0.0, 1.0, 4.0]))
    assert torch.allclose(near.cells[:, 1], (2 * heatmap[:, 1] + heatmap[:, 2]) / 3)
    across = Explanation(heatmap.mT, (5, 5), columns=torch.tensor([0.0, 1.0, 4.0]))
    assert torch.allclose(across.cells, near.cells.mT)
    assert torch.allclose(columns.cells, heatmap.mT)


def test_explained_is_the_class_or_the_callable() -> None:
    def brightness(output: torch.Tensor) -> torch.Tensor:
        return output.mean(dim=1)

    classes = torch.tensor([2])
    assert Explanation(torch.rand(1, 2, 2), (4, 4), target=classes).explained is classes
    assert Explanation(torch.rand(1, 2, 2), (4, 4), function=brightness).explained is brightness


def test_an_explanation_is_made_from_an_array() -> None:
    taken = Explanation.from_array([[1, 2], [3, 4]], (4, 4), target=7)
    assert taken.heatmap.dtype == torch.float32
    assert given(taken.target).tolist() == [7]
    with pytest.raises(ValueError, match="expected \\(images, rows, columns\\)"):
        Explanation(torch.rand(2, 2), (4, 4))


def test_the_title_is_the_method_unless_another_is_given() -> None:
    heatmap = torch.rand(1, 2, 2)
    titles = [
        Explanation(heatmap, (8, 8)).title,
        Explanation(heatmap, (8, 8), method="gradcam").title,
        Explanation(heatmap, (8, 8), method="GradCAM", title="Grad-CAM").title,
    ]
    assert titles == ["given map", "gradcam", "Grad-CAM"]
