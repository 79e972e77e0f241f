r"""Nesterov's accelerated gradient, in the place of a line search (Nesterov 1983; taken up by later versions of I-GOS++).

.. math::
    Y_t = clip\Bigl(M_t + \tfrac{t}{t + 3} (M_t - M_{t-1})\Bigr), \qquad
    M_{t+1} = clip\bigl(Y_t - \alpha \, TG(Y_t)\bigr)

with t counted from 0. The objective may rise on the way. No step is tried in vain: an iteration takes the passes of its
gradient, and one more that tells the objective.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


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
