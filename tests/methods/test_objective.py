"""The objective, written again slowly."""

from __future__ import annotations

import pytest
import torch

from faithmap.methods.masks import IGOS, Mask
from faithmap.methods.masks.base import Regulariser, size_penalty, total_variation


def slowly(mask: torch.Tensor, lambda1: float, lambda2: float) -> torch.Tensor:
    rows, columns = mask.shape
    size = sum(abs(1 - mask[i, j]) for i in range(rows) for j in range(columns)) / (rows * columns)
    down = [(mask[i + 1, j] - mask[i, j]) ** 2 for i in range(rows - 1) for j in range(columns)]
    across = [(mask[i, j + 1] - mask[i, j]) ** 2 for i in range(rows) for j in range(columns - 1)]
    variation = sum(sum(part) / len(part) for part in (down, across) if part)
    return lambda1 * size + lambda2 * variation


def test_against_the_paper_written_out() -> None:
    for shape in ((4, 5), (1, 3), (6, 1)):
        mask = torch.rand(*shape, dtype=torch.float64)
        assert torch.allclose(Regulariser(0.3, 7.0)(mask[None]), slowly(mask, 0.3, 7.0), atol=1e-14)


def test_gradient_is_the_slow_ones() -> None:
    mask = torch.rand(2, 4, 5, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(slowly(mask[0], 0.3, 7.0) + slowly(mask[1], 0.3, 7.0), mask)[0]
    assert torch.allclose(Regulariser(0.3, 7.0).gradient(mask), expected, atol=1e-14)


def test_weights_mean_the_same_at_every_resolution() -> None:
    coarse = torch.rand(1, 4, 4)
    fine = coarse.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    assert torch.allclose(size_penalty(coarse), size_penalty(fine))


def test_a_single_cell_varies_nowhere() -> None:
    assert total_variation(torch.rand(2, 1, 1)).tolist() == [0, 0]


@pytest.mark.parametrize(("cells", "variation"), [(7, 1), (14, 1), (28, 1), ((14, 56), 2), (112, 4), (224, 8)])
def test_the_variation_weighs_more_beyond_28_cells(cells: int | tuple[int, int], variation: float) -> None:
    for method, (size, at_28) in ((IGOS, (0.1, 2.0)), (Mask, (0.01, 0.2))):
        regulariser = method(torch.nn.Identity(), resolution=cells).regulariser
        assert (regulariser.lambda1, regulariser.lambda2) == pytest.approx((size, variation * at_28))
    assert IGOS(torch.nn.Identity(), resolution=112, lambda2=3.0).settings["lambda2"] == 3.0
