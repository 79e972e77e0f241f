"""Result folders: their names, their content, which of them may be replaced; and the outcome of a study for each image.

A result folder holds result.json and the files of its study. :func:`faithmap.files.complete_or_absent` writes it. Free of
torch, so that the command line can start without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from faithmap.errors import UserError, os_reason, write_errors
from faithmap.files import complete_or_absent

if TYPE_CHECKING:
    from faithmap.explanation import Explanation
    from faithmap.studies.result_record import StudyRecord

RECORD_FILE = "result.json"

RESULT_FILES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "faithmap.result": frozenset(
            ("overlay.png", "panel.png", "strip.png", "heatmap.npy", "deletion_insertion.gif", "deletion_insertion.webp")
        ),
        "faithmap.comparison": frozenset(("comparison.png",)),
        "faithmap.saturation": frozenset(("saturation.png", "features.png")),
        "faithmap.adversarial": frozenset(
            ("check.png", "adversarial.png", "adversarial.npy", "clean_heatmap.npy", "adversarial_heatmap.npy")
        ),
        "faithmap.choice": frozenset(("ranking.png",)),
    }
)
"""The files beside result.json, by the name of the record's schema, of every study."""

_REPLACEABLE = frozenset({RECORD_FILE}.union(*RESULT_FILES.values()))
"""A folder that holds any other file is never replaced, nor is one whose result.json has another schema."""

_UNSAFE = frozenset('<>:"/\\|?*')
_MAX_NAME_BYTES = 120


@dataclass(frozen=True)
class ImageJob:
    """An image file, and the folder for its result."""

    file: Path
    folder: Path


def plan_jobs(files: Sequence[Path], out: Path) -> list[ImageJob]:
    """A folder in ``out`` for each file, named after it: ``cat.jpg`` becomes ``cat``.

    Characters that a file system may refuse become ``_``. If files have the same name, letter case aside, the first eight hex
    digits of the SHA-256 of their path are appended: neither their order nor a second run exchanges their results.
    """
    names = [_safe(file.stem) for file in files]
    shared = Counter(map(_key, names))
    taken: set[str] = set()
    jobs = []
    for file, name in zip(files, names, strict=True):
        unique = name if shared[_key(name)] == 1 else f"{name}-{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"
        while _key(unique) in taken:
            unique += "_"
        taken.add(_key(unique))
        jobs.append(ImageJob(file, out / unique))
    return jobs


def check_folders(folders: Sequence[Path], *, overwrite: bool) -> None:
    """Raise UserError if one of the folders exists and may not be replaced.

    Args:
        folders: where results will be written.
        overwrite: whether existing results may be replaced.
    """
    existing = [folder for folder in folders if os.path.lexists(folder)]
    foreign = [f for f in existing if not is_result(f) or {path.name for path in f.iterdir()} - _REPLACEABLE]
    if foreign:
        problem = "is not replaced, because faithmap did not write it or it contains other files"
        raise UserError(f"{foreign[0]} {problem}; move it, or give another --out")
    if existing and not overwrite:
        rest = f", and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UserError(f"{existing[0]} exists{rest}; give --overwrite to replace results, or another --out")


def is_result(folder: Path) -> bool:
    """Whether a folder is a result folder; a link to one is not."""
    try:
        record = None if folder.is_symlink() else json.loads((folder / RECORD_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and str(record.get("schema")).partition("/")[0] in RESULT_FILES


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """Create the folder for the results, and remove it again if it stays empty.

    Raises:
        UserError: if it cannot be created or written to.
    """
    made: list[Path] = []
    try:
        try:
            made += [folder for folder in (out, *out.parents) if not folder.exists()]
            out.mkdir(parents=True, exist_ok=True)
            probe = out / f".{secrets.token_hex(4)}.partial"
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            raise UserError(f"{out}: no results can be written there ({os_reason(error)}); give another --out") from error
        yield
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


@contextmanager
def new_result(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary folder to write into, which becomes ``folder`` at the end of the block and vanishes if the block fails.

    Raises:
        UserError: if it cannot be written.
    """
    with write_errors(folder), complete_or_absent(folder, overwrite=overwrite) as partial:
        yield partial


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write result.json.

    Raises:
        ValueError: for a number that is not finite.
    """
    text = json.dumps(record, indent=2, allow_nan=False)
    (folder / RECORD_FILE).write_text(text + "\n", encoding="ascii")


def _safe(stem: str) -> str:
    kept = "".join(char if char.isprintable() and char not in _UNSAFE else "_" for char in stem)
    return kept.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip(". ") or "image"


def _key(name: str) -> str:
    """Equal for names that a file system may treat as the same."""
    return unicodedata.normalize("NFC", name).casefold()


class StudyProgress(Protocol):
    """Progress callback."""

    def __call__(self, done: float, activity: str, unfinished: Explanation | None = None, /) -> None:
        """Report progress.

        Args:
            done: number of finished images, fractions included.
            activity: what is computed now.
            unfinished: the map so far, where the method offers one.
        """


ProgressDisplay: TypeAlias = Callable[[int], AbstractContextManager[StudyProgress]]
"""Opens a display of progress over that many images; the display is removed when the context ends."""


@dataclass(frozen=True)
class StudyDone:
    """A complete result folder, and the record in it."""

    folder: Path
    record: StudyRecord


@dataclass(frozen=True)
class StudyFailed:
    """An image without a result, and the reason on one line, which begins with the file's name."""

    file: Path
    message: str


StudyOutcome: TypeAlias = StudyDone | StudyFailed


def progress_part(progress: StudyProgress, start: float, share: float = 1.0) -> StudyProgress:
    """Progress of a part of the work: its 0 is ``start`` of the whole, its 1 is ``start + share``."""

    def report(done: float, activity: str, unfinished: Explanation | None = None) -> None:
        progress(start + share * done, activity, unfinished)

    return report
