"""The grid pointing game against closed forms: maps whose share is known, and models that look at one cell."""

from __future__ import annotations

import pytest
import torch
from oracles import Patch
from torch import Tensor, nn

import faithmap as fm
from faithmap.explanation import Explanation
from faithmap.metrics import GridPointingGame
from faithmap.metrics.known_truth import grid_mosaics, grid_pointing_game
from faithmap.metrics.known_truth.overlap import overlap_with
from faithmap.warning_types import EmptyHeatmapWarning


@pytest.mark.parametrize("grid", [2, 3])
@pytest.mark.parametrize("resolution", [1, 2, 5, 7, 28])
def test_a_constant_map_scores_one_over_the_number_of_cells(resolution: int, grid: int) -> None:
    explanation = Explanation(torch.ones(1, resolution, resolution), (50, 60))
    for position in range(grid * grid):
        found = grid_pointing_game(explanation, position, grid=grid)
        for share in (found.mass, found.top):
            assert torch.allclose(share, torch.tensor([1 / grid**2]), atol=1e-6)


@pytest.mark.parametrize("placed", [True, False])
def test_a_map_in_one_quarter_scores_1_there_and_0_elsewhere(placed: bool) -> None:
    """Cells of 8 pixels, in the middle of their part of the image as those of a layer, or with aligned corners."""
    heatmap = torch.zeros(1, 8, 8)
    heatmap[0, :4, 4:] = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    centres = 8.0 * torch.arange(8) + 3.5 if placed else None
    explanation = Explanation(heatmap, (64, 64), rows=centres, columns=centres)
    shares = torch.stack([torch.stack(grid_pointing_game(explanation, position)) for position in range(4)])
    assert torch.allclose(shares, torch.tensor([0.0, 1, 0, 0]).view(4, 1, 1).expand(4, 3, 1), atol=1e-6)


def test_a_cell_on_the_border_belongs_to_both_quarters_by_its_area() -> None:
    """Three columns in 6 pixels: centres 0, 2.5 and 5, so that the middle one covers 1.25 to 3.75 and the border halves it."""
    explanation = Explanation(torch.tensor([[[0.0, 1.0, 1.0]]]), (2, 6))
    found = grid_pointing_game(explanation, [0])
    assert torch.allclose(found.mass, torch.tensor([1.25 / (2.5 + 1.75) / 2]))
    centred = grid_pointing_game(Explanation(torch.tensor([[[0.0, 9.0, 1.0]]]), (2, 6)), [1])
    assert torch.allclose(centred.peak, torch.tensor([0.25]))


def test_the_top_tenth_is_a_tenth_of_the_area_and_equal_cells_share_it() -> None:
    heatmap = torch.zeros(1, 4, 4)  # 16 cells: a tenth is 1.6 of them
    heatmap[0, 0, 0], heatmap[0, 3, 3], heatmap[0, 3, 0] = 3.0, 2.0, 2.0
    tops = [float(grid_pointing_game(heatmap, position).top) for position in range(4)]
    assert tops == pytest.approx([1 / 1.6, 0, 0.3 / 1.6, 0.3 / 1.6])


def test_negative_values_do_not_count_and_a_map_without_positive_ones_scores_0() -> None:
    assert float(grid_pointing_game(torch.tensor([[[2.0, -8.0], [2.0, -8.0]]]), 0).mass) == 0.5
    with pytest.warns(EmptyHeatmapWarning, match="without positive values"):
        assert float(grid_pointing_game(-torch.ones(1, 4, 4), 0).mass) == 0


def test_a_mask_and_the_quarter_that_it_covers_have_the_same_overlap() -> None:
    heatmap = torch.rand(1, 5, 9, generator=torch.Generator().manual_seed(1))
    explanation = Explanation(heatmap, (40, 60))
    mask = torch.zeros(1, 40, 60, dtype=torch.bool)
    mask[:, 20:, :30] = True
    by_mask, by_place = overlap_with(explanation, mask), grid_pointing_game(explanation, 2)
    shares = (by_mask.mass_share(), by_mask.top_share(0.1), by_mask.peak_share())
    assert torch.allclose(torch.stack(shares), torch.stack(by_place))


