r"""Laplace's equation with holes, for many masks at once: conjugate gradients, preconditioned by a multigrid cycle.

A free pixel equals the weighted mean of its neighbours plus the right-hand side :math:`b`; any other pixel is 0:

.. math:: (A x)_i = \sum_{j \in N(i)} w_{ij} (x_i - x_j) = b_i \quad (i \text{ free}),

with :math:`w` 2 along edges and 1 along diagonals: integers, so that there is no rounding for a wide hole to amplify.
Neighbours outside the image do not count, so that :math:`A` is symmetric, and positive definite if at least one pixel of the
image is not free. Conjugate gradients alone need as many steps as a hole is wide, several hundreds at 224 x 224. A multigrid
cycle smooths on the image's grid, corrects on a grid of half as many rows and columns, and so on down to a single cell; with
it, 5 to 12 steps suffice for any hole. It also estimates the error, :math:`z \approx A^{-1} r`, so that the tolerance applies
to the solution and not to the residual.

- The coarse operators are Galerkin's, :math:`P^T A P` with bilinear :math:`P` restricted to the free pixels: nine weights per
  cell.
- The smoother is Jacobi's with :math:`\max(a_{ii}, 0.55 \sum_j |a_{ij}|)` in place of :math:`a_{ii}`. By Gershgorin's theorem
  no eigenvalue then exceeds 1.82 < 2, and the cycle is positive definite for every mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

GERSHGORIN = 0.55
"""The smoother converges above 1/2; far from holes Jacobi's weight is then 0.91."""


@dataclass(frozen=True, eq=False)
class GridLevel:
    """A grid: its free cells, the operator on them, and the inverse of the smoother's diagonal, 0 elsewhere."""

    free: Float[Tensor, "m 1 h w"]
    operator: Callable[[Float[Tensor, "m k h w"]], Float[Tensor, "m k h w"]]
    inverse: Float[Tensor, "m 1 h w"]


def solve(
    free: Bool[Tensor, "m h w"], b: Float[Tensor, "m c h w"], *, tolerance: float, max_iterations: int
) -> Float[Tensor, "m c h w"]:
    """Solve A x = b for every mask and channel; each stops separately, so that no solution depends on another's.

    Args:
        free: the unknown pixels; at least one pixel of every mask is not free.
        b: 0 for pixels that are not free.
        tolerance: largest error of x, in its own units.
        max_iterations: maximum number of iterations.

    Raises:
        RuntimeError: if the tolerance is not reached.
    """
    levels = hierarchy(free, b.dtype)
    x, r = torch.zeros_like(b), b
    z = cycle(levels, r)
    p, rz = z, _dot(r, z)
    for _ in range(max_iterations):
        error = z.abs().amax(dim=(2, 3), keepdim=True)
        active = ~(error < tolerance)  # NaN stays active, and raises below
        if not bool(active.any()):
            return x
        q = levels[0].operator(p)
        step = _ratio(rz, _dot(p, q), active)
        x, r = torch.addcmul(x, step, p), torch.addcmul(r, step, q, value=-1)
        z = cycle(levels, r)
        previous, rz = rz, _dot(r, z)
        p = torch.addcmul(z, _ratio(rz, previous, active), p)
    raise RuntimeError(
        f"the error is about {float(error.max()):.2g} after {max_iterations} iterations, above the tolerance of "
        f"{tolerance:.2g}; give more iterations or a larger tolerance"
    )


def hierarchy(free: Bool[Tensor, "m h w"], dtype: torch.dtype) -> list[GridLevel]:
    """The image's grid, then each of half as many rows and columns, down to a single cell."""
    levels = [finest(free.unsqueeze(1).to(dtype))]
    while max(levels[-1].free.shape[-2:]) > 1:
        levels.append(coarser(levels[-1]))
    return levels


def neighbours(x: Float[Tensor, "m k h w"]) -> Float[Tensor, "m k h w"]:
    """The weighted sum of each pixel's neighbours inside the image: 2 along edges, 1 along diagonals.

    >>> neighbours(torch.ones(1, 1, 3, 4))[0, 0]
    tensor([[ 5.,  8.,  8.,  5.],
            [ 8., 12., 12.,  8.],
            [ 5.,  8.,  8.,  5.]])
    """
    padded = F.pad(x, (1, 1, 1, 1))
    rows = (padded[..., :-2, :] + padded[..., 2:, :]).add_(padded[..., 1:-1, :], alpha=2)
    return (rows[..., :-2] + rows[..., 2:]).add_(rows[..., 1:-1], alpha=2).sub_(x, alpha=4)


