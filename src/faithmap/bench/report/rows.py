"""The rows of a run, read file by file and batch by batch.

Of each row its numbers are kept, eight bytes each, for means, intervals and paired tests need every image's value. Heatmaps are
not read here, and of the curves only their sum stays. Nothing is read from a running average.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from faithmap.bench.report.columns import CLASS, COSTS, GAMES, difference, metrics_of, misfit, protocols
from faithmap.bench.report.curves import MeanCurve, Numbers
from faithmap.bench.report.folder import Run, RunError, Size
from faithmap.bench.report.series import Series

Key = tuple[str, str]
"""A model and a method, by their ids."""

_BATCH = 1024
_REQUIRED = ("model", "method", "image", "index", "error")
_LISTED = 1000
"""Kinds of errors and of warnings that are told apart; all are counted."""
FIRST = 50
"""Failures that a page names; :func:`failures` gives all."""


@dataclass(frozen=True)
class Failure:
    """An image that has no numbers, and why."""

    model: str
    method: str
    image: str
    index: int
    error: str


@dataclass
class Table:
    """All rows of a run.

    Attributes:
        series: by model and method.
        metrics: the columns of metrics, as they come.
        failures: the first of them; ``failed`` counts all.
        warnings: how often each was given.
        strangers: rows of a model or method that the plan does not hold.
        repeated: numbers that were there twice; the one of the last file counts.
    """

    series: dict[Key, Series] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failed: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    warnings: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    strangers: int = 0
    repeated: int = 0


@contextmanager
def reading(path: Path) -> Iterator[pq.ParquetFile]:
    """An open file of rows.

    Raises:
        RunError: where it is damaged, or has not the columns.
    """
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in _REQUIRED if name not in file.schema_arrow.names]
            odd = misfit(file.schema_arrow)
            if missing or odd:
                problem = f"has no column {missing[0]!r}" if missing else f"its column {odd!r} holds something else"
                raise RunError(f"{path}: {problem}; it is none of the files that `faithmap bench run` writes")
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise RunError(
            f"{path}: is no intact Parquet file ({reason}); run `faithmap bench run` again, which makes it anew"
        ) from error


def read_rows(run: Run) -> Table:
    """Read every file once.

    Raises:
        RunError: where a file is damaged.
    """
    table = Table()
    known = _planned(run)
    parts: dict[Key, list[_Part]] = {}
    curves: dict[Key, dict[str, MeanCurve]] = {}
    for number, path in enumerate(run.files):
        with reading(path) as file:
            metrics = metrics_of(file.schema_arrow)
            table.metrics += [name for name in metrics if name not in table.metrics]
            for start, batch in _batches(file, metrics):
                for key, some, at in _by_method(batch):
                    if key not in known:
                        table.strangers += len(some)
                        continue
                    parts.setdefault(key, []).append(_part(some, number, start + at, metrics, file.schema_arrow))
                    _add_curves(curves.setdefault(key, {}), some)
                    _note(table, key, some)
    table.series = {key: _joined(parts[key], curves[key], table) for key in parts}
    for series in table.series.values():
        for prefix in protocols(series.numbers):
            gone, come = (series.numbers.get(prefix + game) for game in GAMES)
            if gone is not None and come is not None:
                series.numbers[difference(prefix)] = come - gone
    return table


def failures(run: Run) -> Iterator[Failure]:
    """All of them, file by file, as they are asked for: there may be as many as rows.

    Raises:
        RunError: where a file is damaged.
    """
    known = _planned(run)
    for path in run.files:
        with reading(path) as file:
            for batch in file.iter_batches(_BATCH, columns=list(_REQUIRED)):
                for row in batch.filter(batch.column("error").is_valid()).to_pylist():
                    if (row["model"], row["method"]) in known:
                        yield Failure(row["model"], row["method"], row["image"] or "", row["index"], row["error"])


def _planned(run: Run) -> set[Key]:
    return {(model.name, method.id) for model in run.plan.models for method in run.plan.methods}


def _batches(file: pq.ParquetFile, metrics: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The columns that are needed, and the number of the first row."""
    wanted = {*_REQUIRED, *COSTS, CLASS, *metrics, "warnings", "heatmap_shape"}
    ends = (*(f"{game}_curve" for game in GAMES), "curve_fractions")
    columns = [name for name in file.schema_arrow.names if name in wanted or name.endswith(ends)]
    start = 0
    for batch in file.iter_batches(_BATCH, columns=columns):
        yield start, batch
        start += len(batch)


