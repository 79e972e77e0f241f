r"""What a mask is asked to be: small, smooth, and fatal to the score (I-GOS, Eqs. 2 and 9).

.. math::
    F(M) = f(\Phi(I, M)) + g(M), \qquad
    g(M) = \lambda_1 \overline{|1 - M|} + \lambda_2 TV(M)

The terms are means over cells, so that the weights keep their meaning when the number of cells changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def size_penalty(mask: Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
    r"""How much of the image is removed, :math:`\overline{|1 - M|}`; in [0, 1].

    >>> size_penalty(torch.tensor([[[1.0, 0.0], [0.5, 1.0]]]))
    tensor([0.3750])
    """
    return (1 - mask).abs().mean(dim=(1, 2))


def total_variation(mask: Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
    r"""Mean squared difference of neighbouring cells, rows plus columns (Fong and Vedaldi 2017, Eq. 4, beta = 2).

    .. math:: TV(M) = \overline{(M_{i+1,j} - M_{i,j})^2} + \overline{(M_{i,j+1} - M_{i,j})^2}

    >>> total_variation(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    tensor([1.])
    """
    parts = [mask.diff(dim=dim).square().mean(dim=(1, 2)) for dim in (1, 2) if mask.shape[dim] > 1]
    return torch.stack(parts).sum(dim=0) if parts else mask.new_zeros(len(mask))


Penalty = Callable[[Float[Tensor, "m r c"]], Float[Tensor, " m"]]
"""G of each mask."""


@dataclass(frozen=True)
class Regulariser:
    """g(M), its parts and its gradient.

    Args:
        lambda1: weight of the removed area.
        lambda2: weight of the total variation.
    """

    lambda1: float
    lambda2: float

    def __call__(self, mask: Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
        """G of each mask."""
        return self.lambda1 * size_penalty(mask) + self.lambda2 * total_variation(mask)

    def gradient(self, mask: Float[Tensor, "n r c"]) -> Float[Tensor, "n r c"]:
        """Of each mask's own g; zero for the size of a cell that is exactly 1, where the absolute value has its kink."""
        mask = mask.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self(mask).sum(), mask)[0]
