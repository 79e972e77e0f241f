r"""The area of a mask, as a constraint on its sorted cells (Fong, Patrick and Vedaldi, ICCV 2019).

.. math:: R_a(m) = \frac{1}{|\Omega|} \, | vecsort(m) - r_a |^2, \qquad r_a = (0, \dots, 0, 1, \dots, 1)

with :math:`a |\Omega|` ones: 0 for a mask of zeros and ones with just that area. A cell is drawn to the entry of the template
at its rank. The paper has the sum; with the mean, a weight keeps its meaning when the resolution changes.

Cells that are equal have no ranks of their own: they share the mean of their entries, so that neither the order of the memory
nor rounding decides which of them is to grow.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

EQUAL = 1e-6
"""Cells whose values differ by no more are equal."""


def area_penalty(masks: Float[Tensor, "n r c"], areas: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """R_a of each mask.

    >>> area_penalty(torch.tensor([[[1.0, 0.0, 0.0, 0.5]]]), torch.tensor([0.5]))
    tensor([0.0625])
    """
    ordered = masks.flatten(1).sort(dim=1).values
    ranks = torch.arange(ordered.shape[1], device=masks.device)
    return (ordered - (ranks >= _zeros(masks, areas)).to(masks)).square().mean(dim=1)


def area_gradient(masks: Float[Tensor, "n r c"], areas: Float[Tensor, " n"]) -> Float[Tensor, "n r c"]:
    r"""Of each mask's own R_a, :math:`2 (m - r) / |\Omega|` with r the entry at a cell's rank.

    >>> area_gradient(torch.tensor([[[1.0, 0.5], [0.5, 0.0]]]), torch.tensor([0.5]))
    tensor([[[0., 0.],
             [0., 0.]]])
    """
    cells = masks.flatten(1)
    ordered = cells.sort(dim=1).values
    low = torch.searchsorted(ordered, cells - EQUAL)
    high = torch.searchsorted(ordered, cells + EQUAL, right=True)
    entries = (high - low.maximum(_zeros(masks, areas))).clamp(min=0).to(masks) / (high - low)
    return (2 * (cells - entries) / cells.shape[1]).view_as(masks)


def _zeros(masks: Float[Tensor, "n r c"], areas: Float[Tensor, " n"]) -> Float[Tensor, "n 1"]:
    """How many entries of the template are 0."""
    cells = masks[0].numel()
    return cells - (areas * cells).round().long().clamp(min=1).unsqueeze(1)
