r"""Complexity and sparseness: does a heatmap rest on a few cells, or is it spread over all of them?

With the shares :math:`p_i = |\Phi_i| / \sum_j |\Phi_j|` of the N cells,

.. math:: H = -\frac{1}{\ln N} \sum_i p_i \ln p_i, \qquad
          G = 1 - 2 \sum_{k=1}^{N} p_{(k)} \frac{N - k + \tfrac12}{N}, \quad p_{(1)} \le \dots \le p_{(N)}

H is the entropy of Bhatt et al. (2020), divided by the largest that N cells can have. G is the Gini index of Hurley and
Rickard (2009), which Chalasani et al. (2020) used for heatmaps: 1 - 1/N at the most, and not divided by that.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.explanation import Explanation


def entropy(heatmaps: Explanation | Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
    """Entropy of each map in [0, 1]: 1 where all cells are alike, 0 where one cell holds all; low is simple.

    Of an Explanation the cells themselves are measured. A map of zeros has cells that are all alike, and scores 1.

    >>> entropy(torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]], [[0.5, -0.5], [0.0, 0.0]]]))
    tensor([1.0000, 0.0000, 0.5000])

    Raises:
        ValueError: for maps that are not (images, rows, columns), have a single cell, or hold NaN.
    """
    shares, dtype = _shares(heatmaps)
    nats: Tensor = torch.special.entr(shares).sum(dim=1)
    return (nats / math.log(shares.shape[1])).clamp(0, 1).to(dtype)


def gini(heatmaps: Explanation | Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
    """Gini index of each map, 0 where all cells are alike, 1 - 1/N where one of N cells holds all; high is sparse.

    Of an Explanation the cells themselves are measured. A map of zeros has cells that are all alike, and scores 0.

    >>> gini(torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]], [[0.5, -0.5], [0.0, 0.0]]]))
    tensor([0.0000, 0.7500, 0.5000])

    Raises:
        ValueError: for maps that are not (images, rows, columns), have a single cell, or hold NaN.
    """
    shares, dtype = _shares(heatmaps)
    count = shares.shape[1]
    weights = 2 * torch.arange(1, count + 1, device=shares.device, dtype=shares.dtype) - count - 1
    return ((shares.sort(dim=1).values * weights).sum(dim=1) / count).clamp(0, 1).to(dtype)


def _shares(heatmaps: Explanation | Float[Tensor, "n r c"]) -> tuple[Float[Tensor, "n cells"], torch.dtype]:
    """What part of each map's sum every cell holds, in double precision; and the precision of the answer."""
    maps = heatmaps.heatmap if isinstance(heatmaps, Explanation) else heatmaps
    if maps.ndim != 3 or maps[0:1].numel() < 2 or not maps.is_floating_point():
        given = f"heatmaps have shape {tuple(maps.shape)} and dtype {str(maps.dtype).removeprefix('torch.')}"
        raise ValueError(f"{given}; give floating point (images, rows, columns), of more than one cell")
    if not bool(maps.isfinite().all()):
        raise ValueError("heatmaps hold NaN or infinite values, of which there are no shares")
    sizes = maps.detach().flatten(1).double().abs()
    largest = sizes.amax(dim=1, keepdim=True)
    sizes = torch.where(largest > 0, sizes / largest, 1.0)
    return sizes / sizes.sum(dim=1, keepdim=True), torch.promote_types(maps.dtype, torch.float32)
