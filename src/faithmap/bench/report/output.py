"""A report's folder, complete or absent: written aside, brought to the disk, and renamed.

An older report goes when the new one is there, and comes back if that fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from faithmap.bench.report.run_record import RunError
from faithmap.files import complete_or_absent

PAGE, PROSE = "report.html", "report.md"


def write_folder(folder: Path, texts: Mapping[str, str | Iterable[str]]) -> None:
    """Write every file, a text or its lines, or none.

    Raises:
        RunError: where the folder holds what is no report, or cannot be written.
    """
    if os.path.lexists(folder) and not _is_report(folder):
        raise RunError(f"{folder} holds what is no report, and is not replaced; move it, or give another --out")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with complete_or_absent(folder, overwrite=True) as aside:
            for name, text in texts.items():
                _write(aside / name, text)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); give another --out") from error


def _write(path: Path, text: str | Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines([text] if isinstance(text, str) else text)


def _is_report(folder: Path) -> bool:
    """A folder that is empty, or holds a page and nothing but files of a report."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or (PAGE in names and all(name in (PAGE, PROSE) or name.endswith(".csv") for name in names))
