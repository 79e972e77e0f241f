"""The folder of a run: its plan, its result files, a journal of what was written, and locks against a second writer.

The rows of a unit are stored as one Parquet file, which DuckDB, pandas and polars read without this code. Heatmaps are
fixed-shape tensors in half precision, each divided by its largest absolute value, which has its own column: a gradient of 1e-9
would be 0 in half precision. Pages carry checksums, which any Parquet reader can verify. They do not cover the file's footer
(schema, statistics, header); a file therefore also carries the SHA-256 of itself, computed with zeros in its place, so that no
changed byte goes unnoticed.

A result file is written under a temporary name, synced to disk and renamed: a file under its final name is complete. The
journal notes size and modification time of every file; a file that the journal does not know, or knows with another size or
time, is verified by its own checksum.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from faithmap.bench.plan import SCHEMA, BenchPlan, Unit, differences
from faithmap.errors import BenchError, NoRoomError, file_errors, write_errors
from faithmap.files import write_whole

HEADER_KEY = b"faithmap"
DIGEST_KEY = "faithmap.digest"
_ZEROS = b"0" * 64
_FOOTER_BYTES = 2**16

_FLOATS, _INTS, _STRINGS = pa.list_(pa.float32()), pa.list_(pa.int32()), pa.list_(pa.string())
_FIRST_COLUMNS = {
    "model": pa.string(),
    "method": pa.string(),
    "image": pa.string(),
    "index": pa.int64(),
    "shard": pa.int64(),
    "sha256": pa.string(),
    "size": _INTS,
    "target": pa.int64(),
    "predicted": pa.int64(),
    "label": pa.string(),
    "probability": pa.float64(),
    "score": pa.float64(),
}
_LAST_COLUMNS = {
    "forward": pa.int64(),
    "backward": pa.int64(),
    "seconds": pa.float64(),
    "metric_seconds": pa.float64(),
    "peak_memory": pa.int64(),
    "device": pa.string(),
    "heatmap_shape": _INTS,
    "heatmap_scale": pa.float64(),
    "rows_at": _FLOATS,
    "columns_at": _FLOATS,
    "warnings": _STRINGS,
    "error": pa.string(),
}


@dataclass
class ImageRow:
    """One row of the store: an image under one method. None means unknown.

    Attributes:
        index: of the item in the data set.
        image: path of the file, relative to the data set.
        sha256: of the file.
        size: (height, width) of the model's input.
        target: the explained class.
        predicted: the class that the model predicts.
        label: name of the explained class.
        probability: of the target, on the unchanged image.
        score: that was explained, on the unchanged image.
        values: scalar metrics, by column.
        curves: deletion and insertion curves, by column.
        forward: forward passes of the method.
        backward: backward passes of the method.
        seconds: of the method.
        metric_seconds: of the metrics.
        peak_memory: of the accelerator, in bytes.
        heatmap: at its native resolution.
        rows_at: pixel positions of the centres of its rows; None if its corners are the image's.
        columns_at: pixel positions of the centres of its columns.
        warnings: raised by the file or the method.
        error: the reason if the other fields are empty.
    """

    index: int
    image: str
    sha256: str | None = None
    size: tuple[int, int] | None = None
    target: int | None = None
    predicted: int | None = None
    label: str | None = None
    probability: float | None = None
    score: float | None = None
    values: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    forward: int | None = None
    backward: int | None = None
    seconds: float | None = None
    metric_seconds: float | None = None
    peak_memory: int | None = None
    heatmap: NDArray[np.float32] | None = None
    rows_at: Sequence[float] | None = None
    columns_at: Sequence[float] | None = None
    warnings: Sequence[str] = ()
    error: str | None = None


def encode(
    results: Sequence[ImageRow],
    shared: Mapping[str, Any],
    header: Mapping[str, Any],
    columns: Iterable[str],
    curves: Iterable[str] = (),
) -> bytes:
    """Encode a unit as a Parquet file.

    Args:
        results: of the unit's images.
        shared: values of columns that are equal in all rows: model, method, shard, device.
        header: plain data about the unit.
        columns: of the scalar metrics.
        curves: columns of curves.
    """
    data: dict[str, pa.Array] = {name: _column(results, name, kind, shared) for name, kind in _FIRST_COLUMNS.items()}
    data |= {name: pa.array([result.values.get(name) for result in results], pa.float64()) for name in columns}
    data |= {name: pa.array([result.curves.get(name) for result in results], _FLOATS) for name in curves}
    scales = [None if result.heatmap is None else _scale(result.heatmap) for result in results]
    of_heatmaps = {
        "heatmap_shape": [None if result.heatmap is None else result.heatmap.shape for result in results],
        "heatmap_scale": scales,
    }
    for name, kind in _LAST_COLUMNS.items():
        data[name] = pa.array(of_heatmaps[name], kind) if name in of_heatmaps else _column(results, name, kind, shared)
    data["heatmap"] = _heatmaps(results, scales)
    table = pa.table(data).replace_schema_metadata({HEADER_KEY: json.dumps(header, default=str)})
    return _with_digest(table)


def _column(results: Sequence[ImageRow], name: str, kind: pa.DataType, shared: Mapping[str, Any]) -> pa.Array:
    values = [shared[name]] * len(results) if name in shared else [getattr(result, name) for result in results]
    if kind == pa.string():
        values = [_utf8(value) for value in values]
    elif kind == _STRINGS:
        values = [[_utf8(text) for text in texts] for texts in values]
    return pa.array(values, kind)


def _utf8(text: str | None) -> str | None:
    """File names may hold bytes that are not UTF-8; these are escaped."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


