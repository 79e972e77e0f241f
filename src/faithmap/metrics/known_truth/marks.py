"""Marks that are planted into images, with the mask of each: a logo, a colour cast, a texture, a ruler at the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from faithmap.metrics.known_truth.regions import Box, region_of

MarkKind: TypeAlias = Literal["logo", "cast", "texture", "ruler"]
"""logo: an opaque badge. cast: the colours of a square are shifted to green. texture: stripes over a square. ruler: a band with
graduation marks along one edge of the image."""

MARKS: tuple[MarkKind, ...] = get_args(MarkKind)

Marked: TypeAlias = "tuple[Float[Tensor, 'n 3 h w'], Bool[Tensor, 'n h w']]"
"""Images with a mark, and the masks of the marks."""


def place_mark(kind: MarkKind, size: float, image_size: tuple[int, int], place: float, along: float) -> Box:
    """The box of a mark.

    >>> place_mark("logo", 0.25, (40, 80), 0.0, 1.0), place_mark("ruler", 0.1, (40, 80), 0.6, 0.0)
    ((70, 0, 80, 10), (0, 36, 80, 40))

    Args:
        kind: of the mark.
        size: of the mark's side, or of the ruler's width, as a share of the image's shorter side.
        image_size: (height, width) of the image.
        place: in [0, 1]: from top to bottom; of a ruler, one of four parts for the edge: left, top, bottom, right.
        along: in [0, 1]: from left to right; not used for a ruler.

    Raises:
        ValueError: for an unknown kind, or a size that is not above 0 and at most 1, or below two pixels.
    """
    if kind not in MARKS:
        raise ValueError(f"mark is {kind!r}; give one of {', '.join(MARKS)}")
    height, width = image_size
    side = round(size * min(height, width))
    if not (0 < size <= 1 and side >= 2):
        raise ValueError(
            f"size is {size}; give a share of the shorter side ({min(image_size)} pixels) of 2 pixels or more, at most 1"
        )
    if kind == "ruler":
        edges = (0, 0, side, height), (0, 0, width, side), (0, height - side, width, height), (width - side, 0, width, height)
        return edges[min(3, int(4 * place))]
    top, left = round(place * (height - side)), round(along * (width - side))
    return left, top, left + side, top + side


def plant(images: Float[Tensor, "n 3 h w"], kind: MarkKind, boxes: Sequence[Box]) -> Marked:
    """Images with a mark in a box of each.

    >>> marked, masks = plant(torch.full((1, 3, 8, 8), 0.5), "logo", [(0, 0, 4, 4)])
    >>> int((marked != 0.5).any(dim=1).sum()), int(masks.sum())
    (16, 16)

    Args:
        images: in [0, 1].
        kind: of the mark.
        boxes: one for each image, see :func:`place_mark`.

    Raises:
        ValueError: for an unknown kind, images without three channels, or another number of boxes than images.
    """
    if kind not in MARKS:
        raise ValueError(f"mark is {kind!r}; give one of {', '.join(MARKS)}")
    if images.ndim != 4 or images.shape[1] != 3 or len(boxes) != len(images):
        raise ValueError(
            f"images have shape {tuple(images.shape)} for {len(boxes)} boxes; give (n, 3, h, w), and a box for each"
        )
    marked = images.clone()
    masks = torch.stack([region_of(box, (images.shape[-2], images.shape[-1])) for box in boxes]).to(images.device)
    for image, (left, top, right, bottom) in zip(marked, boxes, strict=True):
        pattern, opacity = _pattern(kind, bottom - top, right - left)
        part = image[:, top:bottom, left:right]
        part.lerp_(pattern.to(part), opacity)
    return marked, masks


def _pattern(kind: MarkKind, height: int, width: int) -> tuple[Float[Tensor, "3 h w"], float]:
    """The colours of a mark and its opacity."""
    down = torch.linspace(-1, 1, height).view(-1, 1).expand(height, width)
    across = torch.linspace(-1, 1, width).expand(height, width)
    if kind == "cast":
        return _colour(0.1, 1.0, 0.3).expand(3, height, width), 0.5
    if kind == "texture":
        stripes = torch.sin(2 * math.pi * 3 * (down + across)).gt(0).float()
        return stripes.expand(3, height, width), 0.6
    if kind == "logo":
        disc = down.square() + across.square() < 0.8
        cross = (down.abs() < 0.2) | (across.abs() < 0.2)
        return torch.where(disc & ~cross, _colour(0.9, 0.05, 0.5), _colour(1.0, 1.0, 1.0)), 1.0
    lengthways, depth = (across, down) if width > height else (down, across)
    unit = 2 * min(height, width) / max(height, width)  # the ruler's width, in units of its length
    number = ((lengthways + 1) / (unit / 4)).floor()
    dark = (number % 2 == 0) & (depth < torch.where(number % 10 == 0, 0.6, -0.2))
    return torch.where(dark, _colour(0.1, 0.1, 0.1), _colour(0.95, 0.9, 0.6)), 1.0


def _colour(red: float, green: float, blue: float) -> Float[Tensor, "3 1 1"]:
    return torch.tensor([red, green, blue]).view(3, 1, 1)
