"""Items: what a benchmark's rows are about. An image; where the data set has boxes, an image and a class in it."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload


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


class Listing(Sequence[Item]):
    """Items in columns: all names in one piece, numbers as numbers, each class once. One takes 40 bytes and its name.

    >>> items = Listing([Item(0, "a.png", 10), Item(7, "b.png", 20, 3, "dog")])
    >>> items[1].label, [item.path for item in items[:2]]
    ('dog', ['a.png', 'b.png'])
    """

    def __init__(self, items: Iterable[Item]) -> None:
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
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        """An item, or a list of them."""
        places = range(len(self))[index]
        return self._at(places) if isinstance(places, int) else [self._at(place) for place in places]

    def _at(self, place: int) -> Item:
        name = self._names[self._ends[place - 1] if place else 0 : self._ends[place]].decode("utf-8", "surrogatepass")
        photo = self._photos[place]
        target, label = self._classes[self._class[place]]
        return Item(self._numbers[place], name, self._sizes[place], target, label, None if photo < 0 else photo)


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
