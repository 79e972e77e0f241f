"""Read the rows of a run: one table of numbers per model and method, mean curves, failures and warnings.

The numbers of every row are kept, eight bytes each: means, intervals and paired tests need the value of every image. Heatmaps
are not read here, and of the curves only sums are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from faithmap.bench.report.run_record import ReportedRun, Shape
from faithmap.errors import RunError

COSTS = ("forward", "backward", "seconds", "metric_seconds", "peak_memory")
CLASS = "target"
"""The explained class: not a metric, but means can be taken over classes."""
AREAS = ("deletion", "insertion")
"""Columns of the areas under the curves, after the prefix of their protocol."""

MAX_LISTED = 50
"""Failures that the report lists; :func:`failures` gives all."""
MAX_COUNTED = 1000
"""Different errors and warnings that are counted separately."""

_BATCH_ROWS = 1024
_BATCHES_PER_CHUNK = 256
_REQUIRED = ("model", "method", "image", "index", "error")

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]

GRID: Numbers = np.linspace(0, 1, 101)
"""Fractions of deleted or inserted cells: one per percent."""


def difference(prefix: str) -> str:
    """Name of the column insertion minus deletion of a protocol."""
    return f"{prefix}insertion - {prefix}deletion"


def protocols(names: Iterable[str]) -> list[str]:
    """The column prefixes of all deletion and insertion tests; the prefix is the ``id`` of the metric in the specification.

    >>> protocols(["rise_deletion", "deletion", "insertion", difference(""), "infidelity"])
    ['', 'rise_']
    """
    return sorted({name.removesuffix(area) for name in names for area in AREAS if name.endswith(area) and " - " not in name})


def on_grid(fractions: Numbers, scores: Numbers) -> Numbers:
    """A curve at the fractions of the grid. A curve is linear between its points, so that these values are exact.

    >>> on_grid(np.array([0.0, 1.0]), np.array([1.0, 0.0]))[[0, 25, 100]]
    array([1.  , 0.75, 0.  ])
    """
    return np.interp(GRID, fractions, scores)


@dataclass
class MeanCurve:
    """The mean of curves, from their sum on the grid and their number."""

    total: Numbers = field(default_factory=lambda: np.zeros_like(GRID))
    count: int = 0

    def add(self, fractions: Any, curves: Any) -> None:
        """Add two Arrow columns of lists; rows without a curve or with an invalid one are skipped."""
        for points, scores in zip(fractions, curves, strict=True):
            if not points.is_valid or not scores.is_valid:
                continue
            x, y = (np.asarray(entry.values.to_numpy(zero_copy_only=False), np.float64) for entry in (points, scores))
            if len(x) == len(y) > 0 and np.isfinite(y).all() and np.isfinite(x).all():
                self.total += on_grid(x, y)
                self.count += 1

    @property
    def mean(self) -> Numbers | None:
        """On the grid; None if there is no curve."""
        return self.total / self.count if self.count else None


@dataclass
class MethodResults:
    """The results of one method on one model.

    Attributes:
        frame: one row per image, by its index: metrics, costs and the explained class, NaN if missing; ``file`` and ``row``
            say where the row is stored.
        shape: rows and columns of the heatmaps; None if they differ.
        curves: mean curves, by the name of their area.
    """

    frame: pd.DataFrame
    shape: Shape | None = None
    curves: dict[str, MeanCurve] = field(default_factory=dict)

    @property
    def images(self) -> Indices:
        """Indices of the images, sorted."""
        return np.asarray(self.frame.index.to_numpy(), np.int64)

    def values(self, name: str) -> tuple[Indices, Numbers]:
        """The images with a finite number in a column, and the numbers."""
        if name not in self.frame:
            return self.images[:0], np.empty(0)
        column = self.frame[name].to_numpy(np.float64)
        finite = np.isfinite(column)
        return self.images[finite], column[finite]

    def mean_over_classes(self, name: str) -> float | None:
        """The mean of the means of each explained class, as the pointing game defines it; None if there is no number."""
        if name not in self.frame or CLASS not in self.frame:
            return None
        finite = self.frame[np.isfinite(self.frame[name])]
        means = [group.to_numpy().mean() for _, group in finite.groupby(CLASS)[name]]
        return float(np.mean(means)) if means else None

    def location(self, image: int) -> tuple[int, int] | None:
        """(number of the file, row in it) of an image; None if the method has no row for it."""
        if image not in self.frame.index:
            return None
        return int(self.frame.at[image, "file"]), int(self.frame.at[image, "row"])


@dataclass(frozen=True)
class Failure:
    """An image without numbers, and the error."""

    model: str
    method: str
    image: str
    index: int
    error: str


MethodKey = tuple[str, str]
"""Ids of a model and a method."""


@dataclass
class RunResults:
    """All rows of a run.

    Attributes:
        methods: results by model and method.
        metrics: columns of metrics, in the order of the files.
        failures: the first failures.
        failed: number of failures by model, method and error.
        warnings: number of warnings by model, method and text.
        unplanned: number of rows of a model or method that the plan does not contain.
        repeated: number of values that exist twice; that of the last file is used.
    """

    methods: dict[MethodKey, MethodResults] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failed: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    warnings: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    unplanned: int = 0
    repeated: int = 0


def read_results(run: ReportedRun) -> RunResults:
    """Read every file once.

    Raises:
        RunError: if a file is damaged.
    """
    results = RunResults()
    reader = _Reader(run, results)
    table = _concatenated(reader.frames())
    for number, rows in table[table["key"] >= 0].groupby("key", sort=False):
        key = reader.keys[int(number)]
        frame = _one_row_per_image(rows.drop(columns="key"), results)
        for prefix in protocols(frame.columns):
            deletion, insertion = (frame.get(prefix + area) for area in AREAS)
            if deletion is not None and insertion is not None:
                frame[difference(prefix)] = insertion - deletion
        shapes = reader.shapes[key]
        results.methods[key] = MethodResults(frame, shapes.pop() if len(shapes) == 1 else None, reader.curves[key])
    return results


def _concatenated(frames: Iterator[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate in chunks: thousands of small frames take more memory than their numbers."""
    chunks = []
    while chunk := list(islice(frames, _BATCHES_PER_CHUNK)):
        chunks.append(pd.concat(chunk))
    return pd.concat(chunks) if chunks else pd.DataFrame({"key": []})


