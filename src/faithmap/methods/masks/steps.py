r"""Step rules: how far the masks move in one iteration, given their gradient TG.

:class:`LineSearch` is the backtracking search of I-GOS with the revised Armijo condition (Qi, Khorram and Li 2020, Eq. 8). It
takes the largest step :math:`\alpha = u, u\eta, u\eta^2, \dots \ge l` for which

.. math:: F(M) - F(clip(M - \alpha \, TG)) \ge \alpha \beta \lVert TG \rVert^2

with F the plain objective: one evaluation for each candidate, without noise. The decrease is compared, not the objective: next
to F a small right-hand side would be lost to rounding, and a step that changes nothing would be accepted.

:class:`Nesterov` is the accelerated gradient (Nesterov 1983), which later versions of I-GOS++ use:

.. math::
    Y_t = clip\Bigl(M_t + \tfrac{t}{t + 3} (M_t - M_{t-1})\Bigr), \qquad
    M_{t+1} = clip\bigl(Y_t - \alpha \, TG(Y_t)\bigr)

with t counted from 0. The objective may rise between two iterations. :class:`FixedStep` is :math:`clip(M - \alpha \, TG(M))`.

Masks have the shape (n, ..., r, c): one or several masks of r x c cells for each of n images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Evaluate: TypeAlias = Callable[[Float[Tensor, "m ..."], Int[Tensor, " m"]], Float[Tensor, " m"]]
"""The plain objective of masks, given the image that each belongs to."""


class StepResult(NamedTuple):
    """The result of one iteration for each image.

    Attributes:
        accepted: whether the masks of the image moved.
        size: step size alpha; 0 if no step was accepted.
        masks: the masks after the step.
        objective: the objective F of these masks.

    >>> one = torch.ones(1)
    >>> StepResult(accepted=one.bool(), size=0.5 * one, masks=one.view(1, 1, 1), objective=one).size
    tensor([0.5000])
    """

    accepted: Bool[Tensor, " n"]
    size: Float[Tensor, " n"]
    masks: Float[Tensor, "n ..."]
    objective: Float[Tensor, " n"]


class StepRule(ABC):
    """Base of the step rules. A subclass defines ``passes``, the number of passes of an iteration, and overrides ``take``.

    >>> class Halve(StepRule):
    ...     passes = 1
    ...
    ...     def take(self, evaluate, masks, gradient, objective, index):
    ...         masks = masks / 2
    ...         return StepResult(index >= 0, torch.ones_like(objective), masks, evaluate(masks, index))
    >>> ones = torch.ones(1, 1, 1)
    >>> Halve().take(lambda masks, index: masks.sum(dim=(1, 2)), ones, ones, torch.ones(1), torch.tensor([0])).objective
    tensor([0.5000])
    """

    @property
    @abstractmethod
    def passes(self) -> int:
        """Evaluations of the objective in one iteration; an estimate where they depend on the image."""

    def ahead(self, masks: Float[Tensor, "n ..."], previous: Float[Tensor, "n ..."], iteration: int) -> Float[Tensor, "n ..."]:
        """Where the gradient is taken.

        Args:
            masks: the current ones.
            previous: those of the previous iteration.
            iteration: counted from 0.
        """
        del previous, iteration
        return masks

    @abstractmethod
    def take(
        self,
        evaluate: Evaluate,
        masks: Float[Tensor, "n ..."],
        gradient: Float[Tensor, "n ..."],
        objective: Float[Tensor, " n"],
        index: Int[Tensor, " n"],
    ) -> StepResult:
        """Step from each image's masks along ``-gradient``, all images together.

        Args:
            evaluate: the plain objective F.
            masks: where the gradient was taken.
            gradient: TG at these masks.
            objective: F of the current masks.
            index: the image of each row, which ``evaluate`` is given.
        """


@dataclass(frozen=True)
class LineSearch(StepRule):
    """Backtracking line search.

    Args:
        upper: the first step size u, above 0. It is large because the gradients of means are small.
        lower: the smallest step size l, in (0, upper].
        decay: ratio eta of a step size to the one before, in (0, 1).
        beta: share of the linear decrease that a step has to reach, in [0, 1).
        wave: steps of an image evaluated in one pass, at least 1. A larger number fills a pass, a smaller one evaluates fewer
            steps in vain; the result is the same.
        take_lowest: take the step l where none satisfies Eq. 8, as the paper does; False leaves the mask.

    Raises:
        ValueError: for values outside these ranges.

    >>> def evaluate(masks, index):
    ...     return masks.square().sum(dim=(1, 2))
    >>> ones = torch.ones(1, 1, 1)
    >>> step = LineSearch(upper=5.0, decay=0.2).take(evaluate, ones, 2 * ones, torch.ones(1), torch.tensor([0]))
    >>> step.size.item(), step.masks.item()
    (5.0, 0.0)
    """

    upper: float = 1000.0
    lower: float = 1e-5
    decay: float = 0.2
    beta: float = 1e-4
    wave: int = 4
    take_lowest: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.lower <= self.upper and 0 < self.decay < 1 and 0 <= self.beta < 1 and self.wave >= 1):
            raise ValueError(f"{self} is no line search; give 0 < lower <= upper, 0 < decay < 1, 0 <= beta < 1 and wave >= 1")

    @property
    def sizes(self) -> list[float]:
        """All steps that are tried, the largest first.

        >>> LineSearch(upper=1.0, lower=0.03).sizes
        [1.0, 0.2, 0.04000000000000001]
        """
        sizes = [self.upper]
        while sizes[-1] * self.decay >= self.lower:
            sizes.append(sizes[-1] * self.decay)
        return sizes

    @property
    def passes(self) -> int:
        """Two waves, as most searches take."""
        return 2 * self.wave

    def take(
        self,
        evaluate: Evaluate,
        masks: Float[Tensor, "n ..."],
        gradient: Float[Tensor, "n ..."],
        objective: Float[Tensor, " n"],
        index: Int[Tensor, " n"],
    ) -> StepResult:
        """The largest step that satisfies Eq. 8; where none does, no step, or the smallest one."""
        step = StepResult(
            torch.zeros_like(objective, dtype=torch.bool), torch.zeros_like(objective), masks.clone(), objective.clone()
        )
        slope = self.beta * gradient.flatten(1).square().sum(dim=1)
        searching = torch.arange(len(masks), device=masks.device)
        for wave in torch.tensor(self.sizes, dtype=objective.dtype, device=masks.device).split(self.wave):
            alpha = wave.view(-1, *[1] * (masks.ndim - 1))
            candidates = descend(masks[searching, None], gradient[searching, None], alpha)
            values = evaluate(candidates.flatten(0, 1), index[searching].repeat_interleave(len(wave)))
            values = values.view(len(searching), len(wave))
            enough = objective[searching, None] - values >= wave * slope[searching, None]
            found, first = enough.any(dim=1), enough.int().argmax(dim=1)
            winners, first, rows = searching[found], first[found], found.nonzero().flatten()
            step.accepted[winners] = True
            step.size[winners] = wave[first]
            step.masks[winners] = candidates[rows, first]
            step.objective[winners] = values[rows, first]
            searching = searching[~found]
            if len(searching) == 0:
                return step
        if self.take_lowest:
            step.size[searching] = self.lower
            step.masks[searching] = descend(masks[searching], gradient[searching], self.lower)
            step.objective[searching] = evaluate(step.masks[searching], index[searching])
        return step


@dataclass(frozen=True)
class FixedStep(StepRule):
    """The same step size in every iteration, whether or not the objective falls.

    Args:
        size: step size alpha, above 0.

    Raises:
        ValueError: for a size that is not above 0.

    >>> ones = torch.ones(1, 1, 2)
    >>> FixedStep(0.25).take(lambda masks, index: masks.sum(dim=(1, 2)), ones, ones, torch.zeros(1), torch.tensor([0])).masks
    tensor([[[0.7500, 0.7500]]])
    """

    size: float

    def __post_init__(self) -> None:
        if not self.size > 0:
            raise ValueError(f"size is {self.size}; give a step size above 0")

    @property
    def passes(self) -> int:
        """One, for the objective in the diagnostics."""
        return 1

    def take(
        self,
        evaluate: Evaluate,
        masks: Float[Tensor, "n ..."],
        gradient: Float[Tensor, "n ..."],
        objective: Float[Tensor, " n"],
        index: Int[Tensor, " n"],
    ) -> StepResult:
        """The fixed step; always accepted."""
        moved = descend(masks, gradient, self.size)
        accepted = torch.ones_like(index, dtype=torch.bool)
        return StepResult(accepted, torch.full_like(objective, self.size), moved, evaluate(moved, index))


@dataclass(frozen=True)
class Nesterov(StepRule):
    """Nesterov's accelerated gradient.

    Args:
        size: alpha, above 0. None for 8 at 28x28 cells and in proportion to the number of cells elsewhere, since the gradients
            of means shrink as cells multiply.

    Raises:
        ValueError: for a size that is not above 0.

    >>> Nesterov().ahead(torch.tensor([[[0.5]]]), torch.tensor([[[0.8]]]), 3).item()
    0.3499999940395355
    """

    size: float | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not self.size > 0:
            raise ValueError(f"size is {self.size}; give a step size above 0, or None")

    @property
    def passes(self) -> int:
        """One, for the objective in the diagnostics."""
        return 1

    def size_for(self, cells: int) -> float:
        """Alpha for masks of that number of cells.

        Args:
            cells: number of cells.

        >>> Nesterov().size_for(14 * 14)
        2.0
        """
        return 8.0 * cells / 28**2 if self.size is None else self.size

    def ahead(self, masks: Float[Tensor, "n ..."], previous: Float[Tensor, "n ..."], iteration: int) -> Float[Tensor, "n ..."]:
        """Y, ahead of the masks in the direction of their last step."""
        return (masks + iteration / (iteration + 3) * (masks - previous)).clamp(0, 1)

    def take(
        self,
        evaluate: Evaluate,
        masks: Float[Tensor, "n ..."],
        gradient: Float[Tensor, "n ..."],
        objective: Float[Tensor, " n"],
        index: Int[Tensor, " n"],
    ) -> StepResult:
        """A step of size alpha from Y; always accepted."""
        alpha = self.size_for(masks.shape[-2] * masks.shape[-1])
        return FixedStep(alpha).take(evaluate, masks, gradient, objective, index)


def descend(masks: Tensor, gradient: Tensor, size: Tensor | float) -> Tensor:
    """clip(M - alpha TG), the projection to masks.

    >>> descend(torch.tensor([0.5, 0.9]), torch.tensor([1.0, -1.0]), 0.25)
    tensor([0.2500, 1.0000])
    """
    return (masks - size * gradient).clamp(0, 1)
