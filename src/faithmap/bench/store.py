"""Store the rows of a unit as one Parquet file, which DuckDB, pandas and polars read without this code.

Heatmaps are fixed-shape tensors in half precision, each divided by its largest absolute value, which has its own column: a
gradient of 1e-9 would be 0 in half precision.

Pages carry checksums, which any Parquet reader can verify. They do not cover the file's footer (schema, statistics, header);
a file therefore also carries the SHA-256 of itself, computed with zeros in its place, so that no changed byte goes unnoticed.
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
        error: why the other fields are empty.
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
    """The complete result files of a run, by name."""
    return sorted(path for path in (folder / "units").glob("*.parquet") if not path.name.startswith("."))


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all rows of a run into one table, sorted by model, method and index.

    Args:
        folder: of the run.
        columns: to be read; None for all but the heatmaps, whose shapes differ between methods.
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