class FourColours(nn.Module):
    """The logit of class k is how far the whole image has the k-th of four channels."""

    def forward(self, x: Tensor) -> Tensor:
        return 8 * x.amax(dim=(2, 3))


def plain_images(classes: list[int], strength: list[float]) -> Tensor:
    images = torch.zeros(len(classes), 4, 12, 12)
    images[torch.arange(len(classes)), classes] = torch.tensor(strength).view(-1, 1, 1)
    return images


def test_mosaics_are_made_of_the_most_confident_images_of_different_classes() -> None:
    images = plain_images([0, 1, 0, 2, 3, 1, 2, 3, 0], [0.9, 0.8, 1.0, 0.7, 0.6, 0.7, 0.65, 0.55, 0.01])
    mosaics = grid_mosaics(FourColours(), images)
    assert mosaics.sources.tolist() == [[2, 1, 3, 4], [5, 6, 7, 0]], "image 8 is not confident, the second mosaic is rotated"
    assert mosaics.classes.tolist() == [[0, 1, 2, 3], [1, 2, 3, 0]]
    assert torch.allclose(mosaics.images[0, 1, :6, 6:], images[1, 1, :6, 6:])
    assert bool((mosaics.images[0, 1, 6:] == 0).all())
    assert torch.allclose(mosaics.probabilities.sum(dim=1), torch.ones(2))
    assert len(grid_mosaics(FourColours(), images, count=1)) == 1


@pytest.mark.parametrize("size", [(13, 17), (12, 14)])
def test_the_cells_of_a_mosaic_cover_any_image(size: tuple[int, int]) -> None:
    images = plain_images([0, 1, 2, 3], [1.0, 1, 1, 1])[:, :, :1, :1].expand(4, 4, *size)
    mosaics = grid_mosaics(FourColours(), images)
    assert torch.allclose(mosaics.images.sum(dim=1), torch.ones(1, *size), atol=1e-5)


def test_the_gradient_of_a_model_that_looks_at_one_cell_scores_1() -> None:
    model = Patch(slice(0, 8), slice(8, 16), gain=2.0)
    explanation = fm.Gradient(model)(torch.full((2, 3, 16, 16), 0.75), 0)
    found = grid_pointing_game(Explanation(explanation.heatmap.abs(), explanation.image_size), 1)
    assert torch.equal(torch.stack(found)[:2], torch.ones(2, 2))
    metric = GridPointingGame(part="top")
    metric.update(explanation.heatmap.abs(), torch.tensor([1, 1]))
    metric.update(explanation.heatmap.abs(), 0)
    assert metric.per_image().tolist() == [1, 1, 0, 0]
    assert metric.higher_is_better


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grid_pointing_game(torch.ones(2, 4, 4), 4), "has 0 to 3"),
        (lambda: grid_pointing_game(torch.ones(2, 4, 4), [1]), "one number for each"),
        (lambda: grid_pointing_game(torch.ones(4, 4), 0), "give \\(images, rows, columns\\)"),
        (lambda: grid_pointing_game(torch.full((1, 4, 4), torch.nan), 0), "no NaN"),
        (lambda: grid_pointing_game(torch.ones(1, 4, 4), 0, fraction=0), "fraction is 0"),
        (lambda: GridPointingGame(part="all"), "part is 'all'"),  # type: ignore[arg-type]
        (lambda: grid_mosaics(FourColours(), plain_images([0, 1], [1.0, 1.0])), "predicts 2 different classes"),
        (lambda: grid_mosaics(FourColours(), torch.zeros(4, 4, 4, 4), grid=5), "grid is 5"),
        (lambda: overlap_with(torch.ones(2, 4, 4), torch.ones(3, 4, 4, dtype=torch.bool)), "a mask for each"),
    ],
)
def test_invalid_input_is_refused_in_one_line(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
