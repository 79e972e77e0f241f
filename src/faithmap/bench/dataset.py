"""Sources: a data set as a list of items, and what can be asked of one: its file, its objects.

Nothing but names and sizes is read when a source is listed, and annotations where there are boxes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

from faithmap.bench.errors import BenchError
from faithmap.data import AnnotatedImages, COCOInstances, FileError, ImageNetBoxes, VOCBoxes, imagenet_classes
from faithmap.data.annotations import inside
from faithmap.data.files import AnnotationError, file_bytes, image_names
from faithmap.seeds import derived

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from faithmap.bench.spec import DataSpec


MAX_TABLE = 256 * 2**20


class DatasetSource(ABC):
    """A data set.

    Args:
        data: as it was specified, its paths resolved.
    """

    def __init__(self, data: DataSpec) -> None:
        self.data = data
        self.root = data.path

    @abstractmethod
    def listed(self) -> Iterator[DatasetItem]:
        """All items, in an order that is always the same."""

    def items(self, seed: int) -> DatasetIndex:
        """Those that were asked for: all, or a sample in the data set's order.

        Raises:
            BenchError: for a data set that cannot be read or is empty.
        """
        try:
            every = DatasetIndex(self.listed())
        except FileError as error:
            raise BenchError(error) from error
        if not every:
            raise BenchError(f"{self.root}: holds no images of kind {self.data.kind!r}; give another data set")
        wanted = self.data.sample
        if wanted is None or wanted >= len(every):
            return every
        chosen = random.Random(derived(seed, "sample")).sample(range(len(every)), wanted)  # noqa: S311 - no secret
        return DatasetIndex(every[i] for i in sorted(chosen))

    def file(self, item: DatasetItem) -> Path:
        """Where the image lies."""
        return self.root / item.path

    def boxes(self, item: DatasetItem) -> Float[Tensor, "k 4"] | Tensor:
        """The objects of the item's class: boxes, or masks where the data set has outlines."""
        raise BenchError(f"{self.data.kind} has no boxes of {item.path}")

    def _item(self, index: int, name: str, target: int | str | None = None, label: str | None = None) -> DatasetItem:
        """The name is relative to the root."""
        wanted = target if self.data.asks_for_labels else None
        return DatasetItem(index, name, _size(f"{self.root}/{name}"), wanted, label)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


class FolderSource(DatasetSource):
    """All images in a folder and its subfolders."""

    def listed(self) -> Iterator[DatasetItem]:
        """By path."""
        for index, name in enumerate(image_names(self.root)):
            yield self._item(index, name)


class CsvSource(DatasetSource):
    """A CSV file: a column ``path``, relative to the file, and perhaps ``target``, a class by name or number."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self.root = data.path.parent

    def listed(self) -> Iterator[DatasetItem]:
        """In the table's order."""
        name = self.data.path
        try:
            content = io.BytesIO(file_bytes(name, MAX_TABLE, AnnotationError))
            rows = csv.DictReader(io.TextIOWrapper(content, "utf-8-sig", newline=""), strict=True)
            if "path" not in (rows.fieldnames or ()):
                raise BenchError(f"{name}: has no column 'path'; give one with the images' paths, relative to the file")
            if self.data.asks_for_labels and "target" not in (rows.fieldnames or ()):
                raise BenchError(f"{name}: has no column 'target'; give one, or explain the predicted class")
            for index, row in enumerate(rows):
                target = _number((row.get("target") or "").strip() or None)
                if self.data.asks_for_labels and target is None:
                    raise BenchError(f"{name}: image {index + 1} has no target; give one, or explain the predicted class")
                label = target if isinstance(target, str) else None
                yield self._item(index, self._name(inside(self.root, row["path"] or "", name)), target, label)
        except (UnicodeDecodeError, csv.Error) as error:
            raise BenchError(f"{name}: no table ({error}); give a CSV file in UTF-8") from error


class ImageNetSource(DatasetSource):
    """The validation images, one folder for each class, named by its WordNet id; or in one folder, without labels."""

    def listed(self) -> Iterator[DatasetItem]:
        """By path."""
        classes = imagenet_classes() if self.data.asks_for_labels else {}
        for index, name in enumerate(image_names(self.root)):
            label = (self.root / name).parent.name
            if self.data.asks_for_labels and label not in classes:
                raise BenchError(
                    f"{self.root / name}: lies in no folder of a class such as n01440764; explain the predicted class"
                )
            yield self._item(index, name, classes.get(label), label)


