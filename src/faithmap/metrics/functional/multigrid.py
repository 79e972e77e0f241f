r"""Laplace's equation with holes, for many masks at once: conjugate gradients, preconditioned by a multigrid cycle.

A pixel that is free equals the weighted mean of its neighbours plus what :math:`b` asks for, a pixel that is not is 0:

.. math:: (A x)_i = \sum_{j \in N(i)} w_{ij} (x_i - x_j) = b_i \quad (i \text{ free}),

with :math:`w` 2 along edges and 1 along diagonals: whole numbers, so that nothing is rounded that a wide hole would amplify.
Neighbours outside the image do not count, so that :math:`A` is symmetric, and positive definite as long as one pixel of the
image is not free. Conjugate gradients alone need as many steps as a hole is wide, several hundreds at 224 x 224. A multigrid
cycle smooths on the image's grid, corrects on a grid of half as many rows and columns, and so on down to a single cell; with
it, 5 to 12 steps do whatever the hole. It also estimates the error itself, :math:`z \approx A^{-1} r`, so that the tolerance
is one of the solution and not of the residual.

- The coarse operators are Galerkin's, :math:`P^T A P` with bilinear :math:`P` cut to the free pixels: nine weights a cell.
- The smoother is Jacobi's with :math:`\max(a_{ii}, 0.55 \sum_j |a_{ij}|)` in the place of :math:`a_{ii}`. By Gershgorin's
  theorem no eigenvalue then exceeds 1.82 < 2, and the cycle is positive definite for every mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

GERSHGORIN = 0.55
"""Above 1/2 the smoother converges; in the open it makes Jacobi's weight 0.91."""


@dataclass(frozen=True, eq=False)
class Level:
    """A grid: which of its cells are free, the operator on them, and the inverse of the smoother's diagonal, 0 elsewhere."""

    free: Float[Tensor, "m 1 h w"]
    operator: Callable[[Float[Tensor, "m k h w"]], Float[Tensor, "m k h w"]]
    inverse: Float[Tensor, "m 1 h w"]


def solve(
    free: Bool[Tensor, "m h w"], b: Float[Tensor, "m c h w"], *, tolerance: float, max_iterations: int
) -> Float[Tensor, "m c h w"]:
    """Solve A x = b for every mask and channel; each stops by itself, so that none has a say in another's solution.

    Args:
        free: the unknowns; in every mask at least one pixel has to be none.
        b: 0 where a pixel is not free.
        tolerance: of the largest error in x, in its own units.
        max_iterations: after which to give up.

    Raises:
        RuntimeError: if the tolerance is not met by then.
    """
    levels = hierarchy(free, b.dtype)
    x, r = torch.zeros_like(b), b
    z = cycle(levels, r)
    p, rz = z, _dot(r, z)
    for _ in range(max_iterations):
        error = z.abs().amax(dim=(2, 3), keepdim=True)
        going = ~(error < tolerance)  # NaN goes on, and is told below
        if not bool(going.any()):
            return x
        q = levels[0].operator(p)
        step = _ratio(rz, _dot(p, q), going)
        x, r = torch.addcmul(x, step, p), torch.addcmul(r, step, q, value=-1)
        z = cycle(levels, r)
        before, rz = rz, _dot(r, z)
        p = torch.addcmul(z, _ratio(rz, before, going), p)
    raise RuntimeError(
        f"an error of about {float(error.max()):.2g} is left after {max_iterations} iterations, above the tolerance of "
        f"{tolerance:.2g}; give more iterations or a larger tolerance"
    )


def hierarchy(free: Bool[Tensor, "m h w"], dtype: torch.dtype) -> list[Level]:
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


def finest(free: Float[Tensor, "m 1 h w"]) -> Level:
    """The image's grid."""
    diagonal = neighbours(torch.ones_like(free[:1]))
    inverse = free / diagonal.maximum(GERSHGORIN * (diagonal + neighbours(free))).clamp(min=1)
    return Level(free, lambda x: (diagonal * x).sub_(neighbours(x)).mul_(free), inverse)


def coarser(fine: Level) -> Level:
    """The grid of every second row and column.

    The operator is read off its answers to nine combs, each of every third cell in both directions: no cell has two teeth of
    one comb among its neighbours.
    """
    size = (fine.free.shape[-2], fine.free.shape[-1])
    rows, columns = (torch.arange((length + 1) // 2, device=fine.free.device) for length in size)
    comb = 3 * (rows % 3).unsqueeze(1) + columns % 3
    combs = (comb == torch.arange(9, device=comb.device).view(9, 1, 1)).to(fine.free.dtype).unsqueeze(0)
    answers = down(fine.operator(fine.free * up(combs, size)))
    offsets = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    teeth = torch.stack([3 * ((rows + i) % 3).unsqueeze(1) + (columns + j) % 3 for i, j in offsets])
    weights = answers.gather(1, teeth.expand(len(answers), -1, -1, -1))
    diagonal = weights[:, 4:5]
    free = diagonal > 0
    inverse = torch.where(free, 1 / diagonal.maximum(GERSHGORIN * weights.abs().sum(dim=1, keepdim=True)), 0)
    return Level(free.to(weights.dtype), lambda x: _weighted(weights, x), inverse)


def cycle(levels: list[Level], r: Float[Tensor, "m k h w"]) -> Float[Tensor, "m k h w"]:
    """One V-cycle from 0: smooth, correct on the coarser grids, smooth; symmetric, and about the inverse of A."""
    level, *coarse = levels
    x = level.inverse * r
    if not coarse:
        return x
    rest = r - level.operator(x)  # 0 where not free, as r is
    x += up(cycle(coarse, down(rest)), (r.shape[-2], r.shape[-1])).mul_(level.free)
    return x.addcmul_(level.inverse, r - level.operator(x))


def up(x: Float[Tensor, "m k i j"], size: tuple[int, int]) -> Float[Tensor, "m k h w"]:
    """Bilinear between the cells, which are the even rows and columns of the finer grid; constant beyond the last.

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
    a: Float[Tensor, "m k 1 1"], b: Float[Tensor, "m k 1 1"], going: Bool[Tensor, "m k 1 1"]
) -> Float[Tensor, "m k 1 1"]:
    return torch.where(going, a / b, 0)