def _one_row_per_image(rows: pd.DataFrame, results: RunResults) -> pd.DataFrame:
    """If several units have a row of an image, each column keeps its last number; the location is that of the first row."""
    metrics = [name for name in results.metrics if name in rows]
    by_image = rows.groupby("index")
    results.repeated += int((by_image[metrics].count() - 1).clip(lower=0).to_numpy().sum())
    frame = by_image.last()
    frame[["file", "row"]] = by_image[["file", "row"]].first()
    return frame


class _Reader:
    """Reads the files batch by batch; numbers become frames, curves and messages are added up."""

    def __init__(self, run: ReportedRun, results: RunResults) -> None:
        self.run, self.results = run, results
        self.keys = [(model.name, method.id) for model in run.plan.models for method in run.plan.methods]
        self.numbers = {key: number for number, key in enumerate(self.keys)}
        self.shapes: dict[MethodKey, set[Shape]] = {key: set() for key in self.keys}
        self.curves: dict[MethodKey, dict[str, MeanCurve]] = {key: {} for key in self.keys}

    def frames(self) -> Iterator[pd.DataFrame]:
        for number, path in enumerate(self.run.files):
            with open_unit_file(path) as file:
                metrics = metrics_of(file.schema_arrow)
                self.results.metrics += [name for name in metrics if name not in self.results.metrics]
                start = 0
                for batch in file.iter_batches(_BATCH_ROWS, columns=_columns(file.schema_arrow.names, metrics)):
                    yield self._frame(batch, metrics, file.schema_arrow, number, start)
                    start += len(batch)

    def _frame(self, batch: pa.RecordBatch, metrics: list[str], schema: pa.Schema, file: int, start: int) -> pd.DataFrame:
        pairs = zip(batch.column("model").to_pylist(), batch.column("method").to_pylist(), strict=True)
        keys = np.array([self.numbers.get(pair, -1) for pair in pairs], np.int64)
        for number in dict.fromkeys(keys.tolist()):
            at = np.flatnonzero(keys == number)
            if number < 0:
                self.results.unplanned += len(at)
                continue
            rows = batch if len(at) == len(keys) else batch.take(pa.array(at))
            key = self.keys[number]
            self.shapes[key] |= _shapes(rows, schema)
            _add_curves(self.curves[key], rows)
            _count_messages(self.results, key, rows)
        columns = {"key": keys, "index": batch.column("index").to_numpy(), "file": np.full(len(keys), file)}
        columns["row"] = np.arange(start, start + len(keys))
        for name in (*metrics, *COSTS, CLASS):
            if name in batch.schema.names:
                columns[name] = batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
        return pd.DataFrame(columns)


