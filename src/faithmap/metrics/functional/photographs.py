r"""Heatmaps and objects on the original photographs, where boxes and masks are annotated.

A model sees a window of a photograph (:mod:`faithmap.geometry`): the part that is left after the resize and the crop. Along
an axis, the centre of pixel :math:`Y` of a photograph lies at

.. math:: y = \frac{Y + \tfrac12 - t}{e} \, h - \tfrac12

of the model's image of :math:`h` pixels, with :math:`t` the first edge and :math:`e` the length of the window. There the
heatmap is interpolated from the centres of its cells, once. Pixels outside the window have no value.

A box is (left, top, right, bottom) in pixels from the photograph's top left corner, right and bottom excluded: (0, 0, w, h)
is the whole photograph. A pixel belongs to a box if the pixel's centre lies in it; a box too small for that has one pixel.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from faithmap.explanation import Explanation, interpolation_matrix
from faithmap.geometry import Geometry

Objects: TypeAlias = Tensor | Sequence[Tensor | Sequence[float] | Sequence[Sequence[float]]]
Size: TypeAlias = tuple[int, int]

PIXELS = 2**24
"""Pixels of photographs that are worked on at once."""


@dataclass(frozen=True, eq=False)
class Photographs:
    """Some of the images, all of one size.

    Attributes:
        index: which of the images they are.
        heat: the heatmaps at the photographs' own pixels, in double precision; those alone that the model saw.
        objects: the pixels of the explained objects, on the whole photographs.
        corner: (row, column) of the first pixel that the model saw.
    """

    index: Int[Tensor, " m"]
    heat: Float[Tensor, "m h w"]
    objects: Bool[Tensor, "m H W"]
    corner: tuple[int, int]

    @property
    def inside(self) -> Bool[Tensor, "m h w"]:
        """The objects, where the model saw them."""
        (top, left), (height, width) = self.corner, self.heat.shape[-2:]
        return self.objects[:, top : top + height, left : left + width]


def photographs(
    heatmaps: Explanation | Float[Tensor, "n r c"],
    objects: Objects,
    photos: Sequence[Size] | None,
    geometry: Geometry | None,
) -> Iterator[Photographs]:
    """All images, those of one size together.

    Args:
        heatmaps: of what the model saw. Of a tensor the corners are aligned with the corners of that.
        objects: for each image its boxes (k, 4) or (4,), or its masks (k, H, W) or (H, W), boolean; or one tensor of that.
            Several of one image are taken together.
        photos: (height, width) of each photograph; None where the masks say it, or where the model saw it as it is.
        geometry: how the photographs were resized and cropped; None where the model saw all of them, stretched perhaps.

    Raises:
        ValueError: for maps, objects or sizes that do not fit each other, that are not finite, or are empty.
    """
    maps = heatmaps.heatmap if isinstance(heatmaps, Explanation) else heatmaps
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"heatmaps have shape {tuple(maps.shape)}; give (images, rows, columns)")
    if not bool(maps.isfinite().all()):
        raise ValueError("heatmaps hold NaN or infinite values, which point nowhere")
    found = [torch.as_tensor(item) for item in objects]
    if len(found) != len(maps):
        raise ValueError(f"objects are given for {len(found)} images, and {len(maps)} heatmaps; give each image its own")
    groups: defaultdict[Size, list[int]] = defaultdict(list)
    for i, size in enumerate(_sizes(heatmaps, found, photos, geometry)):
        groups[size].append(i)
    for size, members in groups.items():
        placed = _Placed.of(heatmaps, size, geometry or Geometry())
        step = max(1, PIXELS // (size[0] * size[1]))
        for part in (members[i : i + step] for i in range(0, len(members), step)):
            index = torch.tensor(part, device=maps.device)
            heat = placed.rows @ maps[index].detach().double() @ placed.columns.mT
            yield Photographs(index, heat, _regions([found[i] for i in part], part, size, maps.device), placed.corner)


@dataclass(frozen=True, eq=False)
class _Placed:
    """Weights of a heatmap's cells at every pixel of a photograph that the model saw, and the first of those."""

    rows: Float[Tensor, "h r"]
    columns: Float[Tensor, "w c"]
    corner: tuple[int, int]

    @classmethod
    def of(cls, heatmaps: Explanation | Float[Tensor, "n r c"], size: Size, geometry: Geometry) -> _Placed:
        window, view = geometry.window(size), geometry.crop or geometry.resized(size)
        explanation = heatmaps if isinstance(heatmaps, Explanation) else Explanation(heatmaps, view)
        whole = geometry == replace(geometry, resize=None, crop=None)
        if explanation.image_size != view and not whole:
            raise ValueError(
                f"the heatmaps explain images of {explanation.image_size}, but this geometry makes {view} of a photograph of "
                f"{size}; give the geometry of the model that was explained"
            )
        axes = zip(explanation.centres, explanation.image_size, window[:2], window[2:], size, strict=True)
        (top, rows), (left, columns) = (_axis(*axis) for axis in axes)
        return cls(rows, columns, (top, left))


