r"""Annotated regions: heatmaps and annotated objects on the same pixel grid, that of the original images.

Boxes and masks are annotated on the original image, and a model takes a part of it (:mod:`faithmap.model`): the window that
the resize and the crop keep. Along an axis, the centre of pixel :math:`Y` of the original image lies at

.. math:: y = \frac{Y + \tfrac12 - t}{e} \, h - \tfrac12

of the model's input of :math:`h` pixels, with :math:`t` the first edge and :math:`e` the length of the window. There the
heatmap is interpolated from the centres of its cells, once. Pixels outside the window have no value.

A box is (left, top, right, bottom) in pixels from the top left corner of the original image, right and bottom excluded: (0, 0,
w, h) is the whole image. A pixel belongs to a box if the pixel's centre lies in it; a box that contains no centre has one
pixel.
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
from faithmap.model import Geometry

Objects: TypeAlias = Tensor | Sequence[Tensor | Sequence[float] | Sequence[Sequence[float]]]
Size: TypeAlias = tuple[int, int]

PIXELS_PER_GROUP = 2**24
"""Maximum number of pixels that are processed together."""


@dataclass(frozen=True, eq=False)
class AnnotatedRegions:
    """Heatmaps and objects of some of the images, all of one size.

    Attributes:
        index: of these images among all images.
        heat: the heatmaps at the pixels of the original images, in double precision, inside the model's window.
        objects: the pixels of the explained objects, on the whole original images.
        corner: (row, column) of the first pixel inside the window.
    """

    index: Int[Tensor, " m"]
    heat: Float[Tensor, "m h w"]
    objects: Bool[Tensor, "m H W"]
    corner: tuple[int, int]

    @property
    def inside(self) -> Bool[Tensor, "m h w"]:
        """The objects inside the window."""
        (top, left), (height, width) = self.corner, self.heat.shape[-2:]
        return self.objects[:, top : top + height, left : left + width]


def annotated_regions(
    heatmaps: Explanation | Float[Tensor, "n r c"],
    objects: Objects,
    image_sizes: Sequence[Size] | None,
    geometry: Geometry | None,
) -> Iterator[AnnotatedRegions]:
    """All images, grouped by size.

    Args:
        heatmaps: of the model's inputs. The corners of a tensor are aligned with the corners of the input.
        objects: the boxes (k, 4) or (4,) of each image, or its masks (k, H, W) or (H, W), boolean; or one tensor of these. The
            union of several is used.
        image_sizes: (height, width) of each original image; None for the size of its mask, or of the explained image.
        geometry: resize and crop of the original images; None if the model took all of each image, possibly stretched.

    Raises:
        ValueError: for maps, objects or sizes that do not fit each other, that are not finite, or are empty.
    """
    maps = heatmaps.heatmap if isinstance(heatmaps, Explanation) else heatmaps
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"heatmaps have shape {tuple(maps.shape)}; give (images, rows, columns)")
    if not bool(maps.isfinite().all()):
        raise ValueError("heatmaps contain NaN or infinite values, which have no maximum")
    tensors = [torch.as_tensor(item) for item in objects]
    if len(tensors) != len(maps):
        raise ValueError(f"objects are given for {len(tensors)} images, and {len(maps)} heatmaps; give one entry per image")
    groups: defaultdict[Size, list[int]] = defaultdict(list)
    for i, size in enumerate(_sizes(heatmaps, tensors, image_sizes, geometry)):
        groups[size].append(i)
    for size, members in groups.items():
        weights = _PixelWeights.of(heatmaps, size, geometry or Geometry())
        step = max(1, PIXELS_PER_GROUP // (size[0] * size[1]))
        for part in (members[i : i + step] for i in range(0, len(members), step)):
            index = torch.tensor(part, device=maps.device)
            heat = weights.rows @ maps[index].detach().double() @ weights.columns.mT
            yield AnnotatedRegions(index, heat, _regions([tensors[i] for i in part], part, size, maps.device), weights.corner)


@dataclass(frozen=True, eq=False)
class _PixelWeights:
    """Weights of a heatmap's cells at every pixel inside the window, and the first of these pixels."""

    rows: Float[Tensor, "h r"]
    columns: Float[Tensor, "w c"]
    corner: tuple[int, int]

    @classmethod
    def of(cls, heatmaps: Explanation | Float[Tensor, "n r c"], size: Size, geometry: Geometry) -> _PixelWeights:
        window, view = geometry.window(size), geometry.crop or geometry.resized(size)
        explanation = heatmaps if isinstance(heatmaps, Explanation) else Explanation(heatmaps, view)
        whole = geometry == replace(geometry, resize=None, crop=None)
        if explanation.image_size != view and not whole:
            raise ValueError(
                f"the heatmaps explain images of {explanation.image_size}, but this geometry gives {view} for an image of "
                f"{size}; give the geometry of the model that was explained"
            )
        axes = zip(explanation.centres, explanation.image_size, window[:2], window[2:], size, strict=True)
        (top, rows), (left, columns) = (_axis(*axis) for axis in axes)
        return cls(rows, columns, (top, left))


