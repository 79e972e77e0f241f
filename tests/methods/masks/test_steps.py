"""Step rules on objectives whose best step is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from faithmap.methods.masks.steps import FixedStep, LineSearch, Nesterov, StepResult, descend


def quadratic(masks: Tensor, index: Tensor) -> Tensor:
    """(M - 1/2)^2 summed; its gradient at M = 1 is 1 for every cell, its best step 1/2."""
    return (masks - 0.5).square().sum(dim=(1, 2)) * (1 + index)


def search(rule: LineSearch, images: int = 2) -> StepResult:
    masks = torch.ones(images, 3, 3, dtype=torch.float64)
    index = torch.arange(images)
    return rule.take(quadratic, masks, torch.ones_like(masks), quadratic(masks, index), index)


def test_a_search_tries_steps_from_the_upper_bound_to_the_lower() -> None:
    assert LineSearch().sizes[0] == 1000
    assert LineSearch().sizes[-1] == pytest.approx(1000 * 0.2**11)
    assert len(LineSearch().sizes) == 12


def test_the_lower_bound_itself_is_tried() -> None:
    assert LineSearch(upper=1.0, lower=0.25, decay=0.5).sizes == [1.0, 0.5, 0.25]
    assert LineSearch(upper=1.0, lower=1.0).sizes == [1.0]


@pytest.mark.parametrize("wave", [1, 2, 3, 12])
def test_the_largest_step_that_decreases_enough_is_taken(wave: int) -> None:
    """From (1/2)^2 a step a comes to max(1/2 - a, -1/2)^2: 1.6 is clipped to the mirror image, 0.32 is the first below."""
    step = search(LineSearch(wave=wave))
    assert step.accepted.all()
    assert step.size.tolist() == pytest.approx([1000 * 0.2**5] * 2)
    assert torch.allclose(step.masks, torch.full_like(step.masks, 1 - 0.32))
    assert step.objective.tolist() == pytest.approx([9 * 0.18**2, 2 * 9 * 0.18**2])


def test_a_larger_beta_requires_a_larger_decrease() -> None:
    """A step a brings 9 (a - a^2), of which beta requires 9 beta a: a <= 1 - beta."""
    assert search(LineSearch(upper=0.9, decay=0.5, beta=0.0)).size.tolist() == [0.9, 0.9]
    assert search(LineSearch(upper=0.9, decay=0.5, beta=0.2), images=1).size.tolist() == [0.45]


def test_a_decrease_of_exactly_the_required_size_is_enough() -> None:
    """Equality in Eq. 8. Two cells of gradient 1/2 and a step of 1/2 require a decrease of 1/2 * beta * 1/2 = 1/8."""
    masks, index, start = torch.ones(1, 1, 2, dtype=torch.float64), torch.tensor([0]), torch.ones(1, dtype=torch.float64)
    rule = LineSearch(upper=0.5, lower=0.5, beta=0.5)

    def accepted(decrease: float) -> bool:
        step = rule.take(lambda masks, _: start - decrease, masks, torch.full_like(masks, 0.5), start, index)
        return bool(step.accepted)

    assert accepted(1 / 8)
    assert not accepted(1 / 8 - 2**-30)


def test_no_step_is_accepted_uphill() -> None:
    masks, index = torch.full((1, 3, 3), 0.5, dtype=torch.float64), torch.arange(1)
    step = LineSearch().take(quadratic, masks, torch.ones_like(masks), quadratic(masks, index), index)
    assert not step.accepted.any()
    assert torch.equal(step.masks, masks)
    assert step.size.item() == 0


def test_a_step_that_single_precision_cannot_see_is_not_accepted() -> None:
    """Beside an objective of 1 a decrease of 3e-9 rounds away on both sides of Eq. 8; the required decrease does not."""
    masks = torch.ones(1, 3, 3)
    step = LineSearch(upper=3.0, lower=1e-4).take(
        lambda masks, _: torch.ones(len(masks)), masks, torch.full_like(masks, 1e-4), torch.ones(1), torch.tensor([0])
    )
    assert not step.accepted.any()


def test_a_search_evaluates_each_step_that_it_tries_once() -> None:
    evaluated = []

    def counting(masks: Tensor, index: Tensor) -> Tensor:
        evaluated.append(index.tolist())
        return quadratic(masks, index)

    masks, index = torch.ones(2, 3, 3, dtype=torch.float64), torch.arange(2)
    LineSearch(wave=4).take(counting, masks, torch.ones_like(masks), quadratic(masks, index), index)
    assert evaluated == [[0, 0, 0, 0, 1, 1, 1, 1]] * 2


def test_an_image_whose_step_is_found_is_not_evaluated_again() -> None:
    """Image 7 accepts the first step, image 4 the third; each row is given the image that it belongs to."""
    evaluated = []

    def evaluate(masks: Tensor, index: Tensor) -> Tensor:
        evaluated.append(index.tolist())
        return torch.where(index == 7, 0.0, masks.sum(dim=(1, 2)).where(masks.amax(dim=(1, 2)) > 0.9, 4.0))

    masks, index = torch.ones(2, 1, 4), torch.tensor([7, 4])
    step = LineSearch(upper=1.0, decay=0.25, wave=1).take(evaluate, masks, torch.ones_like(masks), 4 * torch.ones(2), index)
    assert step.size.tolist() == [1.0, 0.0625]
    assert evaluated == [[7, 4], [4], [4]]


def test_masks_stay_in_the_unit_interval() -> None:
    assert descend(torch.tensor([0.2, 0.9]), torch.tensor([1.0, -1.0]), 5.0).tolist() == [0, 1]


def test_two_masks_of_an_image_move_together() -> None:
    """The norm in Eq. 8 is over the cells of both: four cells of gradient 1 require 4 beta a."""
    masks, index = torch.ones(1, 2, 1, 2, dtype=torch.float64), torch.tensor([0])

    def falling(share: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda masks, index: 4 - share * (4 - masks.sum(dim=(1, 2, 3)))

    rule = LineSearch(upper=0.5, lower=0.5, beta=0.5)
    start = torch.full((1,), 4.0, dtype=torch.float64)
    assert rule.take(falling(0.51), masks, torch.ones_like(masks), start, index).masks.tolist() == [[[[0.5] * 2]] * 2]
    assert not rule.take(falling(0.49), masks, torch.ones_like(masks), start, index).accepted.item()


@pytest.mark.parametrize(("rule", "size"), [(FixedStep(0.25), 0.25), (Nesterov(0.25), 0.25), (Nesterov(), 8 * 6 / 784)])
def test_rules_without_a_search_accept_their_step_even_uphill(rule: FixedStep | Nesterov, size: float) -> None:
    masks, index = torch.full((2, 2, 3), 0.75), torch.arange(2)
    step = rule.take(quadratic, masks, -torch.ones_like(masks), quadratic(masks, index), index)
    assert step.accepted.tolist() == [True, True]
    assert step.size.tolist() == pytest.approx([size] * 2)
    assert torch.allclose(step.masks, masks + size)
    assert torch.equal(step.objective, quadratic(step.masks, index))


def test_only_nesterov_takes_the_gradient_ahead_of_the_masks() -> None:
    masks, previous = torch.tensor([[[0.5, 0.1]]]), torch.tensor([[[0.9, 0.9]]])
    for rule in (LineSearch(), FixedStep(1.0)):
        assert rule.ahead(masks, previous, 3) is masks
    assert torch.equal(Nesterov().ahead(masks, previous, 0), masks)
    assert torch.allclose(Nesterov().ahead(masks, previous, 3), torch.tensor([[[0.3, 0.0]]]))


def test_passes_of_an_iteration_are_estimated() -> None:
    assert [rule.passes for rule in (LineSearch(), LineSearch(wave=1), FixedStep(1.0), Nesterov())] == [8, 2, 1, 1]


@pytest.mark.parametrize(
    "settings",
    [{"decay": 1.0}, {"decay": 0.0}, {"lower": 2.0, "upper": 1.0}, {"lower": 0.0}, {"beta": 1.0}, {"beta": -0.1}, {"wave": 0}],
)
def test_a_line_search_refuses_settings_outside_their_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is no line search"):
        LineSearch(**settings)


def test_a_step_size_has_to_be_above_zero() -> None:
    with pytest.raises(ValueError, match="size is 0; give a step size above 0, or None"):
        Nesterov(0)
    with pytest.raises(ValueError, match="size is 0; give a step size above 0"):
        FixedStep(0)
