r"""Backtracking line search with the revised Armijo condition (I-GOS, Eq. 8).

The largest step :math:`\alpha = u, u\eta, u\eta^2, \dots \ge l` is taken for which

.. math:: F(clip(M - \alpha \, TG)) \le F(M) - \alpha \beta \lVert TG \rVert^2

with F the plain objective: one forward pass a candidate, and no noise. The decrease is what is compared: beside F itself, a
small enough right-hand side would be lost to rounding, and a step that moves nothing would pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Objective = Callable[[Float[Tensor, "m r c"], Int[Tensor, " m"]], Float[Tensor, " m"]]
"""The plain objective of each mask, told which image it belongs to."""


class Step(NamedTuple):
    """Where the search ended, for each image."""

    accepted: Bool[Tensor, " n"]
    size: Float[Tensor, " n"]
    mask: Float[Tensor, "n r c"]
    objective: Float[Tensor, " n"]


@dataclass(frozen=True)
class LineSearch:
    """Settings of the search.

    Args:
        upper: the first step tried; a large one is needed, since the mean terms make gradients small.
        lower: no step below this is tried.
        decay: eta, from one step to the next.
        beta: the share of the linear decrease that is asked for.
        wave: steps of an image tried in one pass. More of them fill a pass, fewer waste none: the answer is the same.
    """

    upper: float = 1000.0
    lower: float = 1e-5
    decay: float = 0.2
    beta: float = 1e-4
    wave: int = 4

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

    def __call__(
        self,
        objective: Objective,
        mask: Float[Tensor, "n r c"],
        direction: Float[Tensor, "n r c"],
        current: Float[Tensor, " n"],
    ) -> Step:
        """Search along ``-direction`` from each mask, whose objective is ``current``; all images together."""
        step = Step(torch.zeros_like(current, dtype=torch.bool), torch.zeros_like(current), mask.clone(), current.clone())
        slope = self.beta * direction.square().sum(dim=(1, 2))
        searching = torch.arange(len(mask), device=mask.device)
        for wave in torch.tensor(self.sizes, dtype=current.dtype, device=mask.device).split(self.wave):
            candidates = take_step(mask[searching, None], direction[searching, None], wave.view(1, -1, 1, 1))
            index = searching.repeat_interleave(len(wave))
            values = objective(candidates.flatten(0, 1), index).view(len(searching), len(wave))
            enough = current[searching, None] - values >= wave * slope[searching, None]
            found, first = enough.any(dim=1), enough.int().argmax(dim=1)
            winners, first, rows = searching[found], first[found], found.nonzero().flatten()
            step.accepted[winners] = True
            step.size[winners] = wave[first]
            step.mask[winners] = candidates[rows, first]
            step.objective[winners] = values[rows, first]
            searching = searching[~found]
            if len(searching) == 0:
                break
        return step


def take_step(mask: Tensor, direction: Tensor, size: Tensor | float) -> Tensor:
    """clip(M - alpha TG), the projection to masks."""
    return (mask - size * direction).clamp(0, 1)


@dataclass(frozen=True)
class Nesterov:
    """Settings.

    Args:
        size: alpha. None takes 8 at 28x28 cells, and in proportion to their number elsewhere, since the gradients of means
            shrink as cells multiply.
    """

    size: float | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not self.size > 0:
            raise ValueError(f"size is {self.size}; give a step size above 0, or None")

    def size_for(self, cells: int) -> float:
        """Alpha for a mask of so many cells.

        >>> Nesterov().size_for(14 * 14)
        2.0
        """
        return 8.0 * cells / 28**2 if self.size is None else self.size

    def ahead(self, mask: Float[Tensor, "n r c"], before: Float[Tensor, "n r c"], done: int) -> Float[Tensor, "n r c"]:
        """Where the gradient is taken, after so many iterations.

        >>> import torch
        >>> Nesterov().ahead(torch.tensor([[[0.5]]]), torch.tensor([[[0.8]]]), 3).item()
        0.3499999940395355
        """
        return (mask + done / (done + 3) * (mask - before)).clamp(0, 1)