class AnnotatedSource(DatasetSource):
    """An annotated data set: an item is an image and a class in it."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        try:
            self.images, self.root = self._open()
        except FileError as error:
            raise BenchError(error) from error

    def _open(self) -> tuple[AnnotatedImages, Path]:
        data = self.data
        if data.kind == "voc":
            return VOCBoxes(data.path, data.split), data.path
        assert data.annotations is not None  # noqa: S101 - the specification was checked
        reader = COCOInstances if data.kind == "coco" else ImageNetBoxes
        return reader(data.path, data.annotations), data.path

    def listed(self) -> Iterator[DatasetItem]:
        """By photograph, its classes in the annotation's order; difficult objects and crowds alone make no item."""
        index = 0
        for number in range(len(self.images)):
            photo = self.images[number]
            for name in photo.classes:
                if photo.of(name, difficult=False, crowd=False):
                    known = self.data.classes.get(name, photo.of(name)[0].index)
                    yield self._item(index, self._name(photo.path), known, name)._replace(photo=number)
                    index += 1

    def boxes(self, item: DatasetItem) -> Float[Tensor, "k 4"] | Tensor:
        """Outlines of COCO, boxes of others; all objects of the class."""
        assert item.photo is not None  # noqa: S101
        photo = self.images[item.photo]
        if self.data.kind == "coco":
            return photo.mask(item.label).unsqueeze(0)
        return photo.boxes(item.label)


def open_source(data: DataSpec) -> DatasetSource:
    """The data set that a specification names.

    Raises:
        BenchError: where it cannot be read.
    """
    if data.boxed:
        return AnnotatedSource(data)
    kinds: dict[str, Callable[[DataSpec], DatasetSource]] = {
        "folder": FolderSource,
        "csv": CsvSource,
        "imagenet": ImageNetSource,
    }
    return kinds[data.kind](data)


def resolved(data: DataSpec, base: Path) -> DataSpec:
    """The same with absolute paths; relative ones begin at the base."""
    places = {name: getattr(data, name) for name in ("path", "annotations")}
    return data.model_copy(update={name: base.resolve() / p for name, p in places.items() if p is not None})


def targets_of(items: Iterable[DatasetItem]) -> set[str]:
    """The classes that are named rather than numbered, for a model to look up."""
    return {item.target for item in items if isinstance(item.target, str)}


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - paths of a data set as Path take twice the time, and memory
    except (OSError, ValueError):
        return -1


def _number(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else text


class DatasetItem(NamedTuple):
    """One row of every method's table.

    Attributes:
        number: in the data set, before a sample was drawn.
        path: of the image, relative to the data set's folder; untrusted.
        size: of the file, in bytes; -1 where it cannot be had.
        target: the class to explain, as the model counts it; None for the predicted one.
        label: the data set's name of the class; None where it has none.
        photo: the number of the annotation, where there are boxes.
    """

    number: int
    path: str
    size: int
    target: int | str | None = None
    label: str | None = None
    photo: int | None = None


class DatasetIndex(Sequence[DatasetItem]):
    """Items in columns: all names in one piece, numbers as numbers, each class once. One takes 40 bytes and its name.

    >>> items = DatasetIndex([DatasetItem(0, "a.png", 10), DatasetItem(7, "b.png", 20, 3, "dog")])
    >>> items[1].label, [item.path for item in items[:2]]
    ('dog', ['a.png', 'b.png'])
    """

    def __init__(self, items: Iterable[DatasetItem]) -> None:
        self._names = bytearray()
        self._ends, self._numbers, self._sizes, self._photos = (array("q") for _ in range(4))
        self._class = array("i")
        codes: dict[tuple[int | str | None, str | None], int] = {}
        for number, path, size, target, label, photo in items:
            self._names += path.encode("utf-8", "surrogatepass")
            self._ends.append(len(self._names))
            self._numbers.append(number)
            self._sizes.append(size)
            self._class.append(codes.setdefault((target, label), len(codes)))
            self._photos.append(-1 if photo is None else photo)
        self._classes = list(codes)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> DatasetItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[DatasetItem]: ...
    def __getitem__(self, index: int | slice) -> DatasetItem | list[DatasetItem]:
        """An item, or a list of them."""
        places = range(len(self))[index]
        return self._at(places) if isinstance(places, int) else [self._at(place) for place in places]

    def _at(self, place: int) -> DatasetItem:
        name = self._names[self._ends[place - 1] if place else 0 : self._ends[place]].decode("utf-8", "surrogatepass")
        photo = self._photos[place]
        target, label = self._classes[self._class[place]]
        return DatasetItem(self._numbers[place], name, self._sizes[place], target, label, None if photo < 0 else photo)


@dataclass(frozen=True)
class ShardedDataset:
    """All of them, and how they are cut into shards."""

    items: Sequence[DatasetItem]
    shard_size: int

    def __len__(self) -> int:
        return len(self.items)

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-len(self.items) // self.shard_size)

    def shard(self, number: int) -> Sequence[DatasetItem]:
        """The items of one shard."""
        return self.items[number * self.shard_size : (number + 1) * self.shard_size]

    def digests(self) -> list[str]:
        """Of each shard: its items, by name, class and size of the file."""
        return [hashlib.sha256(_bytes(self.shard(number))).hexdigest() for number in range(self.shards)]


def digest_of(parts: Sequence[str]) -> str:
    """Of all shards together."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _bytes(items: Sequence[DatasetItem]) -> bytes:
    return json.dumps(items, ensure_ascii=True).encode()
