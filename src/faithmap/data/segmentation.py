r"""Segmentation: the outline of an object as COCO writes it, and its pixels.

There are two ways. *Polygons*: lists :math:`x_1, y_1, x_2, y_2, \dots` in pixels from the top left corner; pycocotools
fills them, so that the pixels are those of every other evaluation on COCO. *Run lengths* (RLE): how many pixels are outside,
then inside, then outside and so on, down the columns from the left; a list of numbers, or text with 5 bits of a number in a
character:

.. math:: c = 48 + 32 \cdot [\text{more follow}] + (\text{5 bits, the lowest first})

with the sign in the highest bit of the last character, and from the fourth number on the difference to the number two
before. Run lengths are decoded here: pycocotools reads them in C without asking whether they fit the photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

_DIGITS = 12
"""Characters of one number at the most, which are 60 bits."""


@dataclass(frozen=True)
class Segmentation:
    """An outline, not decoded yet.

    Attributes:
        outline: polygons, or ``{"size": [height, width], "counts": ...}``; as it stands in the file, not checked yet.
    """

    outline: Any

    def mask(self, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
        """The pixels inside, on a photograph of that (height, width).

        Raises:
            ValueError: for an outline that makes no sense there; the message says what it does, without a subject.
            ModuleNotFoundError: for polygons, where pycocotools is missing.
        """
        if isinstance(self.outline, dict):
            return _of_runs(self.outline, size)
        return _of_polygons(self.outline, size)


def _of_runs(outline: dict[str, Any], size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    if outline.get("size") != list(size):
        raise ValueError(f"is for {str(outline.get('size'))[:40]} pixels and the photograph has {list(size)}")
    counts = outline.get("counts")
    runs = _numbers(counts, size[0] * size[1]) if isinstance(counts, str) else counts
    pixels = size[0] * size[1]
    if not isinstance(runs, list) or not all(type(run) is int and 0 <= run <= pixels for run in runs):
        raise ValueError(f"has run lengths that are no whole numbers from 0 to {pixels}")
    if sum(runs) != pixels:
        raise ValueError(f"has run lengths of {sum(runs)} pixels for {pixels}")
    values = torch.arange(len(runs)) % 2 == 1
    return values.repeat_interleave(torch.tensor(runs)).view(size[1], size[0]).T.contiguous()


def _numbers(text: str, pixels: int) -> list[int]:
    """The run lengths that COCO packs into text."""
    runs: list[int] = []
    number = digits = 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64 or digits == _DIGITS:
            raise ValueError("has run lengths that cannot be decoded")
        number |= (bits & 31) << 5 * digits
        digits += 1
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << 5 * digits
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        if not 0 <= runs[-1] <= pixels:
            raise ValueError(f"has a run of {runs[-1]} pixels on a photograph of {pixels}")
        number = digits = 0
    if digits:
        raise ValueError("has run lengths that end in the middle of a number")
    return runs


def _of_polygons(outline: Any, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    if not isinstance(outline, list) or not outline or not all(_is_polygon(polygon) for polygon in outline):
        raise ValueError("is neither run lengths nor lists of at least three points x, y")
    reach = 2 * max(size)
    if not all(abs(number) <= reach for polygon in outline for number in polygon):
        raise ValueError(f"leads further than {reach} pixels, away from a photograph of {list(size)}")
    try:
        from pycocotools import mask as coco  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("polygons are filled by pycocotools; pip install 'faithmap[coco]'") from error
    filled = coco.merge(coco.frPyObjects(outline, *size))
    return _of_runs({"size": list(size), "counts": filled["counts"].decode()}, size)


def _is_polygon(numbers: Any) -> bool:
    if not isinstance(numbers, list) or len(numbers) < 6 or len(numbers) % 2:
        return False
    return all(type(number) in (int, float) for number in numbers)