def finest(free: Float[Tensor, "m 1 h w"]) -> GridLevel:
    """The image's grid."""
    diagonal = neighbours(torch.ones_like(free[:1]))
    inverse = free / diagonal.maximum(GERSHGORIN * (diagonal + neighbours(free))).clamp(min=1)
    return GridLevel(free, lambda x: (diagonal * x).sub_(neighbours(x)).mul_(free), inverse)


def coarser(fine: GridLevel) -> GridLevel:
    """The grid of every second row and column.

    The operator's weights are obtained by applying it to nine combs, each of every third cell in both directions: no cell has
    two teeth of one comb among its neighbours.
    """
    size = (fine.free.shape[-2], fine.free.shape[-1])
    rows, columns = (torch.arange((length + 1) // 2, device=fine.free.device) for length in size)
    comb = 3 * (rows % 3).unsqueeze(1) + columns % 3
    combs = (comb == torch.arange(9, device=comb.device).view(9, 1, 1)).to(fine.free.dtype).unsqueeze(0)
    responses = down(fine.operator(fine.free * up(combs, size)))
    offsets = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    teeth = torch.stack([3 * ((rows + i) % 3).unsqueeze(1) + (columns + j) % 3 for i, j in offsets])
    weights = responses.gather(1, teeth.expand(len(responses), -1, -1, -1))
    diagonal = weights[:, 4:5]
    free = diagonal > 0
    inverse = torch.where(free, 1 / diagonal.maximum(GERSHGORIN * weights.abs().sum(dim=1, keepdim=True)), 0)
    return GridLevel(free.to(weights.dtype), lambda x: _weighted(weights, x), inverse)


def cycle(levels: list[GridLevel], r: Float[Tensor, "m k h w"]) -> Float[Tensor, "m k h w"]:
    """One V-cycle from 0: smooth, correct on the coarser grids, smooth; a symmetric approximation of the inverse of A."""
    level, *coarse = levels
    x = level.inverse * r
    if not coarse:
        return x
    residual = r - level.operator(x)  # like r, 0 for cells that are not free
    x += up(cycle(coarse, down(residual)), (r.shape[-2], r.shape[-1])).mul_(level.free)
    return x.addcmul_(level.inverse, r - level.operator(x))


def up(x: Float[Tensor, "m k i j"], size: tuple[int, int]) -> Float[Tensor, "m k h w"]:
    """Interpolate between the cells, which are the even rows and columns of the finer grid; constant beyond the last.

    >>> up(torch.tensor([[[[1.0, 3.0]]]]), (1, 4))
    tensor([[[[1., 2., 3., 3.]]]])
    """
    return _along(_along(x, size[0]).mT, size[1]).mT


def down(x: Float[Tensor, "m k h w"]) -> Float[Tensor, "m k i j"]:
    """The transpose of :func:`up`."""
    return _across(_across(x).mT).mT


def _along(x: Float[Tensor, "m k i j"], length: int) -> Float[Tensor, "m k h j"]:
    following = torch.cat([x[..., 1:, :], x[..., -1:, :]], dim=-2)[..., : length // 2, :]
    fine = x.new_empty(*x.shape[:-2], length, x.shape[-1])
    fine[..., ::2, :] = x
    fine[..., 1::2, :] = (x[..., : length // 2, :] + following) / 2
    return fine


def _across(x: Float[Tensor, "m k h j"]) -> Float[Tensor, "m k i j"]:
    coarse, half = x[..., ::2, :].clone(), x[..., 1::2, :] / 2
    between = coarse.shape[-2] - 1
    coarse[..., : half.shape[-2], :] += half
    coarse[..., 1:, :] += half[..., :between, :]
    if half.shape[-2] > between:
        coarse[..., -1, :] += half[..., -1, :]
    return coarse


def _weighted(weights: Float[Tensor, "m 9 h w"], x: Float[Tensor, "m k h w"]) -> Float[Tensor, "m k h w"]:
    padded, (height, width) = F.pad(x, (1, 1, 1, 1)), x.shape[-2:]
    total = torch.zeros_like(x)
    for k in range(9):
        row, column = divmod(k, 3)
        total.addcmul_(weights[:, k : k + 1], padded[..., row : row + height, column : column + width])
    return total


def _dot(a: Float[Tensor, "m k h w"], b: Float[Tensor, "m k h w"]) -> Float[Tensor, "m k 1 1"]:
    return (a * b).sum(dim=(2, 3), keepdim=True)


def _ratio(
    a: Float[Tensor, "m k 1 1"], b: Float[Tensor, "m k 1 1"], active: Bool[Tensor, "m k 1 1"]
) -> Float[Tensor, "m k 1 1"]:
    return torch.where(active, a / b, 0)
