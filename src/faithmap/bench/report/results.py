"""The rows of a run, read file by file and batch by batch.

Of each row its numbers are kept, eight bytes each, for means, intervals and paired tests need every image's value. Heatmaps are
not read here, and of the curves only their sum stays. Nothing is read from a running average.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from faithmap.bench.report.run_record import ReportedRun, RunError, Size

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
class RunResults:
    """All rows of a run.

    Attributes:
        series: by model and method.
        metrics: the columns of metrics, as they come.
        failures: the first of them; ``failed`` counts all.
        warnings: how often each was given.
        strangers: rows of a model or method that the plan does not hold.
        repeated: numbers that were there twice; the one of the last file counts.
    """

    series: dict[Key, MethodResults] = field(default_factory=dict)
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


def read_rows(run: ReportedRun) -> RunResults:
    """Read every file once.

    Raises:
        RunError: where a file is damaged.
    """
    table = RunResults()
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


def failures(run: ReportedRun) -> Iterator[Failure]:
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


def _planned(run: ReportedRun) -> set[Key]:
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


def _note(table: RunResults, key: Key, batch: pa.RecordBatch) -> None:
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


def _joined(parts: list[_Part], curves: dict[str, MeanCurve], table: RunResults) -> MethodResults:
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
    return MethodResults(images, file[first], row[first], numbers, shapes.pop() if len(shapes) == 1 else None, curves)


COSTS = ("forward", "backward", "seconds", "metric_seconds", "peak_memory")
CLASS = "target"
"""The explained class: no metric, but what a mean over classes is taken over."""
GAMES = ("deletion", "insertion")


def difference(prefix: str) -> str:
    """What insertion minus deletion of a protocol is called; the prefix tells protocols apart."""
    return f"{prefix}insertion - {prefix}deletion"


def protocols(names: Iterable[str]) -> list[str]:
    """The prefixes of all games.

    >>> protocols(["rise_deletion", "deletion", "insertion", difference(""), "infidelity"])
    ['', 'rise_']
    """
    return sorted({name.removesuffix(game) for name in names for game in GAMES if name.endswith(game) and " - " not in name})


def metrics_of(schema: pa.Schema) -> list[str]:
    """Every column of floats that is not known to be something else."""
    known = {*COSTS, "probability", "score", "heatmap_scale"}
    return [entry.name for entry in schema if pa.types.is_floating(entry.type) and entry.name not in known]


def misfit(schema: pa.Schema) -> str | None:
    """The first column that holds something else than it does in a run's files; None where there is none."""
    return next((f.name for f in schema if not (pa.types.is_null(f.type) or _fits(f.name, f.type))), None)


def _fits(name: str, kind: pa.DataType) -> bool:
    """Whether a column of that name may be of that type; one of another name may be of any."""
    if name in ("model", "method", "image", "label", "error"):
        return _is_text(kind)
    if name in ("index", *COSTS, CLASS, "probability", "score", "heatmap_scale"):
        return _is_number(kind)
    if name in ("size", "heatmap_shape", "rows_at", "columns_at", "heatmap") or name.endswith(("_curve", "curve_fractions")):
        return _is_list(kind, _is_number)
    return name != "warnings" or _is_list(kind, _is_text)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_list(kind: pa.DataType, each: Callable[[pa.DataType], bool]) -> bool:
    """A list, or a tensor of fixed shape, of such entries."""
    plain = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    lists = pa.types.is_list(plain) or pa.types.is_large_list(plain) or pa.types.is_fixed_size_list(plain)
    return bool(lists) and each(plain.value_type)


@dataclass
class MethodResults:
    """What one method gave on one model: an entry an image, in the order of the data set.

    Attributes:
        index: of the images.
        file: the number of the file, by the order of names, that a row is in, and ``row`` its place there.
        numbers: metrics, costs and the explained class; NaN where a row has none.
        cells: rows and columns of the heatmaps; None where they differ.
        curves: the mean of each game, by the game's column.
    """

    index: NDArray[np.int64]
    file: NDArray[np.int64]
    row: NDArray[np.int64]
    numbers: dict[str, Numbers]
    cells: Size | None
    curves: dict[str, MeanCurve]

    def values(self, name: str) -> tuple[NDArray[np.int64], Numbers]:
        """The images that have a finite number, and these."""
        column = self.numbers.get(name)
        if column is None:
            return self.index[:0], np.empty(0)
        there = np.isfinite(column)
        return self.index[there], column[there]

    def mean_over_classes(self, name: str) -> float | None:
        """The mean of each explained class's mean, as pointing games count; None where there is no number."""
        column, classes = self.numbers.get(name), self.numbers.get(CLASS)
        if column is None or classes is None or not np.isfinite(column).any():
            return None
        there = np.isfinite(column)
        return float(np.mean([column[there & (classes == one)].mean() for one in np.unique(classes[there])]))


Numbers = NDArray[np.float64]

GRID: Numbers = np.linspace(0, 1, 101)
"""Fractions of cells played, one a per cent."""


def on_grid(fractions: Numbers, scores: Numbers) -> Numbers:
    """A curve at the grid's fractions.

    >>> on_grid(np.array([0.0, 1.0]), np.array([1.0, 0.0]))[[0, 25, 100]]
    array([1.  , 0.75, 0.  ])
    """
    return np.interp(GRID, fractions, scores)


@dataclass
class MeanCurve:
    """The mean of curves that come one batch after the other.

    Attributes:
        total: of the scores on the grid.
        count: of the curves.
    """

    total: Numbers = field(default_factory=lambda: np.zeros_like(GRID))
    count: int = 0

    def add(self, fractions: Any, curves: Any) -> None:
        """Two Arrow lists of one entry a row; rows without a curve, or with one that does not fit, are left out."""
        for points, scores in zip(fractions, curves, strict=True):
            if not points.is_valid or not scores.is_valid:
                continue
            at, values = (np.asarray(entry.values.to_numpy(zero_copy_only=False), np.float64) for entry in (points, scores))
            if len(at) == len(values) > 0 and np.isfinite(values).all() and np.isfinite(at).all():
                self.total += on_grid(at, values)
                self.count += 1

    @property
    def mean(self) -> Numbers | None:
        """On the grid; None where there was no curve."""
        return self.total / self.count if self.count else None
