"""The images of a shard as the model's input, read once for all methods, in threads ahead of the computation."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.bench.dataset import DatasetItem, DatasetSource
from faithmap.data import read_image
from faithmap.data.files import file_bytes
from faithmap.model import Classifier

MAX_IMAGE_BYTES = 64 * 2**20
READERS = max(1, min(4, os.cpu_count() or 1))

_thread = threading.local()


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
        error: why there is no image.
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
    _thread.warnings = loaded.warnings
    try:
        data = file_bytes(source.file(item), MAX_IMAGE_BYTES)
        loaded.sha256 = hashlib.sha256(data).hexdigest()
        image = read_image(data, max_bytes=MAX_IMAGE_BYTES)
        loaded.size = (image.shape[-2], image.shape[-1])
        loaded.objects = source.objects(item) if boxes else None
        loaded.image = model.preprocess(image)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, OSError, ImportError) as error:
        text = str(error)
        loaded.error = item.path + text.removeprefix("image bytes") if text.startswith("image bytes") else text
    finally:
        _thread.warnings = None
    return loaded


@contextmanager
def image_warnings() -> Iterator[None]:
    """Store warnings of :func:`load_image` with its image, in whichever thread; drop all others, which the rows have anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")

        def store(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            del args, kwargs
            stored = getattr(_thread, "warnings", None)
            if stored is not None:
                stored.append(str(message).removeprefix("image bytes: "))

        warnings.showwarning = store
        yield


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
