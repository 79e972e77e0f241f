"""Overlay: a heatmap's values as colours, blended into the original image.

Colours need values in [0, 1]. Their scale depends on the heatmap only, never on the image (:func:`limits`). The lower end is
the lowest value, or 0 if the map has values of both signs, because evidence against the score is not importance for it. The
upper end is the value that only the highest 0.5 % of the values above the lower end exceed, so that one outlier does not darken
the rest, and the few hot cells of a sparse map keep their order. A map without an order of its cells has no such ends, and is
refused.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import colormaps
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.geometry import Geometry
from faithmap.warning_types import renamed_parameters

COLORMAP = "plasma"
"""Perceptually uniform, distinguishable with every common colour blindness, and never close to white, grey or black."""

CLIPPED = 0.005
"""Share of the values above the lower end of the scale that may lie above its upper end."""

OPACITY = 0.8
"""Opacity of the colours at the highest value; pixels with lower values are more transparent."""

SATURATION = 0.3
"""Saturation of the image under the heatmap, so that yellow parts of the image differ from the colours of the map."""

PALENESS = 2 / 3
"""How far towards white the part of the image outside the model's window is moved."""

_ROUNDING = 16
"""How much a constant map may vary after resampling, in machine epsilons of its largest value."""


def flaw(heatmap: Float[Tensor, "*shape"]) -> str | None:
    """Why the cells of a heatmap have no order, as a text for a figure; None if they have one.

    Args:
        heatmap: values of one map, in any shape.

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
    """The ends of the colour scale, by the rule of the module; NaN, outside the model's window, is ignored.

    Args:
        heatmap: values of one map, in any shape.

    >>> limits(torch.tensor([-1.0, 0.5, 2.0, torch.nan]))
    (0.0, 2.0)

    Raises:
        ValueError: for a map whose cells have no order.
    """
    values = heatmap.detach()[~heatmap.isnan()]
    problem = flaw(values)
    if problem is not None:
        raise ValueError(f"the heatmap has {problem}")
    low, high = float(values.min()), float(values.max())
    low = 0.0 if low < 0 < high else low
    above = values[values > low].sort().values
    return low, float(above[math.ceil((1 - CLIPPED) * len(above)) - 1])


def scaled(heatmap: Float[Tensor, "*shape"], ends: tuple[float, float] | None = None) -> Float[Tensor, "*shape"]:
    """The heatmap scaled to [0, 1], for display only; NaN stays NaN.

    >>> scaled(torch.tensor([0.0, 1.0, 4.0]), ends=(0.0, 2.0))
    tensor([0.0000, 0.5000, 1.0000])

    Args:
        heatmap: raw values, in any shape.
        ends: the values that become 0 and 1, to draw several maps on one scale; None for the map's own :func:`limits`.

    Raises:
        ValueError: for ends that are not two finite values in ascending order.
    """
    low, high = limits(heatmap) if ends is None else ends
    if not low < high:
        raise ValueError(f"the ends of the scale are {low} and {high}; give two finite values, the lower first")
    return ((heatmap - low) / (high - low)).clamp(0, 1)


def colourise(values: Float[Tensor, "n h w"], colormap: str = COLORMAP) -> Float[Tensor, "n 3 h w"]:
    """RGB of values in [0, 1], with matplotlib's rounding, as in its colour bars.

    Args:
        values: maps scaled to [0, 1]; other values get the colour of the nearer end.
        colormap: name of a colormap of matplotlib.

    >>> colourise(torch.zeros(1, 1, 1), "gray").flatten()
    tensor([0., 0., 0.])

    Raises:
        ValueError: for a colormap that matplotlib does not have.
    """
    if colormap not in colormaps:
        raise ValueError(f"colormap {colormap!r} is unknown; give one that matplotlib has, such as {COLORMAP!r} or 'cividis'")
    chosen = colormaps[colormap]
    table = torch.from_numpy(chosen(np.arange(chosen.N))[:, :3]).to(values)
    index = (values * chosen.N).long().clamp(0, chosen.N - 1)
    return table[index].movedim(-1, -3)


def overlay(
    photo: Float[Tensor, "1 3 h w"],
    heatmap: Float[Tensor, "1 h w"],
    *,
    opacity: float = OPACITY,
    saturation: float = SATURATION,
    colormap: str = COLORMAP,
    ends: tuple[float, float] | None = None,
) -> Float[Tensor, "1 3 h w"]:
    r"""Blend the heatmap's colours into the image; the more important a pixel, the more opaque its colour.

    .. math:: O = (1 - a v) P + a v \, colour(v)

    with :math:`a` the opacity, :math:`v` the heatmap scaled to [0, 1] and :math:`P` the image with reduced saturation. Pixels
    where the heatmap is NaN lie outside the model's window, and become grey and pale.

    >>> tuple(overlay(torch.rand(1, 3, 8, 8), torch.rand(1, 8, 8)).shape)
    (1, 3, 8, 8)

    Args:
        photo: the original image, in [0, 1], RGB.
        heatmap: raw values, one per pixel of the image, as :func:`placed` returns them.
        opacity: opacity of the heatmap, from 0 to 1.
        saturation: from 0, a grey image, to 1, its own colours.
        colormap: name of a colormap of matplotlib.
        ends: the values of the lower and the upper end of the scale; None for :func:`faithmap.viz.limits`.

    Raises:
        ValueError: for shapes that do not fit, settings out of their range, or a heatmap whose cells have no order.
    """
    if photo.ndim != 4 or photo.shape[:2] != (1, 3) or heatmap.shape != photo[:, 0].shape:
        shapes = f"the photo has shape {tuple(photo.shape)} and the heatmap {tuple(heatmap.shape)}"
        raise ValueError(f"{shapes}; give (1, 3, height, width) and (1, height, width)")
    for name, value in (("opacity", opacity), ("saturation", saturation)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; give 0 to 1")
    values = scaled(heatmap, ends).to(photo).unsqueeze(1)
    grey = _grey(photo)
    faded = torch.lerp(grey, photo, saturation)
    heated = torch.lerp(faded, colourise(values[:, 0].nan_to_num(0), colormap), opacity * values)
    return torch.where(values.isnan(), torch.lerp(grey, torch.ones_like(grey), PALENESS), heated)


@renamed_parameters(why="explanation")
def placed(
    explanation: Explanation, photo: Float[Tensor, "n c H W"], geometry: Geometry | None = None
) -> Float[Tensor, "n H W"]:
    """The raw heatmap with one value per pixel of the original image; NaN outside the model's window.

    >>> explanation = Explanation(torch.rand(1, 7, 7), (32, 32))
    >>> tuple(placed(explanation, torch.rand(1, 3, 32, 48), Geometry(crop=(32, 32))).shape)
    (1, 32, 48)

    Args:
        explanation: explanation of the model's input.
        photo: the original image.
        geometry: resize and crop from the original image to the model's input; None if the original image was explained.

    Raises:
        ValueError: if the geometry does not map the original image to the size of the explained image.
    """
    geometry = geometry or Geometry()
    size = (photo.shape[-2], photo.shape[-1])
    view = geometry.crop or geometry.resized(size)
    explained = explanation.image_size
    if tuple(view) != tuple(explained):
        raise ValueError(
            f"the photo of {size[0]} x {size[1]} pixels becomes an input of {view[0]} x {view[1]}, but images of "
            f"{explained[0]} x {explained[1]} were explained; give the photo and the geometry of the model"
        )
    return geometry.place(explanation.at().detach(), size)


def _grey(photo: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """A grey image of the same luma, by the weights of ITU-R BT.601, with three channels."""
    luma = photo.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (photo * luma).sum(dim=1, keepdim=True).expand_as(photo)
