"""The folder of a run: its plan, its result files, a journal of what was written, and locks against a second writer.

A result file is written under a temporary name, synced to disk and renamed: a file under its final name is complete. The
journal notes size and modification time of every file; a file that the journal does not know, or knows with another size or
time, is verified by its own checksum.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from faithmap.bench.errors import BenchError, NoRoomError, file_errors
from faithmap.bench.plan import SCHEMA, BenchPlan, Unit, differences
from faithmap.bench.store import is_intact, unit_of
from faithmap.errors import write_errors
from faithmap.files import write_whole

RECORD = "run.json"

PLAN_PATIENCE = 600.0
"""Seconds that a process waits for another one to write the plan."""


@dataclass(frozen=True, slots=True)
class StoredUnit:
    """A result file: its size, its modification time in nanoseconds, and its number of failed images."""

    size: int
    time: int
    failed: int


@dataclass
class RunFolder:
    """The folder of a run.

    Args:
        path: of the folder.
        journal: file name of this writer's journal; every shard has its own.

    Attributes:
        corrupt: units whose files were damaged and were deleted.
        versions: the older versions of libraries that have changed since the run was started.
    """

    path: Path
    journal: str = "journal.jsonl"
    corrupt: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    @property
    def units(self) -> Path:
        """The folder of the result files."""
        return self.path / "units"

    def create(self) -> None:
        """Create the folders if they do not exist.

        Raises:
            BenchError: if that fails, or the folder holds something else.
        """
        with write_errors(self.path, error_type=BenchError):
            if self.path.is_dir() and not self.record() and any(self.path.glob("[!.]*")) and not self.units.is_dir():
                raise BenchError(f"{self.path}: holds files that are no benchmark; give another --out")
            self.units.mkdir(parents=True, exist_ok=True)

    def record(self) -> dict[str, Any]:
        """The record of the plan that the run was started with; empty if there is none."""
        path = self.path / RECORD
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise BenchError(f"{path}: cannot be read ({error}); move the folder away, or repair it") from error
        schema = found.get("schema") if isinstance(found, dict) else None
        if schema != SCHEMA or not isinstance(found.get("versions"), dict):
            raise BenchError(
                f"{path}: its schema is {schema!r}, but this version reads schema {SCHEMA}; use the faithmap that "
                "wrote it, or give another --out"
            )
        return dict(found)

    def is_new(self, plan: BenchPlan, *, accept_changes: bool = False) -> bool:
        """Whether a run of this plan would start here, instead of being resumed or refused."""
        old = self.record() if self.path.is_dir() else {}
        return not old or (accept_changes and bool(differences(old, plan.record())))

    def record_plan(self, plan: BenchPlan, *, accept_changes: bool = False, spec: tuple[str, bytes] | None = None) -> list[str]:
        """Write the record of a new run, or compare an existing one with the plan; return the parts that changed.

        Args:
            plan: of the run.
            accept_changes: whether the record of another plan is replaced.
            spec: name and content of the specification, written beside the record.

        Raises:
            BenchError: if the record is of another plan.
        """
        old, new = self.record(), plan.record()
        old_versions: Mapping[str, str] = old.get("versions", new["versions"])
        self.versions = [
            f"{name} {old_versions.get(name)}" for name, now in new["versions"].items() if old_versions.get(name) != now
        ]
        changed = differences(old, new) if old else []
        if changed and not accept_changes:
            raise BenchError(
                f"{self.path}: the run there was started with other {', '.join(changed)}; give --accept-changes to keep the "
                "results that still fit, or another --out"
            )
        if not old or changed:
            new = {**new, "created": old.get("created") or time.strftime("%FT%TZ", time.gmtime())}
            if spec is not None:
                self._write(self.path / spec[0], spec[1])
            self._write(self.path / RECORD, json.dumps(new, indent=1, default=str).encode())
        return changed

    def stored(self, planned: Mapping[str, Unit], *, verify: bool = False) -> dict[str, StoredUnit]:
        """The planned units whose files are intact; corrupt files are deleted and listed in ``corrupt``.

        Args:
            planned: units by key.
            verify: verify the checksum of every file, also of files that the journal knows.

        Raises:
            BenchError: if a file cannot be read; it may be intact and is not deleted.
        """
        known = {} if verify else self._journalled(planned)
        found: dict[str, StoredUnit] = {}
        verified: dict[str, StoredUnit] = {}
        with file_errors(self.units), os.scandir(self.units) as entries:
            for entry in entries:
                key, _, suffix = entry.name.rpartition(".")
                if suffix != "parquet" or key not in planned:
                    continue
                status = entry.stat()
                noted = known.pop(key, None)
                if noted is not None and (noted.size, noted.time) == (status.st_size, status.st_mtime_ns):
                    found[key] = noted
                elif (unit := self._verify(key, Path(entry.path))) is not None:
                    verified[key] = unit
        self.add_to_journal(verified)
        return found | verified

    def clean(self, planned: Mapping[str, Unit], *, alone: bool) -> int:
        """Move units that are no longer planned to ``set-aside``; return their number.

        Args:
            planned: units by key.
            alone: no other process writes here: delete the temporary files of killed processes.
        """
        moved = 0
        with file_errors(self.units):
            with os.scandir(self.units) as entries:
                names = [entry.name for entry in entries if entry.name.removesuffix(".parquet") not in planned]
            for name in names:
                if alone and name.endswith(".partial"):
                    (self.units / name).unlink(missing_ok=True)
                elif name.endswith(".parquet"):
                    (self.path / "set-aside").mkdir(exist_ok=True)
                    (self.units / name).rename(self.path / "set-aside" / name)
                    moved += 1
        return moved

    def store(self, key: str, data: bytes, failed: int) -> None:
        """Write the file of a unit.

        Raises:
            NoRoomError: if the disk is full or the file cannot be written; nothing of the unit remains.
        """
        path = self.units / f"{key}.parquet"
        self._write(path, data)
        status = path.stat()
        self.add_to_journal({key: StoredUnit(status.st_size, status.st_mtime_ns, failed)})

    def add_to_journal(self, units: Mapping[str, StoredUnit]) -> None:
        """Note units in the journal. A lost line only means that the file is verified when the run is resumed."""
        lines = (json.dumps([key, unit.size, unit.time, unit.failed]) for key, unit in units.items())
        with suppress(OSError), (self.path / self.journal).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def _journalled(self, planned: Mapping[str, Unit]) -> dict[str, StoredUnit]:
        known: dict[str, StoredUnit] = {}
        for path in sorted(self.path.glob("journal*.jsonl")):
            with suppress(OSError), path.open(errors="replace") as file:
                known.update((planned[key].key, unit) for key, unit in _journal_entries(file) if key in planned)
        return known

    def _verify(self, key: str, path: Path) -> StoredUnit | None:
        """The unit if its file is intact; else the file is deleted."""
        try:
            data, status = path.read_bytes(), path.stat()
        except FileNotFoundError:
            return None
        unit = unit_of(data) if is_intact(data) else None
        if unit is None or unit[0] != key:
            self.corrupt.append(key)
            with suppress(OSError):
                path.unlink()
            return None
        return StoredUnit(status.st_size, status.st_mtime_ns, unit[1])

    def _write(self, path: Path, data: bytes) -> None:
        remedy = "earlier results are complete: make room or fix the cause, and start the same command again"
        with write_errors(path, remedy, NoRoomError):
            write_whole(path, data)


def _journal_entries(lines: Iterable[str]) -> Iterator[tuple[str, StoredUnit]]:
    """Damaged lines are skipped."""
    for line in lines:
        try:
            key, size, when, failed = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            continue
        if isinstance(key, str):
            yield key, StoredUnit(size, when, failed)


@contextmanager
def write_access(folder: Path, shard: tuple[int, int] | None = None) -> Iterator[None]:
    """Hold the right to write units until the block ends.

    A run of all units excludes every other run of the folder. A shard excludes runs of all units and the same shard. The
    system frees the lock of a process that died.

    Args:
        folder: of the run.
        shard: (number, count); None for a run of all units.

    Raises:
        BenchError: if another process holds the right; names it.
    """
    with ExitStack() as held:
        with plan_access(folder):  # one process at a time compares the locks
            if shard is None:
                held.enter_context(_locked(folder / "run.lock"))
                for path in sorted(folder.glob("shard-*.lock")):
                    with _locked(path):
                        pass
            else:
                with _locked(folder / "run.lock"):
                    pass
                held.enter_context(_locked(folder / f"shard-{shard[0]}-of-{shard[1]}.lock"))
        yield


@contextmanager
def plan_access(folder: Path) -> Iterator[None]:
    """Only one process at a time reads or writes the plan; others wait."""
    with _locked(folder / "plan.lock", patience=PLAN_PATIENCE):
        yield


@contextmanager
def _locked(path: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock. The holder is named in a second file: on file systems without locks, filelock writes to the first."""
    lock, holder = FileLock(path), path.with_name(f"{path.name}.json")
    with file_errors(path):
        try:
            lock.acquire(timeout=patience)
        except Timeout as error:
            raise _already_locked(path, holder) from error
    try:
        process = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
        with suppress(OSError):
            holder.write_text(json.dumps(process))
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _already_locked(path: Path, holder: Path) -> BenchError:
    try:
        process = json.loads(holder.read_text())
        who = f"process {process['process']} on {process['host']}, since {process['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        who = "another process"
    return BenchError(f"{path.parent}: {who}, is writing this run ({path.name}); wait until it ends, or give another --out")
