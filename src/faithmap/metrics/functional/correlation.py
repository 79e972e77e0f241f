"""How alike two maps rank their cells."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rank_correlation(first: Float[Tensor, "n r c"], second: Float[Tensor, "n r c"]) -> Float[Tensor, " n"]:
    """Spearman's rank correlation of two maps of each image; equal cells share their mean rank.

    >>> rank_correlation(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[9.0, 4.0, 1.0]]]))
    tensor([-1.])

    Raises:
        ValueError: for maps of unlike shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"the maps have shapes {tuple(first.shape)} and {tuple(second.shape)}; give them at one resolution")
    one, other = (_mean_ranks(maps.flatten(1)) for maps in (first, second))
    correlation: Tensor = (one * other).sum(dim=1) / (one.norm(dim=1) * other.norm(dim=1))
    return correlation.to(first.dtype)


def _mean_ranks(values: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Ranks around their mean, so that a constant row is all 0."""
    ordered = values.sort(dim=1).values
    lower, upper = (torch.searchsorted(ordered, values.contiguous(), side=side) for side in ("left", "right"))
    return (lower + upper - values.shape[1]).double()
