"""The objective of the mask methods, written again slowly, and its default weights."""

from __future__ import annotations

import pytest
import torch
from oracles import SmallNet
from torch import Tensor, nn

from faithmap.methods.masks import IGOS, Mask
from faithmap.methods.masks.base import Objective, Regulariser, Trace, size_penalty, total_variation
from faithmap.probe import MaskProbe
from faithmap.score import Score


def slowly(mask: Tensor, lambda1: float, lambda2: float) -> Tensor:
    rows, columns = mask.shape
    size = torch.stack([abs(1 - mask[i, j]) for i in range(rows) for j in range(columns)]).sum() / (rows * columns)
    down = [(mask[i + 1, j] - mask[i, j]) ** 2 for i in range(rows - 1) for j in range(columns)]
    across = [(mask[i, j + 1] - mask[i, j]) ** 2 for i in range(rows) for j in range(columns - 1)]
    variation = torch.stack([torch.stack(part).sum() / len(part) for part in (down, across) if part]).sum()
    return lambda1 * size + lambda2 * variation


def objective_of(net: nn.Module, images: Tensor, regulariser: Regulariser) -> Objective:
    score = Score("probability", classes=torch.zeros(len(images), dtype=torch.long))
    return Objective(MaskProbe(net, score, images, torch.zeros_like(images)), regulariser)


def test_the_regulariser_is_the_papers_equation_written_out() -> None:
    for shape in ((4, 5), (1, 3), (6, 1)):
        mask = torch.rand(*shape, dtype=torch.float64)
        assert torch.allclose(Regulariser(0.3, 7.0)(mask[None]), slowly(mask, 0.3, 7.0), atol=1e-14)


def test_its_gradient_is_that_of_the_equation_written_out() -> None:
    mask = torch.rand(2, 4, 5, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(slowly(mask[0], 0.3, 7.0) + slowly(mask[1], 0.3, 7.0), mask)[0]
    objective = objective_of(nn.Identity(), torch.rand(2, 1, 5, 5), Regulariser(0.3, 7.0))
    assert torch.allclose(objective.penalty_gradient(mask, torch.arange(2)), expected, atol=1e-14)


def test_the_gradient_of_a_mask_of_ones_is_zero() -> None:
    """The middle of the subdifferential of |1 - M|: the first step of a method follows the score alone."""
    objective = objective_of(nn.Identity(), torch.rand(1, 1, 5, 5), Regulariser(0.3, 7.0))
    assert torch.equal(objective.penalty_gradient(torch.ones(1, 4, 4), torch.tensor([0])), torch.zeros(1, 4, 4))


def test_the_objective_is_score_plus_regulariser(small_net: SmallNet, images: Tensor) -> None:
    objective, index = objective_of(small_net.eval(), images, Regulariser(0.3, 7.0)), torch.tensor([2, 0])
    masks = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = objective.score(masks, index) + torch.stack([slowly(mask, 0.3, 7.0) for mask in masks])
    assert torch.allclose(objective(masks, index), expected, atol=1e-6)
    start = objective.initial_masks((4, 4))
    assert torch.equal(start, torch.ones(3, 4, 4))
    clean = small_net(images).detach().softmax(dim=1)[:, 0]
    assert torch.allclose(objective(start, torch.arange(3)), clean, atol=1e-6), "a mask of ones removes nothing"


def test_a_trace_has_the_values_of_each_image_until_it_converged(small_net: SmallNet, images: Tensor) -> None:
    objective = objective_of(small_net.eval(), images, Regulariser(0.5, 2.0))
    every_image, ones, zeros = torch.arange(3), torch.ones(3, 2, 2), torch.zeros(3, 2, 2)
    zeros[:, 0] = 1
    trace = Trace(objective, 2, ones, torch.tensor([1.0, 2.0, 3.0]))
    trace.record(1, every_image, zeros, torch.tensor([4.0, 5.0, 6.0]), torch.tensor([0.1, 0.2, 0.3]))
    trace.record(2, torch.tensor([1]), zeros[1:2], torch.tensor([7.0]), torch.tensor([0.4]))
    first, second, third = trace.as_dicts()
    assert first["objective"] == [1, 4]
    assert second["objective"] == [2, 5, 7]
    assert third["objective"] == [3, 6]
    assert second["step"] == pytest.approx([0.2, 0.4])
    assert second["size"] == [0, 0.5, 0.5]
    assert second["total_variation"] == [0, 1, 1]
    assert second["score"] == pytest.approx([2, 5 - 0.25 - 2, 7 - 0.25 - 2])
    assert first["forward_passes"] == first["backward_passes"] == 0
    objective.score(ones[:1], torch.tensor([1]))
    assert [record["forward_passes"] for record in trace.as_dicts()] == [0, 1, 0]


def test_weights_mean_the_same_at_every_resolution() -> None:
    coarse = torch.rand(1, 4, 4)
    fine = coarse.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    assert torch.allclose(size_penalty(coarse), size_penalty(fine))


def test_the_variation_of_a_single_cell_is_zero() -> None:
    assert total_variation(torch.rand(2, 1, 1)).tolist() == [0, 0]


@pytest.mark.parametrize(("cells", "variation"), [(7, 1), (14, 1), (28, 1), ((14, 56), 2), (112, 4), (224, 8)])
def test_the_default_variation_weighs_more_beyond_28_cells(cells: int | tuple[int, int], variation: float) -> None:
    for method, (size, at_28) in ((IGOS, (0.1, 2.0)), (Mask, (0.01, 0.2))):
        regulariser = method(nn.Identity(), resolution=cells).regulariser
        assert (regulariser.lambda1, regulariser.lambda2) == pytest.approx((size, variation * at_28))
    assert IGOS(nn.Identity(), resolution=112, lambda2=3.0).settings["lambda2"] == 3.0


def test_a_weight_of_zero_is_taken_as_it_is() -> None:
    regulariser = IGOS(nn.Identity(), lambda1=0.0, lambda2=0.0).regulariser
    assert (regulariser.lambda1, regulariser.lambda2) == (0, 0)
