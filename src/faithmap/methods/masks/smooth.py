r"""Smooth masks of a few numbers, by a max-convolution (Fong, Patrick and Vedaldi, ICCV 2019).

A convolution cannot make a mask that is both smooth and nearly 0 or 1 everywhere, a maximum of bumps can:

.. math::
    m(u) = smax_v \; k(u - v) \, \bar m(v), \qquad
    smax_v f(v) = \frac{\sum_v f(v) e^{f(v) / T}}{\sum_v e^{f(v) / T}}

with :math:`\bar m` on a coarse grid, which goes on beyond the image as it ends there: were it 0 outside, even a uniform grid
would give a mask whose border ranks differently from its middle. The bump is
:math:`k(u) = e^{-\max(0, |u| / \sigma - 1)^2 / 4}`: 1 up to a distance of :math:`\sigma`, half at 2.7, and cut off at 5, where
2 % are left.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

REACH = 5.0
"""In sigmas: where a bump ends."""

_AT_ONCE = 2**23
"""Products of a cell and a number near it that are in memory together."""


class SmoothMasks:
    """Turns grids of numbers into smooth masks.

    Args:
        shape: (rows, columns) of the masks.
        pitch: pixels from one cell to the next, down and across.
        step: pixels from one number to the next, rounded to whole cells.
        sigma: of the bump, in pixels.
        temperature: T; with 0 the maximum would be hard, with infinity a mean.
    """

    def __init__(
        self, shape: tuple[int, int], pitch: tuple[float, float], step: float, sigma: float, temperature: float, like: Tensor
    ) -> None:
        self.shape, self.temperature = shape, temperature
        self.steps = tuple(max(1, round(step / cell)) for cell in pitch)
        self.grid = tuple(math.ceil(cells / every) for cells, every in zip(shape, self.steps, strict=True))
        # A number stands in the middle of its block of cells, and one that is `reach` blocks away is too far from all of them.
        spans = [every * cell for every, cell in zip(self.steps, pitch, strict=True)]
        self.reach = tuple(min(n - 1, math.floor(REACH * sigma / span + 0.5)) for n, span in zip(self.grid, spans, strict=True))
        down, across = (
            _distances(every, cell, reach) for every, cell, reach in zip(self.steps, pitch, self.reach, strict=True)
        )
        distance = (down[:, None, :, None].square() + across[None, :, None, :].square()).sqrt().flatten(2).flatten(0, 1)
        self.near = (distance.amin(dim=1) <= REACH * sigma).nonzero().flatten().to(like.device)
        bump = torch.exp(-(distance / sigma - 1).clamp(min=0).square() / 4) * (distance <= REACH * sigma)
        self.bump = bump.to(like)[self.near].unsqueeze(2)

    def __call__(self, numbers: Float[Tensor, "n i j"]) -> Float[Tensor, "n r c"]:
        """The masks, in [0, 1] as the numbers are."""
        return torch.cat([self._masks(part) for part in numbers.split(self._together)])

    def pull(self, numbers: Float[Tensor, "n i j"], slope: Float[Tensor, "n r c"]) -> Float[Tensor, "n i j"]:
        """The gradient to the numbers, from the gradient to their masks; a few masks at a time."""
        found = []
        for part, above in zip(numbers.split(self._together), slope.split(self._together), strict=True):
            leaf = part.detach().requires_grad_()
            with torch.enable_grad():
                found.append(torch.autograd.grad(self._masks(leaf), leaf, above)[0])
        return torch.cat(found)

    @property
    def _together(self) -> int:
        return max(1, _AT_ONCE // (len(self.near) * math.prod(self.grid) * math.prod(self.steps)))

    def _masks(self, numbers: Float[Tensor, "n i j"]) -> Float[Tensor, "n r c"]:
        down, across = self.reach
        around = F.pad(numbers.unsqueeze(1), (across, across, down, down), mode="replicate")
        near = F.unfold(around, (2 * down + 1, 2 * across + 1))[:, self.near]
        products = near.unsqueeze(2) * self.bump
        cells = (products * (products / self.temperature).softmax(dim=1)).sum(dim=1)
        blocks = cells.view(-1, *self.steps, *self.grid).permute(0, 3, 1, 4, 2)
        whole = blocks.reshape(-1, *(n * every for n, every in zip(self.grid, self.steps, strict=True)))
        return whole[:, : self.shape[0], : self.shape[1]]


def _distances(every: int, cell: float, reach: int) -> Float[Tensor, "k p"]:
    """On one axis, from the middle of each block in reach to each cell of a block, in pixels."""
    cells = (torch.arange(every, dtype=torch.float64) - (every - 1) / 2) * cell
    blocks = torch.arange(-reach, reach + 1, dtype=torch.float64) * every * cell
    return cells - blocks.unsqueeze(1)
