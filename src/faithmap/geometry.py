"""Geometry: from an original image to the model's input, and from a heatmap back to the original image.

Preprocessing resizes an original image (H, W) and crops its centre. Both are affine in pixel coordinates, so that the model's
input corresponds to a rectangular window of the original image, and a heatmap is drawn in that window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


class Window(NamedTuple):
    """A rectangle on the original image, in pixels from its top left corner; it exceeds the image if the crop was padded."""

    top: float
    left: float
    height: float
    width: float


@dataclass(frozen=True)
class Geometry:
    """Resize, then crop the centre.

    Args:
        resize: length of the shorter side in pixels, or (height, width); None keeps the size.
        crop: (height, width) of the crop of the centre, in pixels, padded with black if the image is smaller; None keeps the
            whole image.
        interpolation: interpolation of the resize, with antialiasing.

    >>> geometry = Geometry(resize=256, crop=(224, 224))
    >>> geometry(torch.zeros(1, 3, 300, 400)).shape
    torch.Size([1, 3, 224, 224])
    >>> geometry.resized((300, 400))
    (256, 341)
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __call__(self, photo: Float[Tensor, "n c H W"]) -> Float[Tensor, "n c h w"]:
        """The model's input for original images; values stay in [0, 1].

        Args:
            photo: in [0, 1], of any size.
        """
        size = self.resized(photo.shape[-2:])
        if size != tuple(photo.shape[-2:]):
            photo = F.interpolate(photo, size, mode=self.interpolation, antialias=True, align_corners=False).clamp(0, 1)
        if self.crop is None:
            return photo
        top, left = self._offset(size, self.crop)
        height, width = self.crop
        return F.pad(photo, (-left, left + width - size[1], -top, top + height - size[0]))

    def resized(self, size: tuple[int, int] | torch.Size) -> tuple[int, int]:
        """The size of an original image after the resize, before the crop.

        Args:
            size: (height, width) of the original image, in pixels.
        """
        height, width = size
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        longer = max(1, self.resize * max(height, width) // min(height, width))
        return (self.resize, longer) if height <= width else (longer, self.resize)

    def window(self, size: tuple[int, int] | torch.Size) -> Window:
        """The part of an original image that becomes the model's input.

        Args:
            size: (height, width) of the original image, in pixels.
        """
        height, width = self.resized(size)
        crop = self.crop or (height, width)
        top, left = self._offset((height, width), crop)
        down, across = size[0] / height, size[1] / width
        return Window(top * down, left * across, crop[0] * down, crop[1] * across)

    def place(self, heatmap: Float[Tensor, "n h w"], size: tuple[int, int] | torch.Size) -> Float[Tensor, "n H W"]:
        """A heatmap of the model's input, resampled to the original image; NaN outside the model's window.

        Args:
            heatmap: values at the pixels of the model's input.
            size: (height, width) of the original image, in pixels.
        """
        top, left, height, width = self.window(size)
        rows = (torch.arange(size[0], device=heatmap.device) + 0.5 - top) / height
        columns = (torch.arange(size[1], device=heatmap.device) + 0.5 - left) / width
        grid = torch.stack(torch.meshgrid(2 * columns - 1, 2 * rows - 1, indexing="xy"), dim=-1)
        grid = grid.to(heatmap.dtype).expand(len(heatmap), -1, -1, -1)
        placed = F.grid_sample(heatmap.unsqueeze(1), grid, padding_mode="border", align_corners=False).squeeze(1)
        outside = (grid.abs() > 1).any(dim=-1)
        return placed.masked_fill(outside, math.nan)

    @staticmethod
    def _offset(size: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int]:
        return round((size[0] - crop[0]) / 2), round((size[1] - crop[1]) / 2)
