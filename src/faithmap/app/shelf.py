"""The photographs that visitors gave: each under a word that nobody can guess, and only so many at once.

A photograph is kept as the bytes that came, in memory alone. The word goes to the browser that gave them, and to no other: who
does not know it cannot ask about the photograph.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from faithmap.app.words import RefusedError
from faithmap.data import ImageError, read_image, sample_photo
from faithmap.text import one_line

MAX_BYTES = 16 * 2**20
MAX_PIXELS = 25_000_000
MAX_KEPT = 64
MAX_TOGETHER = 256 * 2**20
"""Of one photograph: bytes, and pixels; of all: how many, and their bytes. The oldest go first."""

SAMPLES = ("chelsea", "coffee")
"""Bundled photographs, the first one shown when the page opens."""

GONE = "this photograph is no longer here; choose it again"


@dataclass(frozen=True)
class Upload:
    """A photograph's name and content; ``sample`` is the name of a bundled one."""

    name: str
    data: bytes
    sample: str | None = None


class Shelf:
    """Where photographs are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Upload] = OrderedDict()

    def put(self, name: str, data: bytes) -> str:
        """Read it once, to see that it can be, and keep it.

        Returns:
            The word for it.

        Raises:
            RefusedError: for what cannot be read safely, or is too large; one line.
        """
        upload = Upload(plain(name), data)
        check(upload)
        word = secrets.token_urlsafe(24)
        with self._lock:
            self._kept[word] = upload
            while len(self._kept) > MAX_KEPT or sum(len(kept.data) for kept in self._kept.values()) > MAX_TOGETHER:
                self._kept.popitem(last=False)
        return word

    def get(self, word: str) -> Upload:
        """The photograph of that word; a bundled one goes by its name.

        Raises:
            RefusedError: where there is none, or no longer.
        """
        if word in SAMPLES:
            path = sample_photo(word)
            return Upload(path.name, path.read_bytes(), word)
        with self._lock:
            if word not in self._kept:
                raise RefusedError(GONE)
            self._kept.move_to_end(word)
            return self._kept[word]

    def held(self, words: Iterable[str]) -> set[str]:
        """Of these, the words of photographs that are here."""
        with self._lock:
            return {word for word in words if word in self._kept}

    def drop(self, words: Iterable[str]) -> None:
        """Forget these."""
        with self._lock:
            for word in words:
                self._kept.pop(word, None)

    def __len__(self) -> int:
        return len(self._kept)


def check(upload: Upload) -> None:
    """Read a photograph with the library's safe reader, within the limits of the page.

    Raises:
        RefusedError: one line, the file's name in front.
    """
    if len(upload.data) > MAX_BYTES:
        raise RefusedError(too_large(upload.name))
    try:
        read_image(upload.data, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    except ImageError as error:
        problem = str(error).removeprefix("image bytes: ")
        problem = problem.replace(f"max_pixels={MAX_PIXELS}", f"the {MAX_PIXELS / 1e6:.0f} million that this page takes")
        raise RefusedError(f"{upload.name}: {problem}") from error


def too_large(name: str) -> str:
    """What is said of a file for its size."""
    return f"{name}: more than the {MAX_BYTES // 2**20} MB that this page takes; give a smaller file"


def plain(name: str) -> str:
    r"""A file's name as the result and the command may say it: no folder, nothing that does not print, not too long.

    >>> plain("../../etc/x.png"), plain("C:\\cats\\a b.jpg"), plain("..")
    ('x.png', 'a b.jpg', 'photo')
    """
    last = PurePosixPath(PureWindowsPath(name).name).name
    safe = "".join(char if char.isprintable() and char not in '<>:"|?*`$;&' else "_" for char in one_line(last))
    path = Path(safe.strip(". -") or "photo")
    return path.stem[:80] + path.suffix[:10]