def _columns(names: Iterable[str], metrics: list[str]) -> list[str]:
    """The columns that are read, of those in a file."""
    wanted = {*_REQUIRED, *COSTS, CLASS, *metrics, "warnings", "heatmap_shape"}
    curves = (*(f"{area}_curve" for area in AREAS), "curve_fractions")
    return [name for name in names if name in wanted or name.endswith(curves)]


def _shapes(batch: pa.RecordBatch, schema: pa.Schema) -> set[Shape]:
    """Rows and columns of the heatmaps, from the rows, or from the type of the column."""
    if "heatmap_shape" in batch.schema.names:
        return {(shape[0], shape[1]) for shape in batch.column("heatmap_shape").to_pylist() if shape and len(shape) == 2}
    shape = getattr(schema.field("heatmap").type, "shape", None) if "heatmap" in schema.names else None
    return {(shape[0], shape[1])} if shape else set()


def _add_curves(curves: dict[str, MeanCurve], batch: pa.RecordBatch) -> None:
    for column in batch.schema.names:
        area = column.removesuffix("_curve")
        fractions = f"{protocols([area])[0]}curve_fractions" if area.endswith(AREAS) and area != column else None
        if fractions in batch.schema.names:
            curves.setdefault(area, MeanCurve()).add(batch.column(fractions), batch.column(column))


def _count_messages(results: RunResults, key: MethodKey, batch: pa.RecordBatch) -> None:
    """Count failures and warnings."""
    for at, error in enumerate(batch.column("error").to_pylist()):
        if error is None:
            continue
        _count(results.failed, (*key, error))
        if len(results.failures) < MAX_LISTED:
            image, index = batch.column("image")[at].as_py() or "", batch.column("index")[at].as_py()
            results.failures.append(Failure(*key, image, index, error))
    if "warnings" in batch.schema.names:
        for texts in batch.column("warnings").to_pylist():
            for text in texts or ():
                _count(results.warnings, (*key, text))


def _count(counter: Counter[tuple[str, str, str]], entry: tuple[str, str, str]) -> None:
    """Texts with a number of their own for each image must not fill the memory."""
    model, method, _ = entry
    counter[entry if entry in counter or len(counter) < MAX_COUNTED else (model, method, "others, each with its own text")] += 1


def failures(run: ReportedRun) -> Iterator[Failure]:
    """All failures, read file by file, since there may be as many as rows.

    Raises:
        RunError: if a file is damaged.
    """
    planned = {(model.name, method.id) for model in run.plan.models for method in run.plan.methods}
    for path in run.files:
        with open_unit_file(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(_REQUIRED)):
                for row in batch.filter(batch.column("error").is_valid()).to_pylist():
                    if (row["model"], row["method"]) in planned:
                        yield Failure(row["model"], row["method"], row["image"] or "", row["index"], row["error"])


@contextmanager
def open_unit_file(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a file of rows; the checksums of its pages are verified.

    Raises:
        RunError: if the file is damaged, or has other columns.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            missing = [name for name in _REQUIRED if name not in file.schema_arrow.names]
            wrong = wrong_column(file.schema_arrow)
            if missing or wrong:
                problem = f"has no column {missing[0]!r}" if missing else f"its column {wrong!r} has another type"
                raise RunError(f"{path}: {problem}; `faithmap bench run` did not write this file")
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise RunError(f"{path}: is no intact Parquet file ({reason}); `faithmap bench run --verify` replaces it") from error


def metrics_of(schema: pa.Schema) -> list[str]:
    """The columns of metrics: every floating-point column without another meaning."""
    known = {*COSTS, "probability", "score", "heatmap_scale"}
    return [entry.name for entry in schema if pa.types.is_floating(entry.type) and entry.name not in known]


def wrong_column(schema: pa.Schema) -> str | None:
    """The first column whose type differs from that of a run's files; None if there is none."""
    return next((f.name for f in schema if not (pa.types.is_null(f.type) or _has_right_type(f.name, f.type))), None)


def _has_right_type(name: str, kind: pa.DataType) -> bool:
    """Unknown columns may have any type."""
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
    """A list or a fixed-shape tensor."""
    plain = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    lists = pa.types.is_list(plain) or pa.types.is_large_list(plain) or pa.types.is_fixed_size_list(plain)
    return bool(lists) and each(plain.value_type)
