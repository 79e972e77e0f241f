r"""Complexity and sparseness: whether the mass of a heatmap is concentrated in few cells or spread over all of them.

With the shares :math:`p_i = |\Phi_i| / \sum_j |\Phi_j|` of the N cells,

.. math:: H = -\frac{1}{\ln N} \sum_i p_i \ln p_i, \qquad
          G = 1 - 2 \sum_{k=1}^{N} p_{(k)} \frac{N - k + \tfrac12}{N}, \quad p_{(1)} \le \dots \le p_{(N)}

H is the entropy of Bhatt et al. (2020), divided by the maximum for N cells. G is the Gini index of Hurley and Rickard (2009),
which Chalasani et al. (2020) used for heatmaps; its maximum is 1 - 1/N, by which it is not divided.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.explanation import Explanation


def entropy(heatmaps: Explanation | Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
    """Entropy of each map in [0, 1]: 1 if all cells are equal, 0 if one cell has all the mass; low is simple.

    A map of zeros has equal cells, and its entropy is 1.

    Args:
        heatmaps: a tensor, or an Explanation, whose own cells are measured; at least two cells.

    >>> entropy(torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]], [[0.5, -0.5], [0.0, 0.0]]]))
    tensor([1.0000, 0.0000, 0.5000])

    Raises:
        ValueError: for maps that are not (images, rows, columns), have a single cell, or contain NaN.
    """
    shares, dtype = _shares(heatmaps)
    nats: Tensor = torch.special.entr(shares).sum(dim=1)
    return (nats / math.log(shares.shape[1])).clamp(0, 1).to(dtype)


def gini(heatmaps: Explanation | Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
    """Gini index of each map: 0 if all cells are equal, 1 - 1/N if one of N cells has all the mass; high is sparse.

    A map of zeros has equal cells, and its Gini index is 0.

    Args:
        heatmaps: a tensor, or an Explanation, whose own cells are measured; at least two cells.

    >>> gini(torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]], [[0.5, -0.5], [0.0, 0.0]]]))
    tensor([0.0000, 0.7500, 0.5000])

    Raises:
        ValueError: for maps that are not (images, rows, columns), have a single cell, or contain NaN.
    """
    shares, dtype = _shares(heatmaps)
    count = shares.shape[1]
    weights = 2 * torch.arange(1, count + 1, device=shares.device, dtype=shares.dtype) - count - 1
    return ((shares.sort(dim=1).values * weights).sum(dim=1) / count).clamp(0, 1).to(dtype)


def _shares(heatmaps: Explanation | Float[Tensor, "n r c"]) -> tuple[Float[Tensor, "n cells"], torch.dtype]:
    """Share of each cell in its map's absolute sum, in double precision; and the precision of the result."""
    maps = heatmaps.heatmap if isinstance(heatmaps, Explanation) else heatmaps
    if maps.ndim != 3 or maps[0:1].numel() < 2 or not maps.is_floating_point():
        given = f"heatmaps have shape {tuple(maps.shape)} and dtype {str(maps.dtype).removeprefix('torch.')}"
        raise ValueError(f"{given}; give floating point (images, rows, columns), of more than one cell")
    if not bool(maps.isfinite().all()):
        raise ValueError("heatmaps contain NaN or infinite values, which have no share")
    sizes = maps.detach().flatten(1).double().abs()
    largest = sizes.amax(dim=1, keepdim=True)
    sizes = torch.where(largest > 0, sizes / largest, 1.0)
    return sizes / sizes.sum(dim=1, keepdim=True), torch.promote_types(maps.dtype, torch.float32)
