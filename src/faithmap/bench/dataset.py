"""The data set: an index of its items, the layouts it can have on disk (folder, CSV, ImageNet, VOC, COCO), and its images.

The index needs only names and file sizes, and annotations where there are boxes. The images of a shard are read as the model's
input once for all methods, in threads ahead of the computation.
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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.data import AnnotatedImages, COCOInstances, FileError, ImageNetBoxes, VOCBoxes, imagenet_classes, read_image
from faithmap.data.annotations import inside
from faithmap.data.images import AnnotationError, file_bytes, image_names
from faithmap.errors import BenchError
from faithmap.model import Classifier
from faithmap.seeds import derived
from faithmap.warning_types import recorded

if TYPE_CHECKING:
    from faithmap.bench.spec import DataSpec

MAX_CSV_BYTES = 256 * 2**20


class DatasetItem(NamedTuple):
    """The subject of one result row: an image, or, in a data set with boxes, an image and a class in it.

    Attributes:
        number: in the data set, before sampling.
        path: of the image, relative to the data set's folder; untrusted.
        size: of the file in bytes; -1 if unknown.
        target: the class to explain, by the model's number or name; None for the predicted class.
        label: the data set's name of the class; None if it has none.
        annotation: number of the annotated image, in a data set with boxes.
    """

    number: int
    path: str
    size: int
    target: int | str | None = None
    label: str | None = None
    annotation: int | None = None


class DatasetIndex(Sequence[DatasetItem]):
    """Items stored in columns: an item takes 40 bytes and its name, and each class is stored once.

    >>> items = DatasetIndex([DatasetItem(0, "a.png", 10), DatasetItem(7, "b.png", 20, 3, "dog")])
    >>> items[1].label, [item.path for item in items[:2]]
    ('dog', ['a.png', 'b.png'])
    """

    def __init__(self, items: Iterable[DatasetItem]) -> None:
        self._names = bytearray()
        self._name_ends, self._numbers, self._sizes, self._annotations = (array("q") for _ in range(4))
        self._class = array("i")
        codes: dict[tuple[int | str | None, str | None], int] = {}
        for number, path, size, target, label, annotation in items:
            self._names += path.encode("utf-8", "surrogatepass")
            self._name_ends.append(len(self._names))
            self._numbers.append(number)
            self._sizes.append(size)
            self._class.append(codes.setdefault((target, label), len(codes)))
            self._annotations.append(-1 if annotation is None else annotation)
        self._classes = list(codes)

    def __len__(self) -> int:
        return len(self._name_ends)

    @overload
    def __getitem__(self, index: int) -> DatasetItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[DatasetItem]: ...
    def __getitem__(self, index: int | slice) -> DatasetItem | list[DatasetItem]:
        """An item, or a list of items."""
        rows = range(len(self))[index]
        return self._item(rows) if isinstance(rows, int) else [self._item(row) for row in rows]

    def _item(self, row: int) -> DatasetItem:
        name = self._names[self._name_ends[row - 1] if row else 0 : self._name_ends[row]].decode("utf-8", "surrogatepass")
        target, label = self._classes[self._class[row]]
        annotation = self._annotations[row]
        return DatasetItem(self._numbers[row], name, self._sizes[row], target, label, None if annotation < 0 else annotation)


@dataclass(frozen=True)
class ShardedDataset:
    """All items, in shards of equal size; the last shard may be smaller."""

    items: Sequence[DatasetItem]
    shard_size: int

    def __len__(self) -> int:
        return len(self.items)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self.items) // self.shard_size)

    def shard(self, number: int) -> Sequence[DatasetItem]:
        """The items of one shard."""
        return self.items[number * self.shard_size : (number + 1) * self.shard_size]

    def digests(self) -> list[str]:
        """SHA-256 of each shard: names, classes and file sizes of its items."""
        return [hashlib.sha256(json.dumps(self.shard(i), ensure_ascii=True).encode()).hexdigest() for i in range(self.shards)]


class DatasetSource(ABC):
    """A data set on disk.

    Args:
        data: the specification's data, with absolute paths.
    """

    def __init__(self, data: DataSpec) -> None:
        self.data = data
        self.root = data.path

    @abstractmethod
    def all_items(self) -> Iterator[DatasetItem]:
        """All items, always in the same order."""

    def items(self, seed: int) -> DatasetIndex:
        """All items, or the specification's sample of them, in the data set's order.

        Raises:
            BenchError: if the data set cannot be read or is empty.
        """
        try:
            index = DatasetIndex(self.all_items())
        except FileError as error:
            raise BenchError(error) from error
        if not index:
            raise BenchError(f"{self.root}: holds no images of kind {self.data.kind!r}; give another data set")
        sample = self.data.sample
        if sample is None or sample >= len(index):
            return index
        chosen = random.Random(derived(seed, "sample")).sample(range(len(index)), sample)  # noqa: S311 - no secret
        return DatasetIndex(index[i] for i in sorted(chosen))

    def file(self, item: DatasetItem) -> Path:
        """The image file."""
        return self.root / item.path

    def objects(self, item: DatasetItem) -> Tensor:
        """The objects of the item's class: boxes ``(k, 4)``, or masks ``(k, h, w)`` of their outlines."""
        raise BenchError(f"{self.data.kind} has no boxes of {item.path}")

    def _make_item(self, number: int, name: str, target: int | str | None = None, label: str | None = None) -> DatasetItem:
        return DatasetItem(
            number, name, _file_size(f"{self.root}/{name}"), target if self.data.explains_labels else None, label
        )

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


