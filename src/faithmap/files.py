"""Write files and folders that are complete or absent: under a temporary name, synced to disk, and then renamed.

A folder that is replaced is first renamed, too, and restored after an error. A partial result is never visible under the
final name.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file completely, or not at all.

    Raises:
        OSError: if it cannot be written; an existing file is then unchanged.
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
    """A temporary folder that gets its final name at the end of the block, and is deleted if the block fails."""
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
    """Sync a file or folder to disk; Windows cannot sync a folder."""
    if os.name != "posix":
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
