"""RunFolder: where a run keeps its plan and its units, and what of them is there.

A unit is written aside, brought to the disk and renamed: a name stands for a complete file. What was written is noted in a
journal, with the file's size and time; what the journal does not know, or knows otherwise, is held against its own digest.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from faithmap.bench.errors import BenchError, NoRoomError, reachable
from faithmap.bench.plan import SCHEMA, BenchPlan, Unit, differences
from faithmap.files import write_whole

RECORD = "run.json"


@dataclass(frozen=True, slots=True)
class StoredUnit:
    """A unit that is there: its file's size and time, and how many of its images failed."""

    size: int
    time: int
    failed: int


@dataclass
class RunFolder:
    """A run.

    Args:
        path: of the folder.
        journal: this writer's own; shards have one each.

    Attributes:
        corrupt: units whose files were damaged, and were taken away.
        versions: of libraries that are others than the run was begun with, as they were then.
    """

    path: Path
    journal: str = "journal.jsonl"
    corrupt: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    @property
    def units(self) -> Path:
        """The folder of the results."""
        return self.path / "units"

    def made(self) -> None:
        """Make the folders.

        Raises:
            BenchError: where that cannot be done, or the folder holds something else.
        """
        try:
            if self.path.is_dir() and not self.record() and any(self.path.glob("[!.]*")) and not self.units.is_dir():
                raise BenchError(f"{self.path}: holds what is no benchmark; give another --out")
            self.units.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchError(f"{self.path}: cannot be written ({error.strerror}); give another --out") from error

    def record(self) -> dict[str, Any]:
        """The plan that the run was begun with; empty where there is none."""
        try:
            found = json.loads((self.path / RECORD).read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise BenchError(f"{self.path / RECORD}: cannot be read ({error}); move the folder away, or repair it") from error
        schema = found.get("schema") if isinstance(found, dict) else None
        if schema != SCHEMA or not isinstance(found.get("versions"), dict):
            raise BenchError(
                f"{self.path / RECORD}: is no plan of schema {SCHEMA}, which is understood, but of {schema!r}; "
                "use the faithmap that wrote it, or give another --out"
            )
        return dict(found)

    def begins(self, plan: BenchPlan, *, accept_changes: bool = False) -> bool:
        """Whether a run of this plan would begin here, rather than go on or be refused."""
        before = self.record() if self.path.is_dir() else {}
        return not before or (accept_changes and bool(differences(before, plan.record())))

    def settle(self, plan: BenchPlan, *, accept_changes: bool = False, spec: tuple[str, bytes] | None = None) -> list[str]:
        """See that the run is of this plan, or make it so; returns what changed.

        Args:
            plan: of the run that is about to begin.
            accept_changes: whether a run of another plan may become one of this.
            spec: the specification's name and content, kept beside the plan.

        Raises:
            BenchError: for a run of another plan.
        """
        before, now = self.record(), plan.record()
        older: Mapping[str, str] = before.get("versions", now["versions"])
        self.versions = [f"{name} {older.get(name)}" for name, new in now["versions"].items() if older.get(name) != new]
        changed = differences(before, now) if before else []
        if changed and not accept_changes:
            parts = ", ".join(changed)
            raise BenchError(
                f"{self.path}: the run there was begun with other {parts}; give --accept-changes to keep what still fits, "
                "or another --out"
            )
        if not before or changed:
            now = {**now, "created": before.get("created") or time.strftime("%FT%TZ", time.gmtime())}
            if spec is not None:
                self._write(self.path / spec[0], spec[1])
            self._write(self.path / RECORD, json.dumps(now, indent=1, default=str).encode())
        return changed

    def present(self, planned: Mapping[str, Unit], *, verify: bool = False) -> dict[str, StoredUnit]:
        """The planned units that are there and intact; corrupt files are taken away and named in ``corrupt``.

        Args:
            planned: by key.
            verify: hold every file against its digest, also those that the journal knows.

        Raises:
            BenchError: where a file cannot be read. It may be whole, and is left alone.
        """
        known = {} if verify else self._journalled(planned)
        found: dict[str, StoredUnit] = {}
        news: dict[str, StoredUnit] = {}
        with reachable(self.units), os.scandir(self.units) as entries:
            for entry in entries:
                key, _, suffix = entry.name.rpartition(".")
                if suffix != "parquet" or key not in planned:
                    continue
                status = entry.stat()
                noted = known.pop(key, None)
                if noted is not None and (noted.size, noted.time) == (status.st_size, status.st_mtime_ns):
                    found[key] = noted
                elif (seen := self._verified(key, Path(entry.path))) is not None:
                    news[key] = seen
        self.note(news)
        found |= news
        return found

    def tidy(self, planned: Mapping[str, Unit], *, alone: bool) -> int:
        """Set units aside that are no longer planned, and return how many.

        Args:
            planned: by key.
            alone: nobody else is writing; what a killed run left half-written is taken away.
        """
        aside = 0
        with reachable(self.units):
            with os.scandir(self.units) as entries:
                names = [entry.name for entry in entries if entry.name.removesuffix(".parquet") not in planned]
            for name in names:
                if alone and name.endswith(".partial"):
                    (self.units / name).unlink(missing_ok=True)
                elif name.endswith(".parquet"):
                    (self.path / "set-aside").mkdir(exist_ok=True)
                    (self.units / name).rename(self.path / "set-aside" / name)
                    aside += 1
        return aside

    def keep(self, key: str, data: bytes, failed: int) -> None:
        """Write a unit.

        Raises:
            NoRoomError: where the disk is full or cannot be written; no part of the unit stays.
        """
        path = self.units / f"{key}.parquet"
        self._write(path, data)
        status = path.stat()
        self.note({key: StoredUnit(status.st_size, status.st_mtime_ns, failed)})

    def _write(self, path: Path, data: bytes) -> None:
        """A file, complete or absent."""
        try:
            write_whole(path, data)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            problem = "the disk is full" if full else f"cannot be written ({error.strerror or error})"
            remedy = f"{'make room' if full else 'put that right'}, and start the same command again"
            raise NoRoomError(f"{path}: {problem}; what is there is complete: {remedy}") from error

    def note(self, noted: Mapping[str, StoredUnit]) -> None:
        """Lines of the journal; one that is lost costs a reading of the file, no more."""
        lines = (json.dumps([key, unit.size, unit.time, unit.failed]) for key, unit in noted.items())
        with suppress(OSError), (self.path / self.journal).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def _journalled(self, planned: Mapping[str, Unit]) -> dict[str, StoredUnit]:
        known: dict[str, StoredUnit] = {}
        for path in sorted(self.path.glob("journal*.jsonl")):
            with suppress(OSError), path.open(errors="replace") as file:
                known.update((planned[key].key, unit) for key, unit in _lines(file) if key in planned)
        return known

    def _verified(self, key: str, path: Path) -> StoredUnit | None:
        """The unit, if its file is what it was; else the file is taken away. One that cannot be read may be whole."""
        from faithmap.bench.store import is_intact, unit_of  # noqa: PLC0415 - pyarrow is an extra

        try:
            data, status = path.read_bytes(), path.stat()
        except FileNotFoundError:
            return None
        told = unit_of(data) if is_intact(data) else None
        if told is None or told[0] != key:
            self.corrupt.append(key)
            with suppress(OSError):
                path.unlink()
            return None
        return StoredUnit(status.st_size, status.st_mtime_ns, told[1])


def _lines(lines: Iterable[str]) -> Iterator[tuple[str, StoredUnit]]:
    """What a journal says; a torn line says nothing."""
    for line in lines:
        try:
            key, size, when, failed = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            continue
        if isinstance(key, str):
            yield key, StoredUnit(size, when, failed)


PATIENCE = 600.0
"""Seconds that a shard waits for another one to finish planning."""


@contextmanager
def holding(folder: Path, shard: tuple[int, int] | None = None) -> Iterator[None]:
    """The right to write units, until the block ends.

    Raises:
        BenchError: where another process has it.
    """
    with ExitStack() as stack:
        stack.enter_context(_held(folder / "run.lock", shared=shard is not None))
        if shard is not None:
            stack.enter_context(_held(folder / f"shard-{shard[0]}-of-{shard[1]}.lock", shared=False))
        yield


@contextmanager
def planning(folder: Path) -> Iterator[None]:
    """One process at a time looks at the plan; the others wait for it."""
    with _opened(folder / "plan.lock") as file:
        until = time.monotonic() + PATIENCE
        while not _taken(file, shared=False):
            if time.monotonic() > until:
                raise _busy(folder / "plan.lock", file)
            time.sleep(0.05)
        yield


@contextmanager
def _held(path: Path, *, shared: bool) -> Iterator[None]:
    with _opened(path) as file:
        if not _taken(file, shared=shared):
            raise _busy(path, file)
        if not shared:
            file.seek(0)
            file.truncate()
            file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}))
            file.flush()
        try:
            yield
        finally:
            if not shared:
                file.seek(0)
                file.truncate()


def _opened(path: Path) -> IO[str]:
    with reachable(path):
        return path.open("a+")


def _taken(file: IO[str], *, shared: bool) -> bool:
    try:
        import fcntl  # noqa: PLC0415 - Windows has none

        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, ModuleNotFoundError):  # a file system without locks, or Windows
        return _alone(file)
    return True


def _alone(file: IO[str]) -> bool:
    """By what the last holder wrote: whether it is dead, or was of this process; of another computer nothing is known."""
    holder = _holder(file)
    if not holder or holder.get("process") == os.getpid():
        return True
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return False


def _holder(file: IO[str]) -> dict[str, str | int]:
    file.seek(0)
    try:
        found = json.loads(file.read() or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _busy(path: Path, file: IO[str]) -> BenchError:
    holder = _holder(file)
    who = f"process {holder['process']} on {holder['host']}, since {holder['since']}" if len(holder) == 3 else "another process"
    return BenchError(f"{path.parent}: {who} is writing this run ({path.name}); wait for it or end it, or give another --out")
