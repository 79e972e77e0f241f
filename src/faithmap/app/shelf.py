"""Uploads: the photographs of visitors, stored in memory under a secret session token.

The bytes of a file are stored as they were sent, and never written to disk. Only the browser that sent a file receives its
token; without the token no request can use the file.
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
from faithmap.errors import one_line

MAX_UPLOAD_BYTES = 16 * 2**20
MAX_UPLOAD_PIXELS = 25_000_000
MAX_UPLOADS = 64
MAX_TOTAL_BYTES = 256 * 2**20
"""Limits: bytes and pixels of one photograph, number of photographs, bytes of all. The least recently used ones are dropped."""

SAMPLES = ("chelsea", "coffee")
"""Sample photographs; the page opens with the first one."""

GONE = "this photograph is no longer here; choose it again"


@dataclass(frozen=True)
class Upload:
    """A photograph: name, content, and the name of a sample photograph if it is one."""

    name: str
    data: bytes
    sample: str | None = None


class Uploads:
    """The photographs of all visitors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stored: OrderedDict[str, Upload] = OrderedDict()

    def put(self, name: str, data: bytes) -> str:
        """Check that a photograph can be read, and store it.

        Returns:
            The secret token.

        Raises:
            RefusedError: for a file that cannot be read safely, or is too large; one line.
        """
        upload = Upload(plain(name), data)
        check(upload)
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._stored[token] = upload
            while len(self._stored) > MAX_UPLOADS or self._total_bytes() > MAX_TOTAL_BYTES:
                self._stored.popitem(last=False)
        return token

    def get(self, token: str) -> Upload:
        """The photograph of that token; the token of a sample photograph is its name.

        Raises:
            RefusedError: if there is no such photograph, or no longer.
        """
        if token in SAMPLES:
            path = sample_photo(token)
            return Upload(path.name, path.read_bytes(), token)
        with self._lock:
            if token not in self._stored:
                raise RefusedError(GONE)
            self._stored.move_to_end(token)
            return self._stored[token]

    def existing(self, tokens: Iterable[str]) -> set[str]:
        """Those of the tokens that belong to a stored photograph."""
        with self._lock:
            return {token for token in tokens if token in self._stored}

    def drop(self, tokens: Iterable[str]) -> None:
        """Forget these photographs."""
        with self._lock:
            for token in tokens:
                self._stored.pop(token, None)

    def __len__(self) -> int:
        return len(self._stored)

    def _total_bytes(self) -> int:
        return sum(len(upload.data) for upload in self._stored.values())


def check(upload: Upload) -> None:
    """Read a photograph with the library's safe reader, within the limits of the page.

    Raises:
        RefusedError: one line, with the file's name in front.
    """
    if len(upload.data) > MAX_UPLOAD_BYTES:
        raise RefusedError(too_large(upload.name))
    try:
        read_image(upload.data, max_bytes=MAX_UPLOAD_BYTES, max_pixels=MAX_UPLOAD_PIXELS)
    except ImageError as error:
        problem = str(error).removeprefix("image bytes: ")
        limit = f"the limit of {MAX_UPLOAD_PIXELS / 1e6:.0f} million"
        problem = problem.replace(f"max_pixels={MAX_UPLOAD_PIXELS}", limit)
        raise RefusedError(f"{upload.name}: {problem}") from error


def too_large(name: str) -> str:
    """The message for a file of too many bytes."""
    return f"{name}: larger than the limit of {MAX_UPLOAD_BYTES // 2**20} MB; give a smaller file"


def plain(name: str) -> str:
    r"""A file's name for results and commands: without folders and unprintable characters, and not too long.

    >>> plain("../../etc/x.png"), plain("C:\\cats\\a b.jpg"), plain("..")
    ('x.png', 'a b.jpg', 'photo')
    """
    last = PurePosixPath(PureWindowsPath(name).name).name
    safe = "".join(char if char.isprintable() and char not in '<>:"|?*`$;&' else "_" for char in one_line(last))
    path = Path(safe.strip(". -") or "photo")
    return path.stem[:80] + path.suffix[:10]
