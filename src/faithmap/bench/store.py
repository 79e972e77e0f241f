"""Store: the rows of a unit as one Parquet file, which DuckDB, pandas and polars read without this code.

Heatmaps are fixed-shape tensors in half precision, each divided by its largest absolute value, which stands beside it: a
gradient of 1e-9 would be 0 in half precision.

A file carries the SHA-256 of itself, taken while zeros stood in its place. No byte can change unseen.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

KEY = b"faithmap"
DIGEST = "faithmap.digest"
_ZEROS = b"0" * 64
_TAIL = 2**16

_FLOATS, _INTS, _WORDS = pa.list_(pa.float32()), pa.list_(pa.int32()), pa.list_(pa.string())
_FIRST = {
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
_LAST = {
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
    "warnings": _WORDS,
    "error": pa.string(),
}


def encode(
    rows: Sequence[ImageResult],
    same: Mapping[str, Any],
    header: Mapping[str, Any],
    columns: Iterable[str],
    curves: Iterable[str] = (),
) -> bytes:
    """The file.

    Args:
        rows: of the unit's images.
        same: what all rows share: model, method, shard, device.
        header: plain data about the unit.
        columns: of the scalar metrics.
        curves: columns of curves.
    """
    data: dict[str, pa.Array] = {name: _column(rows, name, kind, same) for name, kind in _FIRST.items()}
    data |= {name: pa.array([row.values.get(name) for row in rows], pa.float64()) for name in columns}
    data |= {name: pa.array([row.curves.get(name) for row in rows], _FLOATS) for name in curves}
    scales = [None if row.heatmap is None else _scale(row.heatmap) for row in rows]
    more = {
        "heatmap_shape": [None if row.heatmap is None else row.heatmap.shape for row in rows],
        "heatmap_scale": scales,
    }
    for name, kind in _LAST.items():
        data[name] = pa.array(more[name], kind) if name in more else _column(rows, name, kind, same)
    data["heatmap"] = _heatmaps(rows, scales)
    table = pa.table(data).replace_schema_metadata({KEY: json.dumps(header, default=str)})
    return _sealed(table)


def _column(rows: Sequence[ImageResult], name: str, kind: pa.DataType, same: Mapping[str, Any]) -> pa.Array:
    values = [same[name]] * len(rows) if name in same else [getattr(row, name) for row in rows]
    if kind == pa.string():
        values = [_text(value) for value in values]
    elif kind == _WORDS:
        values = [[_text(word) for word in words] for words in values]
    return pa.array(values, kind)


def _text(value: str | None) -> str | None:
    """As UTF-8 can say it: the name of a file need not be."""
    return None if value is None else value.encode("utf-8", "backslashreplace").decode()


def _scale(heatmap: Any) -> float:
    largest = float(np.abs(heatmap).max())
    return largest if np.isfinite(largest) and largest > 0 else 1.0


def _heatmaps(rows: Sequence[ImageResult], scales: Sequence[float | None]) -> pa.Array:
    """A fixed-shape tensor each; a plain list where shapes differ."""
    shapes = {row.heatmap.shape for row in rows if row.heatmap is not None}
    maps = [
        None if row.heatmap is None or scale is None else (row.heatmap.astype(np.float64) / scale).astype(np.float16)
        for row, scale in zip(rows, scales, strict=True)
    ]
    if len(shapes) > 1:
        return pa.array([None if m is None else m.ravel() for m in maps], pa.list_(pa.float16()))
    shape = shapes.pop() if shapes else (1, 1)
    filled = np.stack([np.zeros(shape, np.float16) if m is None else m for m in maps])
    missing = pa.array([m is None for m in maps])
    storage = pa.FixedSizeListArray.from_arrays(pa.array(filled.ravel()), shape[0] * shape[1], mask=missing)
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float16(), shape), storage)


def _sealed(table: pa.Table) -> bytes:
    """The table as a Parquet file with its own digest."""
    stream = io.BytesIO()
    with pq.ParquetWriter(stream, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({DIGEST: _ZEROS.decode()})
    data = stream.getvalue()
    at = data.rindex(_ZEROS)
    return data[:at] + hashlib.sha256(data).hexdigest().encode() + data[at + 64 :]


def is_intact(data: bytes) -> bool:
    """Whether a file is what it was when it was written."""
    name = DIGEST.encode()
    at = data.rfind(name, max(0, len(data) - _TAIL))
    found = re.search(rb"[0-9a-f]{64}", data[at : at + len(name) + 80]) if at >= 0 else None
    if found is None:
        return False
    start = at + found.start()
    return hashlib.sha256(data[:start] + _ZEROS + data[start + 64 :]).hexdigest().encode() == found[0]


def unit_of(data: bytes) -> tuple[str, int] | None:
    """The key in an intact file's header, and how many of its images failed; without a parser, for there may be many files."""
    found = re.search(rb'"unit": "([^"\\]{1,200})".{1,100000}?"failed": ([0-9]{1,9})', data[-_TAIL:], re.DOTALL)
    return (found[1].decode(), int(found[2])) if found else None


def header_of(data: bytes) -> dict[str, Any]:
    """The plain data about the unit in an intact file."""
    metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
    header: dict[str, Any] = json.loads(metadata.get(KEY, b"{}"))
    return header


def tables(folder: Path) -> list[Path]:
    """The complete files of a run, by name."""
    return sorted(path for path in (folder / "units").glob("*.parquet") if not path.name.startswith("."))


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a run in one table, sorted by model, method and index; heatmaps apart, whose shapes differ by method.

    Args:
        folder: of the run.
        columns: those alone; None for all but the heatmaps.
    """
    parts = []
    for path in tables(folder):
        names = [name for name in pq.read_schema(path).names if name != "heatmap"] if columns is None else list(columns)
        parts.append(pq.read_table(path, columns=names))
    if not parts:
        return pa.table({})
    together = pa.concat_tables([part.replace_schema_metadata() for part in parts], promote_options="default")
    keys = [(name, "ascending") for name in ("model", "method", "index") if name in together.column_names]
    return together.sort_by(keys) if keys else together


@dataclass
class ImageResult:
    """One row; None where there is nothing to say.

    Attributes:
        index: of the item in the data set.
        image: path of the file, relative to the data set.
        sha256: of the file's content.
        size: (height, width) of what the model saw.
        target: the explained class.
        predicted: the model's.
        label: the explained class's name.
        probability: of the target, on the clean image.
        score: likewise, as the method's own score has it.
        values: of the scalar metrics, by column.
        curves: of deletion and insertion, by column.
        forward: passes that the method took.
        backward: likewise.
        seconds: that the method took.
        metric_seconds: that the metrics took.
        peak_memory: of the accelerator, in bytes.
        heatmap: at its native resolution.
        rows_at: centres of its rows; None where the corners are aligned.
        columns_at: likewise.
        warnings: of the file and of the method.
        error: why there is nothing else.
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
