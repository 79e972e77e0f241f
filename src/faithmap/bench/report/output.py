"""A report's folder, complete or absent: written aside, brought to the disk, and renamed.

An older report goes when the new one is there, and comes back if that fails.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from faithmap.bench.report.folder import RunError

PAGE, PROSE = "report.html", "report.md"


def write_folder(folder: Path, texts: Mapping[str, str]) -> None:
    """Write every file, or none.

    Raises:
        RunError: where the folder holds what is no report, or cannot be written.
    """
    token = secrets.token_hex(4)
    partial, older = (folder.with_name(f".{folder.name}.{token}.{kind}") for kind in ("partial", "older"))
    if os.path.lexists(folder) and not _is_report(folder):
        raise RunError(f"{folder} holds what is no report, and is not replaced; move it, or give another --out")
    try:
        partial.mkdir(parents=True)
        for name, text in texts.items():
            _write(partial / name, text)
        if os.path.lexists(folder):
            folder.rename(older)
        partial.rename(folder)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); give another --out") from error
    finally:
        if os.path.lexists(older) and not os.path.lexists(folder):
            older.rename(folder)
        for path in (partial, older):
            shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _is_report(folder: Path) -> bool:
    """A folder that is empty, or holds a page and nothing but files of a report."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or (PAGE in names and all(name in (PAGE, PROSE) or name.endswith(".csv") for name in names))