def _axis(centres: Float[Tensor, " r"], length: int, start: float, extent: float, pixels: int) -> tuple[int, Tensor]:
    """The first pixel of an axis inside the window, and the weights of the cells at all that are inside."""
    first, last = max(0, math.ceil(start - 0.5)), min(pixels, math.ceil(start + extent - 0.5))
    at = (torch.arange(first, last, device=centres.device, dtype=torch.float64) + 0.5 - start) / extent * length - 0.5
    return first, interpolation_matrix(centres, at)


def _sizes(
    heatmaps: Explanation | Tensor, objects: Sequence[Tensor], photos: Sequence[Size] | None, geometry: Geometry | None
) -> Iterator[Size]:
    """Of each photograph: given, or a mask's, or the explained image's."""
    if photos is not None and len(photos) != len(objects):
        raise ValueError(f"photos has {len(photos)} sizes for {len(objects)} images; give each image its (height, width)")
    explained = heatmaps.image_size if isinstance(heatmaps, Explanation) else tuple(heatmaps.shape[-2:])
    for i, item in enumerate(objects):
        drawn = tuple(item.shape[-2:]) if item.dtype == torch.bool else None
        if photos is None and drawn is None and geometry is not None:
            raise ValueError("boxes with a geometry need photos, the (height, width) of each photograph; give them")
        size = tuple(photos[i]) if photos is not None else drawn or explained
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"photograph {i} is said to be of size {size}; give (height, width)")
        if drawn not in (None, size):
            raise ValueError(
                f"photograph {i} is said to be of size {size}, and its masks are of {drawn}; give masks of its size"
            )
        yield size[0], size[1]


def _regions(objects: Sequence[Tensor], names: Sequence[int], size: Size, device: torch.device) -> Bool[Tensor, "m H W"]:
    """The pixels of each image's objects, all of one image together."""
    if all(item.dtype == torch.bool for item in objects):
        masks = [_united(item, name) for item, name in zip(objects, names, strict=True)]
        regions = torch.stack([mask.to(device) for mask in masks])
    elif any(item.dtype == torch.bool for item in objects):
        raise ValueError("some images have masks and some boxes; give boxes to all, or masks to all")
    else:
        regions = _filled([_boxes(item, name) for item, name in zip(objects, names, strict=True)], names, size, device)
    empty = ~regions.flatten(1).any(dim=1)
    if bool(empty.any()):
        raise ValueError(f"the object of image {names[int(empty.int().argmax())]} has no pixels; leave that image out")
    return regions


def _united(masks: Tensor, name: int) -> Bool[Tensor, "H W"]:
    if masks.ndim not in (2, 3):
        raise ValueError(f"masks of image {name} have shape {tuple(masks.shape)}; give (k, height, width) or (height, width)")
    return masks if masks.ndim == 2 else masks.any(dim=0)


def _boxes(boxes: Tensor, name: int) -> Float[Tensor, "k 4"]:
    if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4:
        shape, dtype = tuple(boxes.shape), str(boxes.dtype).removeprefix("torch.")
        raise ValueError(f"objects of image {name} have shape {shape} and dtype {dtype}; give boxes (k, 4), or masks as bool")
    return boxes.view(-1, 4).double()


def _filled(
    boxes: Sequence[Float[Tensor, "k 4"]], names: Sequence[int], size: Size, device: torch.device
) -> Bool[Tensor, "m H W"]:
    """Boxes as pixels; images with fewer boxes than others get boxes of no pixels."""
    nothing = torch.zeros(max(map(len, boxes)), 4, dtype=torch.float64)
    padded = torch.stack([torch.cat([b.cpu(), nothing[len(b) :]]) for b in boxes])
    real = torch.tensor([[j < len(b) for j in range(len(nothing))] for b in boxes], dtype=torch.bool)
    first, last, ends = padded[..., :2], padded[..., 2:], torch.tensor([size[1], size[0]])
    there = (first <= last) & ((last > 0) | (first >= 0)) & (first < ends)
    wrong = real & ~(padded.isfinite().all(-1) & there.all(-1))
    if bool(wrong.any()):
        image, box = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"box {padded[image, box].tolist()} of image {names[image]} does not lie on a photograph of {size}; "
            "give (left, top, right, bottom) in its pixels"
        )
    low = (first - 0.5).ceil().clamp(min=0).minimum(ends - 1)
    high = torch.where(real.unsqueeze(-1), (last - 0.5).ceil().maximum(low + 1), low)
    columns, rows = (_between(low[..., i].to(device), high[..., i].to(device), size[1 - i]) for i in range(2))
    return (rows.mT @ columns) > 0


def _between(low: Float[Tensor, "m k"], high: Float[Tensor, "m k"], count: int) -> Float[Tensor, "m k count"]:
    """1 for each of so many pixels from ``low`` up to ``high``, 0 elsewhere."""
    pixels = torch.arange(count, device=low.device)
    return ((pixels >= low.unsqueeze(-1)) & (pixels < high.unsqueeze(-1))).float()