class FolderSource(DatasetSource):
    """All images in a folder and its subfolders, by path."""

    def all_items(self) -> Iterator[DatasetItem]:  # noqa: D102
        for number, name in enumerate(image_names(self.root)):
            yield self._make_item(number, name)


class CsvSource(DatasetSource):
    """The images of a CSV file: a column ``path``, relative to the file, and optionally ``target``, a class name or number."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self.root = data.path.parent

    def all_items(self) -> Iterator[DatasetItem]:  # noqa: D102
        file = self.data.path
        try:
            content = io.BytesIO(file_bytes(file, MAX_CSV_BYTES, AnnotationError))
            rows = csv.DictReader(io.TextIOWrapper(content, "utf-8-sig", newline=""), strict=True)
            self._check_columns(rows.fieldnames or ())
            for number, row in enumerate(rows):
                target = _class_number((row.get("target") or "").strip() or None)
                if self.data.explains_labels and target is None:
                    raise BenchError(f"{file}: image {number + 1} has no target; give one, or explain the predicted class")
                label = target if isinstance(target, str) else None
                yield self._make_item(number, self._relative(inside(self.root, row["path"] or "", file)), target, label)
        except (UnicodeDecodeError, csv.Error) as error:
            raise BenchError(f"{file}: no table ({error}); give a CSV file in UTF-8") from error

    def _check_columns(self, names: Sequence[str]) -> None:
        file = self.data.path
        if "path" not in names:
            raise BenchError(f"{file}: has no column 'path'; give one with the images' paths, relative to the file")
        if self.data.explains_labels and "target" not in names:
            raise BenchError(f"{file}: has no column 'target'; give one, or explain the predicted class")


class ImageNetSource(DatasetSource):
    """ImageNet's validation images: one folder per class, named by its WordNet id, or a single folder without labels."""

    def all_items(self) -> Iterator[DatasetItem]:  # noqa: D102
        classes = imagenet_classes() if self.data.explains_labels else {}
        for number, name in enumerate(image_names(self.root)):
            label = (self.root / name).parent.name
            if self.data.explains_labels and label not in classes:
                raise BenchError(f"{self.root / name}: is in no class folder such as n01440764; explain the predicted class")
            yield self._make_item(number, name, classes.get(label), label)


