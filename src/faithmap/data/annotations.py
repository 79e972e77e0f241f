r"""Annotated images: the objects in an image, their boxes and their outlines.

The readers of VOC, COCO and ImageNet are sequences of annotated images. A reader lists the images when it is created, and reads
an annotation when it is accessed.

Annotations are untrusted. Names in them cannot leave the folder of the data set, numbers are checked before they are used, and
an invalid annotation is refused with one line (:class:`faithmap.data.AnnotationError`).

COCO has two kinds of outlines. *Polygons*: lists :math:`x_1, y_1, x_2, y_2, \dots` in pixels from the top left corner;
pycocotools fills them, so that the pixels are those of every other evaluation on COCO. *Run lengths* (RLE): alternating numbers
of pixels outside and inside, down the columns from the left; a list of numbers, or text with 5 bits of a number per character:

.. math:: c = 48 + 32 \cdot [\text{more follow}] + (\text{5 bits, the lowest first})

with the sign in the highest bit of the last character, and from the fourth number on the difference to the number two before.
Run lengths are decoded here, because pycocotools decodes them in C without checking that they fit the image.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from faithmap.data.images import AnnotationError, read_image
from faithmap.errors import one_line

Box: TypeAlias = tuple[float, float, float, float]

MAX_PIXELS = 100_000_000
"""Maximum number of pixels of an image, as in :func:`faithmap.data.read_image`."""

_MAX_DIGITS = 12
"""Maximum number of characters of one run length, which are 60 bits."""


@dataclass(frozen=True)
class Segmentation:
    """An outline that is not decoded yet.

    >>> Segmentation({"size": [2, 2], "counts": [1, 2, 1]}).mask((2, 2))
    tensor([[False,  True],
            [ True, False]])

    Attributes:
        outline: polygons, or ``{"size": [height, width], "counts": ...}``, as in the file, not checked yet.
    """

    outline: Any

    def mask(self, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
        """The pixels inside the outline.

        Args:
            size: (height, width) of the image, in pixels.

        Raises:
            ValueError: for an outline that does not fit the image; the message is a predicate without a subject.
            ModuleNotFoundError: for polygons without pycocotools.
        """
        if isinstance(self.outline, dict):
            return _mask_of_runs(self.outline, size)
        return _mask_of_polygons(self.outline, size)


@dataclass(frozen=True)
class AnnotatedObject:
    """One object in an image, or a crowd of objects.

    >>> AnnotatedObject("dog", 11, (10.0, 20.0, 50.0, 60.0)).difficult
    False

    Attributes:
        name: name of the class in the data set.
        index: of its class in the order of the data set; None if that order is unknown. It is the model's index only if the
            model was trained on that data set.
        box: (left, top, right, bottom) in pixels from the image's top left corner, right and bottom excluded, inside the image.
        difficult: marked as hard to recognise (VOC).
        crowd: one region around many objects (COCO).
        segmentation: its outline; None if the data set has boxes only.
    """

    name: str
    index: int | None
    box: Box
    difficult: bool = False
    crowd: bool = False
    segmentation: Segmentation | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """An image file and the objects in the image.

    >>> dog = AnnotatedObject("dog", 11, (10.0, 20.0, 50.0, 60.0))
    >>> AnnotatedImage(Path("dog.jpg"), (100, 100), (dog,), Path("dog.xml")).boxes("dog")
    tensor([[10., 20., 50., 60.]], dtype=torch.float64)

    Attributes:
        path: of the image file, which is not opened before :meth:`read`.
        size: (height, width) in the annotation.
        objects: in the order of the annotation.
        source: the file with the annotation.
    """

    path: Path
    size: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]
    source: Path

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the image, each once."""
        return tuple(dict.fromkeys(item.name for item in self.objects))

    def of(self, name: str | None = None, *, difficult: bool = True, crowd: bool = True) -> tuple[AnnotatedObject, ...]:
        """The objects of a class, or all.

        Args:
            name: of the class; None for all classes.
            difficult: include objects that are marked as difficult.
            crowd: include crowds.
        """
        wanted = (item for item in self.objects if name is None or item.name == name)
        return tuple(item for item in wanted if (difficult or not item.difficult) and (crowd or not item.crowd))

    def boxes(self, name: str | None = None, *, difficult: bool = True, crowd: bool = True) -> Float[Tensor, "k 4"]:
        """The boxes of a class, or of all objects.

        Args:
            name: of the class; None for all classes.
            difficult: include objects that are marked as difficult.
            crowd: include crowds.
        """
        boxes = [item.box for item in self.of(name, difficult=difficult, crowd=crowd)]
        return torch.tensor(boxes, dtype=torch.float64).view(-1, 4)

    def mask(self, name: str | None = None, *, difficult: bool = True, crowd: bool = True) -> Bool[Tensor, "h w"]:
        """The pixels of a class's objects, their union.

        Args:
            name: of the class; None for all classes.
            difficult: include objects that are marked as difficult.
            crowd: include crowds.

        Raises:
            AnnotationError: for an object without an outline, or with one that does not fit the image.
            ModuleNotFoundError: for a polygon without pycocotools.
        """
        union = torch.zeros(self.size, dtype=torch.bool)
        for item in self.of(name, difficult=difficult, crowd=crowd):
            if item.segmentation is None:
                raise self._refused(f"an object {item.name!r} has no outline", "use boxes, or a data set with masks")
            try:
                union |= item.segmentation.mask(self.size)
            except ValueError as error:
                raise self._refused(f"the outline of an object {item.name!r} {error}", "leave this image out") from error
        return union

    def read(self) -> Float[Tensor, "1 3 h w"]:
        """Read the image file with :func:`faithmap.data.read_image`.

        Raises:
            ImageError: for a file that is no image or cannot be read safely.
            AnnotationError: for an image of another size than the annotated one, such as one that is rotated by EXIF but
                annotated unrotated; the boxes would not fit it.
        """
        image = read_image(self.path)
        if image.shape[-2:] != self.size:
            found = f"{image.shape[-2]} x {image.shape[-1]}"
            problem = (
                f"annotates {self.size[0]} x {self.size[1]} pixels (height x width), but {self.path} has {found} when upright"
            )
            raise self._refused(problem, "leave this image out")
        return image

    def _refused(self, problem: str, remedy: str) -> AnnotationError:
        return annotation_error(self.source, problem, remedy)


