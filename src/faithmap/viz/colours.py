"""From the raw values of a heatmap to colours that show them.

A picture needs values in [0, 1]. They come from the heatmap alone, never from the photograph, by one rule
(:func:`limits`). The lower end is the lowest value, or 0 where the map has values of both signs, for what speaks against
the score is not important for it. The upper end is the value that only the highest 0.5 % of what lies above the lower end
exceed, so that one outlier does not darken all the rest, and the few hot cells of a sparse map keep their order. A map
that ranks nothing has no such ends, and is refused.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import colormaps
from torch import Tensor

COLORMAP = "plasma"
"""Perceptually uniform, told apart with every common colour blindness, and never near white, grey or black: on any
photograph its colours stand out."""

CLIPPED = 0.005
"""The share of the values over the lower end of the scale that may lie above its upper end."""

_ROUNDING = 16
"""In machine epsilons of its largest value: how much a constant map may vary after it was resampled."""


def flaw(heatmap: Float[Tensor, "*shape"]) -> str | None:
    """Why a heatmap ranks nothing, in words for the reader of a picture; None where it does rank.

    >>> flaw(torch.tensor([0.0, 1.0])), flaw(torch.zeros(2))
    (None, 'one value everywhere: ranks nothing')
    """
    if not bool(heatmap.isfinite().all()):
        return "values that are not finite: ranks nothing"
    if heatmap.numel() == 0:
        return "no values: ranks nothing"
    low, high = float(heatmap.detach().min()), float(heatmap.detach().max())
    if high - low <= _ROUNDING * torch.finfo(heatmap.dtype).eps * max(abs(low), abs(high)):
        return "one value everywhere: ranks nothing"
    return None


def limits(heatmap: Float[Tensor, "*shape"]) -> tuple[float, float]:
    """The values that are drawn as 0 and as 1; see the module's rule. NaN, where a model did not look, has no say.

    >>> limits(torch.tensor([-1.0, 0.5, 2.0, torch.nan]))
    (0.0, 2.0)

    Raises:
        ValueError: for a map that ranks nothing.
    """
    values = heatmap.detach()[~heatmap.isnan()]
    problem = flaw(values)
    if problem is not None:
        raise ValueError(f"the heatmap holds {problem}")
    low, high = float(values.min()), float(values.max())
    low = 0.0 if low < 0 < high else low
    above = values[values > low].sort().values
    return low, float(above[math.ceil((1 - CLIPPED) * len(above)) - 1])


def scaled(heatmap: Float[Tensor, "*shape"], ends: tuple[float, float] | None = None) -> Float[Tensor, "*shape"]:
    """The heatmap between 0 and 1, for display only; NaN stays NaN.

    Args:
        heatmap: raw values.
        ends: the values that become 0 and 1, to draw several maps alike; None for the map's own :func:`limits`.
    """
    low, high = limits(heatmap) if ends is None else ends
    if not low < high:
        raise ValueError(f"the ends of the scale are {low} and {high}; give two finite values, the lower first")
    return ((heatmap - low) / (high - low)).clamp(0, 1)


def colourise(values: Float[Tensor, "n h w"], colormap: str = COLORMAP) -> Float[Tensor, "n 3 h w"]:
    """RGB of values in [0, 1], with matplotlib's rounding, so that its colour bars fit.

    Raises:
        ValueError: for a colormap that matplotlib does not have.
    """
    if colormap not in colormaps:
        raise ValueError(f"colormap {colormap!r} is unknown; give one that matplotlib has, such as {COLORMAP!r} or 'cividis'")
    chosen = colormaps[colormap]
    table = torch.from_numpy(chosen(np.arange(chosen.N))[:, :3]).to(values)
    index = (values * chosen.N).long().clamp(0, chosen.N - 1)
    return table[index].movedim(-1, -3)