class AnnotatedSource(DatasetSource):
    """A data set with boxes or outlines; an item is an image and a class in it."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        try:
            self.images = _open_annotations(data)
        except FileError as error:
            raise BenchError(error) from error

    def all_items(self) -> Iterator[DatasetItem]:
        """By image and class; a class of which all objects are difficult or crowds is left out."""
        number = 0
        for annotation in range(len(self.images)):
            image = self.images[annotation]
            for name in image.classes:
                if image.of(name, difficult=False, crowd=False):
                    target = self.data.classes.get(name, image.of(name)[0].index)
                    item = self._make_item(number, self._relative(image.path), target, name)
                    yield item._replace(annotation=annotation)
                    number += 1

    def objects(self, item: DatasetItem) -> Tensor:
        """All objects of the class: their boxes, or one mask of their outlines if the specification wants it."""
        assert item.annotation is not None  # noqa: S101
        image = self.images[item.annotation]
        return image.mask(item.label).unsqueeze(0) if self.data.outlines else image.boxes(item.label)


def _open_annotations(data: DataSpec) -> AnnotatedImages:
    if data.kind == "voc":
        return VOCBoxes(data.path, data.split)
    assert data.annotations is not None  # noqa: S101 - checked with the specification
    return (COCOInstances if data.kind == "coco" else ImageNetBoxes)(data.path, data.annotations)


def open_source(data: DataSpec) -> DatasetSource:
    """Open the data set of a specification.

    Raises:
        BenchError: if it cannot be read.
    """
    if data.boxed:
        return AnnotatedSource(data)
    kinds: dict[str, Callable[[DataSpec], DatasetSource]] = {
        "folder": FolderSource,
        "csv": CsvSource,
        "imagenet": ImageNetSource,
    }
    return kinds[data.kind](data)


def with_absolute_paths(data: DataSpec, base: Path) -> DataSpec:
    """The same data set; relative paths start at the base folder."""
    paths = {name: getattr(data, name) for name in ("path", "annotations")}
    return data.model_copy(update={name: base.resolve() / path for name, path in paths.items() if path is not None})


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a Path would double the time and memory of listing
    except (OSError, ValueError):
        return -1


def _class_number(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else text


MAX_IMAGE_BYTES = 64 * 2**20
READERS = max(1, min(4, os.cpu_count() or 1))


@dataclass
class LoadedImage:
    """The image of an item.

    Attributes:
        item: the item.
        image: the model's input; None if the file could not be read.
        sha256: of the file.
        size: (height, width) of the file's image.
        objects: boxes or masks of the item's class, if wanted.
        warnings: raised while reading.
        error: the reason if there is no image.
    """

    item: DatasetItem
    image: Float[Tensor, "1 3 h w"] | None = None
    sha256: str | None = None
    size: tuple[int, int] | None = None
    objects: Tensor | None = None
    warnings: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def seed(self) -> int:
        """Seed part of the image's random numbers; it depends only on the file's content."""
        return int((self.sha256 or "0")[:16], 16)


def load_image(item: DatasetItem, source: DatasetSource, model: Classifier, *, boxes: bool) -> LoadedImage:
    """Read and preprocess an image; if that fails, the result has an error."""
    loaded = LoadedImage(item)
    try:
        data = file_bytes(source.file(item), MAX_IMAGE_BYTES)
        loaded.sha256 = hashlib.sha256(data).hexdigest()
        with recorded() as messages:
            image = read_image(data, max_bytes=MAX_IMAGE_BYTES)
        loaded.warnings += [message.removeprefix("image bytes: ") for message in messages]
        loaded.size = (image.shape[-2], image.shape[-1])
        loaded.objects = source.objects(item) if boxes else None
        loaded.image = model.preprocess(image)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, OSError, ImportError) as error:
        text = str(error)
        loaded.error = item.path + text.removeprefix("image bytes") if text.startswith("image bytes") else text
    return loaded


class ImageReader:
    """Reads images in a few threads.

    Args:
        source: the data set.
        boxes: whether the objects are wanted, too.
    """

    def __init__(self, source: DatasetSource, *, boxes: bool) -> None:
        self.source, self.boxes = source, boxes
        self.pool = ThreadPoolExecutor(READERS, "images")

    def start(self, items: Sequence[DatasetItem], model: Classifier) -> list[Future[LoadedImage]]:
        """Start to read."""
        return [self.pool.submit(load_image, item, self.source, model, boxes=self.boxes) for item in items]

    def close(self) -> None:
        """Cancel what has not started, and end the threads."""
        self.pool.shutdown(wait=True, cancel_futures=True)


def grouped_by_shape(images: Sequence[LoadedImage]) -> list[list[LoadedImage]]:
    """Images of equal shape, which can be explained together; images with an error are left out."""
    groups: dict[torch.Size, list[LoadedImage]] = {}
    for loaded in images:
        if loaded.image is not None:
            groups.setdefault(loaded.image.shape, []).append(loaded)
    return list(groups.values())
