"""Photos: the images of a shard as a model sees them, read once for all methods, and ahead of the work."""

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

MAX_BYTES = 64 * 2**20
READERS = max(1, min(4, os.cpu_count() or 1))

_heard = threading.local()


@dataclass
class LoadedImage:
    """An item's image.

    Attributes:
        item: whose it is.
        image: as the model sees it; None where it could not be read.
        sha256: of the file.
        size: (height, width) of the photograph.
        objects: boxes or masks of the item's class, where the data set has them.
        warnings: that came up.
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
    def key(self) -> int:
        """Stands for the image where random numbers are drawn; follows from its content alone."""
        return int((self.sha256 or "0")[:16], 16)


def load_image(item: DatasetItem, source: DatasetSource, model: Classifier, *, boxes: bool) -> LoadedImage:
    """Read a file and show it to the model; what cannot be read has its error."""
    words: list[str] = []
    _heard.words = words
    photo = LoadedImage(item, warnings=words)
    try:
        data = file_bytes(source.file(item), MAX_BYTES)
        photo.sha256 = hashlib.sha256(data).hexdigest()
        whole = read_image(data, max_bytes=MAX_BYTES)
        photo.size = (whole.shape[-2], whole.shape[-1])
        photo.objects = source.boxes(item) if boxes else None
        photo.image = model.preprocess(whole)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, OSError, ImportError) as error:
        photo.error = item.path + text.removeprefix("image bytes") if (text := str(error)).startswith("image bytes") else text
    finally:
        _heard.words = None
    return photo


@contextmanager
def image_warnings() -> Iterator[None]:
    """Warnings of photographs are kept with them, whichever thread reads; all others are passed over: rows have them."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")

        def hear(message: Warning | str, *args: Any, **named: Any) -> None:
            del args, named
            words = getattr(_heard, "words", None)
            if words is not None:
                words.append(str(message).removeprefix("image bytes: "))

        warnings.showwarning = hear
        yield


class ImageReader:
    """Reads photographs ahead, in a few threads.

    Args:
        source: the data set.
        boxes: whether the objects are wanted, too.
    """

    def __init__(self, source: DatasetSource, *, boxes: bool) -> None:
        self.source, self.boxes = source, boxes
        self.pool = ThreadPoolExecutor(READERS, "photos")

    def ask(self, items: Sequence[DatasetItem], model: Classifier) -> list[Future[LoadedImage]]:
        """Begin to read."""
        return [self.pool.submit(load_image, item, self.source, model, boxes=self.boxes) for item in items]

    def close(self) -> None:
        """End the threads; what they have not begun is forgotten."""
        self.pool.shutdown(wait=True, cancel_futures=True)


def grouped_by_shape(photos: Sequence[LoadedImage]) -> list[list[LoadedImage]]:
    """Those with an image, in groups of one size that can be explained together, in order."""
    groups: dict[torch.Size, list[LoadedImage]] = {}
    for photo in photos:
        if photo.image is not None:
            groups.setdefault(photo.image.shape, []).append(photo)
    return list(groups.values())
