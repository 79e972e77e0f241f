"""Result folders: one for each image, with the record of how its files came about; which may be replaced, and which not.

They are made by :func:`faithmap.files.complete_or_absent`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faithmap.cli.errors import UserError, os_problem

SCHEMA = "faithmap.result/1"
COMPARISON, SATURATION, ADVERSARIAL = "faithmap.comparison/1", "faithmap.saturation/1", "faithmap.adversarial/1"
CHOICE = "faithmap.choice/1"
_KINDS = frozenset(schema.partition("/")[0] for schema in (SCHEMA, COMPARISON, SATURATION, ADVERSARIAL, CHOICE))
RECORD = "result.json"
FILES = frozenset(
    {RECORD, "overlay.png", "panel.png", "strip.png", "heatmap.npy", "deletion_insertion.gif", "deletion_insertion.webp"}
    | {"comparison.png", "saturation.png", "features.png", "ranking.png"}
    | {"check.png", "adversarial.png", "adversarial.npy", "clean_heatmap.npy", "adversarial_heatmap.npy"}
)
"""All that a result folder may hold; one that holds more is not replaced."""

_UNSAFE = frozenset('<>:"/\\|?*')
_LONGEST = 120


@dataclass(frozen=True)
class Job:
    """An image file, and where its result goes."""

    file: Path
    folder: Path


def plan(files: Sequence[Path], out: Path) -> list[Job]:
    """A folder for each file, named after it: ``cat.jpg`` becomes ``cat``.

    What no file system likes in a name becomes ``_``. Files that would share a name, letter case aside, get the first eight
    hex digits of the SHA-256 of their path behind it, so that neither their order nor a rerun swaps their results.
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
        jobs.append(Job(file, out / unique))
    return jobs


def check(jobs: Sequence[Job], *, overwrite: bool) -> None:
    """Raise UserError where a folder is in the way.

    Args:
        jobs: what is about to be done.
        overwrite: whether results of ours may be replaced.
    """
    existing = [job.folder for job in jobs if os.path.lexists(job.folder)]
    foreign = [folder for folder in existing if not is_result(folder) or {path.name for path in folder.iterdir()} - FILES]
    if foreign:
        raise UserError(f"{foreign[0]} holds what faithmap did not write and is not replaced; move it, or give another --out")
    if existing and not overwrite:
        rest = f", as do {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UserError(f"{existing[0]} exists{rest}; give --overwrite to replace results, or another --out")


def is_result(folder: Path) -> bool:
    """Whether a folder holds a result of ours; a link to one does not count."""
    try:
        record = None if folder.is_symlink() else json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and str(record.get("schema")).partition("/")[0] in _KINDS


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """Make the folder for the results and see that it can be written to; take it away again if it stays empty.

    Raises:
        UserError: where that cannot be done.
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
            raise UserError(f"{out}: no results can be written there ({os_problem(error)}); give another --out") from error
        yield
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write result.json, strictly: a number that is not finite is an error."""
    text = json.dumps(record, indent=2, allow_nan=False)
    (folder / RECORD).write_text(text + "\n", encoding="ascii")


def _safe(stem: str) -> str:
    kept = "".join(char if char.isprintable() and char not in _UNSAFE else "_" for char in stem)
    return kept.encode()[:_LONGEST].decode(errors="ignore").strip(". ") or "image"


def _key(name: str) -> str:
    """Equal for names that a file system may take for the same."""
    return unicodedata.normalize("NFC", name).casefold()
