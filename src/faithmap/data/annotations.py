"""Annotated photographs: which objects are in a photograph, and where.

The readers of VOC, COCO and ImageNet all yield these. A reader is a sequence: it lists the photographs when it is made, and
reads an annotation when it is asked for one.

Annotations come from strangers. Names in them never lead out of the data set's folder, numbers are checked before they are
used, and whatever is refused is refused with one line (:class:`faithmap.data.AnnotationError`).
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from faithmap.data.files import AnnotationError
from faithmap.data.images import read_image
from faithmap.data.segmentation import Segmentation
from faithmap.text import one_line

Box: TypeAlias = tuple[float, float, float, float]

MAX_PIXELS = 100_000_000
"""Of a photograph, as :func:`faithmap.data.read_image` has it."""


@dataclass(frozen=True)
class AnnotatedObject:
    """One object in a photograph, or a crowd of them.

    Attributes:
        name: of its class, as the data set has it.
        index: of its class in the data set's own order; None where the data set's order is not known. It is the model's only
            where the model was trained on that data set.
        box: (left, top, right, bottom) in pixels from the photograph's top left corner, right and bottom excluded; it lies
            within the photograph.
        difficult: marked as hard to recognise (VOC).
        crowd: one region around many objects (COCO).
        segmentation: its outline, where the data set has one.
    """

    name: str
    index: int | None
    box: Box
    difficult: bool = False
    crowd: bool = False
    segmentation: Segmentation | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """A photograph and the objects in it.

    Attributes:
        path: of the photograph, which is not opened before it is read.
        size: (height, width), as the annotation has it.
        objects: in the annotation's order.
        source: the file that holds the annotation.
    """

    path: Path
    size: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]
    source: Path

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the photograph, each once."""
        return tuple(dict.fromkeys(item.name for item in self.objects))

    def of(self, name: str | None = None, *, difficult: bool = True, crowd: bool = True) -> tuple[AnnotatedObject, ...]:
        """The objects of a class, or all.

        Args:
            name: of the class; None for all classes.
            difficult: with those that are marked so.
            crowd: with crowds.
        """
        wanted = (item for item in self.objects if name is None or item.name == name)
        return tuple(item for item in wanted if (difficult or not item.difficult) and (crowd or not item.crowd))

    def boxes(self, name: str | None = None, *, difficult: bool = True, crowd: bool = True) -> Float[Tensor, "k 4"]:
        """The boxes of a class, or of all objects; arguments as for :meth:`of`."""
        boxes = [item.box for item in self.of(name, difficult=difficult, crowd=crowd)]
        return torch.tensor(boxes, dtype=torch.float64).view(-1, 4)

    def mask(self, name: str | None = None, *, difficult: bool = True, crowd: bool = True) -> Bool[Tensor, "h w"]:
        """The pixels of a class's objects together, decoded now; arguments as for :meth:`of`.

        Raises:
            AnnotationError: for an object without an outline, or with one that makes no sense.
            ModuleNotFoundError: for a polygon, where pycocotools is missing.
        """
        together = torch.zeros(self.size, dtype=torch.bool)
        for item in self.of(name, difficult=difficult, crowd=crowd):
            if item.segmentation is None:
                raise self._refused(f"an object {item.name!r} has a box alone", "use boxes, or a data set with masks")
            try:
                together |= item.segmentation.mask(self.size)
            except ValueError as error:
                raise self._refused(f"the outline of an object {item.name!r} {error}", "leave this photograph out") from error
        return together

    def read(self) -> Float[Tensor, "1 3 h w"]:
        """The photograph, as :func:`faithmap.data.read_image` reads it.

        Raises:
            ImageError: for what is not an image that can be read safely.
            AnnotationError: for a photograph of another size than was annotated; the objects would lie elsewhere on it.
        """
        photo = read_image(self.path)
        if photo.shape[-2:] != self.size:
            found = f"{photo.shape[-2]} x {photo.shape[-1]}"
            problem = (
                f"annotates {self.size[0]} x {self.size[1]} pixels (height x width), but {self.path} has {found} when upright"
            )
            raise self._refused(problem, "leave this photograph out")
        return photo

    def _refused(self, problem: str, remedy: str) -> AnnotationError:
        return annotation_error(self.source, problem, remedy)


class AnnotatedImages(Sequence[AnnotatedImage]):
    """Base of the readers."""

    @overload
    def __getitem__(self, index: int) -> AnnotatedImage: ...
    @overload
    def __getitem__(self, index: slice) -> list[AnnotatedImage]: ...
    def __getitem__(self, index: int | slice) -> AnnotatedImage | list[AnnotatedImage]:
        if isinstance(index, slice):
            return [self._read(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"photograph {index} of {len(self)}")
        return self._read(index % len(self))

    @abstractmethod
    def _read(self, index: int) -> AnnotatedImage:
        """The photograph of that number, from 0."""


def annotation_error(source: str | os.PathLike[str], problem: object, remedy: str) -> AnnotationError:
    """The error to raise, on one line, its control characters escaped."""
    return AnnotationError(one_line(f"{os.fspath(source)}: {problem}; {remedy}"))


def inside(folder: Path, name: str, source: Path) -> Path:
    """The file of that name in the folder or below, whatever a stranger wrote as its name.

    A folder may be reached by a link; a file in it that is a link to somewhere outside is refused.

    Raises:
        AnnotationError: for a name that leads out of the folder, or is none.
    """
    shown = repr(name[:100])
    if not name.isprintable() or re.match(r"$|/|[A-Za-z]:", name) or "\\" in name or ".." in name.split("/"):
        raise annotation_error(source, f"names a file {shown}", "give plain names of files in the data set's folder")
    path = folder / name
    try:
        leaves = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:
        raise annotation_error(source, f"names a file {shown} that cannot be found ({error})", "repair the links") from error
    if leaves:
        raise annotation_error(source, f"names a file {shown} that is a link out of {folder}", "give the data set's own files")
    return path


def checked_size(height: float, width: float, source: Path) -> tuple[int, int]:
    """(height, width) as whole numbers.

    Raises:
        AnnotationError: for a size that no photograph has.
    """
    if not (height >= 1 and width >= 1 and height * width <= MAX_PIXELS and height == int(height) and width == int(width)):
        problem = f"a photograph of {str(height)[:12]} x {str(width)[:12]} pixels"
        raise annotation_error(source, problem, f"give a size in whole pixels, of {MAX_PIXELS} at most")
    return int(height), int(width)


def clipped(box: Iterable[float], size: tuple[int, int], source: Path) -> Box:
    """The part of a box, (left, top, right, bottom), that lies on a photograph of that size.

    Raises:
        AnnotationError: for a box that is inside out, has no part there or is not finite.
    """
    left, top, right, bottom = given = tuple(box)
    height, width = size
    across = left <= right and left < width and (right > 0 or left >= 0)
    down = top <= bottom and top < height and (bottom > 0 or top >= 0)
    if not (across and down):
        corners = ", ".join(str(number)[:12] for number in given)
        problem = f"has a box ({corners}) as left, top, right, bottom on a photograph of {height} x {width} pixels"
        raise annotation_error(
            source, problem, "give boxes that lie on the photograph, left before right and top before bottom"
        )
    return max(float(left), 0.0), max(float(top), 0.0), float(min(right, width)), float(min(bottom, height))