def _by_method(batch: pa.RecordBatch) -> Iterator[tuple[Key, pa.RecordBatch, NDArray[np.int64]]]:
    """A batch's rows, by model and method, and their places in it."""
    keys = list(zip(batch.column("model").to_pylist(), batch.column("method").to_pylist(), strict=True))
    for key in dict.fromkeys(keys):
        at = np.flatnonzero([other == key for other in keys])
        yield key, batch if len(at) == len(keys) else batch.take(pa.array(at)), at


@dataclass(frozen=True)
class _Part:
    index: NDArray[np.int64]
    file: int
    row: NDArray[np.int64]
    numbers: dict[str, Numbers]
    shapes: set[Size]


def _part(batch: pa.RecordBatch, file: int, row: NDArray[np.int64], metrics: list[str], schema: pa.Schema) -> _Part:
    names = [name for name in (*metrics, *COSTS, CLASS) if name in batch.schema.names]
    numbers = {name: batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False) for name in names}
    return _Part(batch.column("index").to_numpy(), file, row, numbers, _shapes(batch, schema))


def _shapes(batch: pa.RecordBatch, schema: pa.Schema) -> set[Size]:
    """Rows and columns of the heatmaps: as the rows say, else as the column's type does."""
    if "heatmap_shape" in batch.schema.names:
        return {(shape[0], shape[1]) for shape in batch.column("heatmap_shape").to_pylist() if shape and len(shape) == 2}
    shape = getattr(schema.field("heatmap").type, "shape", None) if "heatmap" in schema.names else None
    return {(shape[0], shape[1])} if shape else set()


def _add_curves(curves: dict[str, MeanCurve], batch: pa.RecordBatch) -> None:
    for column in batch.schema.names:
        game = column.removesuffix("_curve")
        fractions = f"{protocols([game])[0]}curve_fractions" if game.endswith(GAMES) and game != column else None
        if fractions in batch.schema.names:
            curves.setdefault(game, MeanCurve()).add(batch.column(fractions), batch.column(column))


def _note(table: Table, key: Key, batch: pa.RecordBatch) -> None:
    """What failed, and what was warned of."""
    for at, error in enumerate(batch.column("error").to_pylist()):
        if error is None:
            continue
        _count(table.failed, (*key, error))
        if len(table.failures) < FIRST:
            table.failures.append(
                Failure(*key, batch.column("image")[at].as_py() or "", batch.column("index")[at].as_py(), error)
            )
    if "warnings" in batch.schema.names:
        for said in batch.column("warnings").to_pylist():
            for warning in said or ():
                _count(table.warnings, (*key, warning))


def _count(counter: Counter[tuple[str, str, str]], entry: tuple[str, str, str]) -> None:
    """So that a text with a number in it, another for each image, does not fill the memory."""
    model, method, _ = entry
    counter[entry if entry in counter or len(counter) < _LISTED else (model, method, "others, each with its own text")] += 1


def _joined(parts: list[_Part], curves: dict[str, MeanCurve], table: Table) -> Series:
    """One entry an image: where several units hold an image, their numbers are laid together."""
    index = np.concatenate([part.index for part in parts])
    images, first, place = np.unique(index, return_index=True, return_inverse=True)
    numbers = {}
    for name in dict.fromkeys(name for part in parts for name in part.numbers):
        column = np.concatenate([part.numbers.get(name, np.full(len(part.index), np.nan)) for part in parts])
        there = ~np.isnan(column)
        numbers[name] = np.full(len(images), np.nan)
        numbers[name][place[there]] = column[there]
        if name not in (*COSTS, CLASS):
            table.repeated += int(there.sum()) - len(np.unique(place[there]))
    file = np.concatenate([np.full(len(part.index), part.file) for part in parts])
    row = np.concatenate([part.row for part in parts])
    shapes = set().union(*(part.shapes for part in parts))
    return Series(images, file[first], row[first], numbers, shapes.pop() if len(shapes) == 1 else None, curves)
