"""Files and folders that are complete or absent: made aside, brought to the disk, and renamed.

What is replaced is renamed aside first, too, and comes back if anything goes wrong: no moment leaves half of a thing under its
name.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """All of it under that name, or nothing.

    Raises:
        OSError: where it cannot be written; what stood there before still does.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def complete_or_absent(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to fill, which appears under its name when the block ends, and vanishes if it fails or is interrupted."""
    token = secrets.token_hex(4)
    partial = folder.with_name(f".{folder.name}.{token}.partial")
    older = folder.with_name(f".{folder.name}.{token}.older")
    try:
        partial.mkdir()
        yield partial
        for path in (*partial.iterdir(), partial):
            _sync(path)
        if overwrite and os.path.lexists(folder):
            folder.rename(older)
        partial.rename(folder)
        _sync(folder.parent)
    finally:
        if os.path.lexists(older) and not os.path.lexists(folder):
            older.rename(folder)
        for path in (partial, older):
            shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have the system bring a file or folder to the disk; Windows knows no such thing of a folder."""
    if os.name != "posix":
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
