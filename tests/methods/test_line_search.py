"""Backtracking on objectives whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from faithmap.methods.masks.steps import LineSearch, take_step


def quadratic(mask: Tensor, index: Tensor) -> Tensor:
    """(M - 1/2)^2 summed; its gradient at M = 1 is 1 for every cell, its best step 1/2."""
    return (mask - 0.5).square().sum(dim=(1, 2)) * (1 + index)


def search(settings: LineSearch, images: int = 2):
    mask = torch.ones(images, 3, 3, dtype=torch.float64)
    index = torch.arange(images)
    return settings(quadratic, mask, torch.ones_like(mask), quadratic(mask, index))


def test_steps_from_the_upper_bound_to_the_lower() -> None:
    assert LineSearch().sizes[0] == 1000
    assert LineSearch().sizes[-1] == pytest.approx(1000 * 0.2**11)
    assert len(LineSearch().sizes) == 12


@pytest.mark.parametrize("wave", [1, 2, 3, 12])
def test_the_largest_step_that_decreases_enough_is_taken(wave: int) -> None:
    """From (1/2)^2 a step a comes to max(1/2 - a, -1/2)^2: 1.6 is clipped to the mirror image, 0.32 is the first below."""
    step = search(LineSearch(wave=wave))
    assert step.accepted.all()
    assert step.size.tolist() == pytest.approx([1000 * 0.2**5] * 2)
    assert torch.allclose(step.mask, torch.full_like(step.mask, 1 - 0.32))
    assert step.objective.tolist() == pytest.approx([9 * 0.18**2, 2 * 9 * 0.18**2])


def test_beta_asks_for_more() -> None:
    """A step a brings 9 (a - a^2), of which beta asks 9 beta a: a <= 1 - beta."""
    assert search(LineSearch(upper=0.9, decay=0.5, beta=0.0)).size.tolist() == [0.9, 0.9]
    assert search(LineSearch(upper=0.9, decay=0.5, beta=0.2), images=1).size.tolist() == [0.45]


def test_uphill_nothing_is_accepted() -> None:
    mask = torch.full((1, 3, 3), 0.5, dtype=torch.float64)
    step = LineSearch()(quadratic, mask, torch.ones_like(mask), quadratic(mask, torch.arange(1)))
    assert not step.accepted.any()
    assert torch.equal(step.mask, mask)
    assert step.size.item() == 0


def test_a_step_that_single_precision_cannot_see_is_not_accepted() -> None:
    """Beside an objective of 1 a decrease of 3e-9 rounds away on both sides of Eq. 8; what is asked for does not."""
    mask = torch.ones(1, 3, 3)
    step = LineSearch(upper=3.0, lower=1e-4)(
        lambda masks, _: torch.ones(len(masks)), mask, torch.full_like(mask, 1e-4), torch.ones(1)
    )
    assert not step.accepted.any()


def test_passes_are_one_for_each_step_tried() -> None:
    asked = []

    def counting(mask: Tensor, index: Tensor) -> Tensor:
        asked.append(index.tolist())
        return quadratic(mask, index)

    mask = torch.ones(2, 3, 3, dtype=torch.float64)
    LineSearch(wave=4)(counting, mask, torch.ones_like(mask), quadratic(mask, torch.arange(2)))
    assert asked == [[0, 0, 0, 0, 1, 1, 1, 1]] * 2


def test_masks_stay_in_the_unit_interval() -> None:
    assert take_step(torch.tensor([0.2, 0.9]), torch.tensor([1.0, -1.0]), 5.0).tolist() == [0, 1]


@pytest.mark.parametrize("settings", [{"decay": 1.0}, {"lower": 2.0, "upper": 1.0}, {"lower": 0.0}, {"beta": 1.0}, {"wave": 0}])
def test_no_line_search(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is no line search"):
        LineSearch(**settings)