def _axis(centres: Float[Tensor, " r"], length: int, start: float, extent: float, pixels: int) -> tuple[int, Tensor]:
    """Along one axis: the first pixel inside the window, and the weights of the cells at all pixels inside."""
    first, last = max(0, math.ceil(start - 0.5)), min(pixels, math.ceil(start + extent - 0.5))
    at = (torch.arange(first, last, device=centres.device, dtype=torch.float64) + 0.5 - start) / extent * length - 0.5
    return first, interpolation_matrix(centres, at)


def _sizes(
    heatmaps: Explanation | Tensor, objects: Sequence[Tensor], image_sizes: Sequence[Size] | None, geometry: Geometry | None
) -> Iterator[Size]:
    """Size of each original image: the given one, or that of its mask, or that of the explained image."""
    if image_sizes is not None and len(image_sizes) != len(objects):
        raise ValueError(
            f"image_sizes has {len(image_sizes)} sizes for {len(objects)} images; give one (height, width) per image"
        )
    explained = heatmaps.image_size if isinstance(heatmaps, Explanation) else tuple(heatmaps.shape[-2:])
    for i, item in enumerate(objects):
        masked = tuple(item.shape[-2:]) if item.dtype == torch.bool else None
        if image_sizes is None and masked is None and geometry is not None:
            raise ValueError("boxes with a geometry need image_sizes, the (height, width) of each original image")
        size = tuple(image_sizes[i]) if image_sizes is not None else masked or explained
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"image {i} has size {size} in image_sizes; give (height, width)")
        if masked not in (None, size):
            raise ValueError(f"image {i} has size {size} in image_sizes, but its masks are of {masked}; give masks of its size")
        yield size[0], size[1]


def _regions(objects: Sequence[Tensor], names: Sequence[int], size: Size, device: torch.device) -> Bool[Tensor, "m H W"]:
    """The pixels of each image's objects, their union."""
    if all(item.dtype == torch.bool for item in objects):
        masks = [_united(item, name) for item, name in zip(objects, names, strict=True)]
        regions = torch.stack([mask.to(device) for mask in masks])
    elif any(item.dtype == torch.bool for item in objects):
        raise ValueError("some images have masks and some boxes; give boxes for all, or masks for all")
    else:
        regions = _box_pixels([_boxes(item, name) for item, name in zip(objects, names, strict=True)], names, size, device)
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


def _box_pixels(
    boxes: Sequence[Float[Tensor, "k 4"]], names: Sequence[int], size: Size, device: torch.device
) -> Bool[Tensor, "m H W"]:
    """Boxes as pixels; images with fewer boxes than others are padded with boxes of no pixels."""
    padding = torch.zeros(max(map(len, boxes)), 4, dtype=torch.float64)
    padded = torch.stack([torch.cat([b.cpu(), padding[len(b) :]]) for b in boxes])
    real = torch.tensor([[j < len(b) for j in range(len(padding))] for b in boxes], dtype=torch.bool)
    first, last, ends = padded[..., :2], padded[..., 2:], torch.tensor([size[1], size[0]])
    on_image = (first <= last) & ((last > 0) | (first >= 0)) & (first < ends)
    wrong = real & ~(padded.isfinite().all(-1) & on_image.all(-1))
    if bool(wrong.any()):
        image, box = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"box {padded[image, box].tolist()} of image {names[image]} does not lie on an image of {size}; "
            "give (left, top, right, bottom) in its pixels"
        )
    low = (first - 0.5).ceil().clamp(min=0).minimum(ends - 1)
    high = torch.where(real.unsqueeze(-1), (last - 0.5).ceil().maximum(low + 1), low)
    columns, rows = (_interval(low[..., i].to(device), high[..., i].to(device), size[1 - i]) for i in range(2))
    return (rows.mT @ columns) > 0


def _interval(low: Float[Tensor, "m k"], high: Float[Tensor, "m k"], count: int) -> Float[Tensor, "m k count"]:
    """1 for each pixel from ``low`` up to ``high`` (excluded), 0 elsewhere."""
    pixels = torch.arange(count, device=low.device)
    return ((pixels >= low.unsqueeze(-1)) & (pixels < high.unsqueeze(-1))).float()