def _scale(heatmap: NDArray[np.float32]) -> float:
    largest = float(np.abs(heatmap).max())
    return largest if np.isfinite(largest) and largest > 0 else 1.0


def _heatmaps(results: Sequence[ImageRow], scales: Sequence[float | None]) -> pa.Array:
    """Tensors of one shape; lists if the shapes differ."""
    shapes = {result.heatmap.shape for result in results if result.heatmap is not None}
    maps = [
        None if result.heatmap is None or scale is None else (result.heatmap.astype(np.float64) / scale).astype(np.float16)
        for result, scale in zip(results, scales, strict=True)
    ]
    if len(shapes) > 1:
        return pa.array([None if m is None else m.ravel() for m in maps], pa.list_(pa.float16()))
    shape = shapes.pop() if shapes else (1, 1)
    filled = np.stack([np.zeros(shape, np.float16) if m is None else m for m in maps])
    missing = pa.array([m is None for m in maps])
    storage = pa.FixedSizeListArray.from_arrays(pa.array(filled.ravel()), shape[0] * shape[1], mask=missing)
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float16(), shape), storage)


def _with_digest(table: pa.Table) -> bytes:
    """The table as a Parquet file that carries the SHA-256 of itself."""
    stream = io.BytesIO()
    with pq.ParquetWriter(stream, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({DIGEST_KEY: _ZEROS.decode()})
    data = stream.getvalue()
    at = data.rindex(_ZEROS)
    return data[:at] + hashlib.sha256(data).hexdigest().encode() + data[at + 64 :]


def is_intact(data: bytes) -> bool:
    """Whether no byte of a file has changed since it was written."""
    key = DIGEST_KEY.encode()
    at = data.rfind(key, max(0, len(data) - _FOOTER_BYTES))
    found = re.search(rb"[0-9a-f]{64}", data[at : at + len(key) + 80]) if at >= 0 else None
    if found is None:
        return False
    start = at + found.start()
    return hashlib.sha256(data[:start] + _ZEROS + data[start + 64 :]).hexdigest().encode() == found[0]


def unit_of(data: bytes) -> tuple[str, int] | None:
    """Key and number of failed images of an intact file; found by a pattern, since parsing many files takes long."""
    pattern = rb'"unit": "([^"\\]{1,200})".{1,100000}?"failed": ([0-9]{1,9})'
    found = re.search(pattern, data[-_FOOTER_BYTES:], re.DOTALL)
    return (found[1].decode(), int(found[2])) if found else None


def unit_files(folder: Path) -> list[Path]:
    """The complete result files of a run, sorted by name.

    Args:
        folder: folder of the run.

    >>> unit_files(Path("my-run"))
    []
    """
    return sorted(path for path in (folder / "units").glob("*.parquet") if not path.name.startswith("."))


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all rows of a run into one table, sorted by model, method and index.

    Args:
        folder: folder of the run.
        columns: names of the columns; None for all but the heatmaps, whose shapes differ between methods.

    >>> read_rows(Path("my-run")).num_rows
    0
    """
    parts = []
    for path in unit_files(folder):
        names = [name for name in pq.read_schema(path).names if name != "heatmap"] if columns is None else list(columns)
        parts.append(pq.read_table(path, columns=names, page_checksum_verification=True))
    if not parts:
        return pa.table({})
    table = pa.concat_tables([part.replace_schema_metadata() for part in parts], promote_options="default")
    keys = [(name, "ascending") for name in ("model", "method", "index") if name in table.column_names]
    return table.sort_by(keys) if keys else table


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
