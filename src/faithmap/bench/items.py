"""Items: what a benchmark's rows are about. An image; where the data set has boxes, an image and a class in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Item(NamedTuple):
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


@dataclass(frozen=True)
class Items:
    """All of them, and how they are cut into shards."""

    items: Sequence[Item]
    shard_size: int

    def __len__(self) -> int:
        return len(self.items)

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-len(self.items) // self.shard_size)

    def shard(self, number: int) -> Sequence[Item]:
        """The items of one shard."""
        return self.items[number * self.shard_size : (number + 1) * self.shard_size]

    def digests(self) -> list[str]:
        """Of each shard: its items, by name, class and size of the file."""
        return [hashlib.sha256(_bytes(self.shard(number))).hexdigest() for number in range(self.shards)]


def digest_of(parts: Sequence[str]) -> str:
    """Of all shards together."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _bytes(items: Sequence[Item]) -> bytes:
    return json.dumps(items, ensure_ascii=True).encode()
