"""A heatmap on the photograph that it is about."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.geometry import Geometry
from faithmap.viz.colours import COLORMAP, colourise, scaled

OPACITY = 0.8
"""Of the most important place; less important ones let more of the photograph through."""

SATURATION = 0.3
"""What is left of the photograph's own colours, so that a yellow flower is not taken for heat."""

PALENESS = 2 / 3
"""How far towards white the part of a photograph is moved that the model did not see."""


def overlay(
    photo: Float[Tensor, "1 3 h w"],
    heatmap: Float[Tensor, "1 h w"],
    *,
    opacity: float = OPACITY,
    saturation: float = SATURATION,
    colormap: str = COLORMAP,
    ends: tuple[float, float] | None = None,
) -> Float[Tensor, "1 3 h w"]:
    r"""Blend the heatmap's colours into the photograph, the stronger the more important the place.

    .. math:: O = (1 - a v) P + a v \, colour(v)

    with :math:`a` the opacity, :math:`v` the heatmap scaled to [0, 1] and :math:`P` the photograph with its colours
    faded. Where the heatmap is NaN the model never looked, and the photograph is grey and pale.

    Args:
        photo: in [0, 1], RGB.
        heatmap: raw values, one for each pixel of the photograph, as :func:`placed` makes them.
        opacity: from 0 to 1.
        saturation: from 0, a grey photograph, to 1, its own colours.
        colormap: one of matplotlib's, by name.
        ends: the values that are drawn as unimportant and as most important; None for :func:`faithmap.viz.limits`.

    Raises:
        ValueError: for shapes that do not fit, settings out of their range, or a heatmap that ranks nothing.
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


def placed(why: Explanation, photo: Float[Tensor, "n c H W"], geometry: Geometry | None = None) -> Float[Tensor, "n H W"]:
    """The raw heatmap, a value for each pixel of the photograph; NaN where the model never looked.

    Args:
        why: of the model's view of the photograph.
        photo: the original.
        geometry: how the view was cut from it; None where the photograph itself was explained.

    Raises:
        ValueError: where that geometry does not lead from the photograph to images of the explained size.
    """
    geometry = geometry or Geometry()
    size = (photo.shape[-2], photo.shape[-1])
    seen = geometry.crop or geometry.resized(size)
    if tuple(seen) != tuple(why.image_size):
        raise ValueError(
            f"the photo of {size[0]} x {size[1]} pixels is seen as {seen[0]} x {seen[1]}, but images of "
            f"{why.image_size[0]} x {why.image_size[1]} were explained; give the photo and the geometry of the model"
        )
    return geometry.place(why.at().detach(), size)


def _grey(photo: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Of the same luma, by the weights of ITU-R BT.601, still in three channels."""
    luma = photo.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (photo * luma).sum(dim=1, keepdim=True).expand_as(photo)