class AnnotatedImages(Sequence[AnnotatedImage]):
    """Base of the readers: a sequence of annotated images.

    >>> class Listed(AnnotatedImages):
    ...     def __len__(self): return 1
    ...     def _read(self, index): return AnnotatedImage(Path("dog.jpg"), (100, 100), (), Path("dog.xml"))
    >>> Listed()[-1].size
    (100, 100)
    """

    @overload
    def __getitem__(self, index: int) -> AnnotatedImage: ...
    @overload
    def __getitem__(self, index: slice) -> list[AnnotatedImage]: ...
    def __getitem__(self, index: int | slice) -> AnnotatedImage | list[AnnotatedImage]:
        if isinstance(index, slice):
            return [self._read(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self._read(index % len(self))

    @abstractmethod
    def _read(self, index: int) -> AnnotatedImage:
        """The annotated image of that index, from 0."""


def annotation_error(source: str | os.PathLike[str], problem: object, remedy: str) -> AnnotationError:
    """The error to raise, on one line, with control characters escaped."""
    return AnnotationError(one_line(f"{os.fspath(source)}: {problem}; {remedy}"))


def inside(folder: Path, name: str, source: Path) -> Path:
    """The file of an untrusted name in the folder or below.

    The folder may be a link; a file in it that is a link to a file outside is refused.

    Raises:
        AnnotationError: for a name that leads out of the folder, or is invalid.
    """
    quoted = repr(name[:100])
    if not name.isprintable() or re.match(r"$|/|[A-Za-z]:", name) or "\\" in name or ".." in name.split("/"):
        raise annotation_error(source, f"names a file {quoted}", "give plain names of files in the data set's folder")
    path = folder / name
    try:
        leaves = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:
        raise annotation_error(source, f"names a file {quoted} that cannot be found ({error})", "repair the links") from error
    if leaves:
        raise annotation_error(source, f"names a file {quoted} that is a link out of {folder}", "copy the file into the folder")
    return path


def checked_size(height: float, width: float, source: Path) -> tuple[int, int]:
    """(height, width) as whole numbers.

    Raises:
        AnnotationError: for a size that no image has.
    """
    if not (height >= 1 and width >= 1 and height * width <= MAX_PIXELS and height == int(height) and width == int(width)):
        problem = f"an image of {str(height)[:12]} x {str(width)[:12]} pixels"
        raise annotation_error(source, problem, f"give a size in whole pixels, of {MAX_PIXELS} at most")
    return int(height), int(width)


def clipped(box: Iterable[float], size: tuple[int, int], source: Path) -> Box:
    """The part of a box (left, top, right, bottom) that lies on an image of that size.

    Raises:
        AnnotationError: for a box whose left is greater than its right, or top than bottom, that lies outside the image, or is
            not finite.
    """
    left, top, right, bottom = given = tuple(box)
    height, width = size
    across = left <= right and left < width and (right > 0 or left >= 0)
    down = top <= bottom and top < height and (bottom > 0 or top >= 0)
    if not (across and down):
        corners = ", ".join(str(number)[:12] for number in given)
        problem = f"has a box ({corners}) as left, top, right, bottom on an image of {height} x {width} pixels"
        raise annotation_error(source, problem, "give boxes that lie on the image, left before right and top before bottom")
    return max(float(left), 0.0), max(float(top), 0.0), float(min(right, width)), float(min(bottom, height))


def _mask_of_runs(outline: dict[str, Any], size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    if outline.get("size") != list(size):
        raise ValueError(f"is for {str(outline.get('size'))[:40]} pixels and the image has {list(size)}")
    counts = outline.get("counts")
    runs = _decoded_runs(counts, size[0] * size[1]) if isinstance(counts, str) else counts
    pixels = size[0] * size[1]
    if not isinstance(runs, list) or not all(type(run) is int and 0 <= run <= pixels for run in runs):
        raise ValueError(f"has run lengths that are no whole numbers from 0 to {pixels}")
    if sum(runs) != pixels:
        raise ValueError(f"has run lengths of {sum(runs)} pixels for {pixels}")
    values = torch.arange(len(runs)) % 2 == 1
    return values.repeat_interleave(torch.tensor(runs)).view(size[1], size[0]).T.contiguous()


def _decoded_runs(text: str, pixels: int) -> list[int]:
    """The run lengths in COCO's text format."""
    runs: list[int] = []
    number = digits = 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64 or digits == _MAX_DIGITS:
            raise ValueError("has run lengths that cannot be decoded")
        number |= (bits & 31) << 5 * digits
        digits += 1
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << 5 * digits
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        if not 0 <= runs[-1] <= pixels:
            raise ValueError(f"has a run of {runs[-1]} pixels on an image of {pixels}")
        number = digits = 0
    if digits:
        raise ValueError("has run lengths that end in the middle of a number")
    return runs


def _mask_of_polygons(outline: Any, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    if not isinstance(outline, list) or not outline or not all(_is_polygon(polygon) for polygon in outline):
        raise ValueError("is neither run lengths nor lists of at least three points x, y")
    reach = 2 * max(size)
    if not all(abs(number) <= reach for polygon in outline for number in polygon):
        raise ValueError(f"extends more than {reach} pixels beyond an image of {list(size)}")
    try:
        from pycocotools import mask as coco  # noqa: PLC0415 - an optional package
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("polygons are filled by pycocotools; pip install 'faithmap[coco]'") from error
    filled = coco.merge(coco.frPyObjects(outline, *size))
    return _mask_of_runs({"size": list(size), "counts": filled["counts"].decode()}, size)


def _is_polygon(numbers: Any) -> bool:
    if not isinstance(numbers, list) or len(numbers) < 6 or len(numbers) % 2:
        return False
    return all(type(number) in (int, float) for number in numbers)
