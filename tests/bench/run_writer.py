"""A run folder with values that a test chooses, in the format of the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from faithmap.bench.report.analysis import Analysis, analyse
from faithmap.bench.report.example_images import ExampleImages
from faithmap.bench.report.page import ReportPage, make_page
from faithmap.bench.report.results import read_results
from faithmap.bench.report.run_record import open_run
from faithmap.bench.report.tables import ReportTable

FLOATS, INTS, WORDS = pa.list_(pa.float32()), pa.list_(pa.int32()), pa.list_(pa.string())
KINDS: dict[str, pa.DataType] = {
    "model": pa.string(),
    "method": pa.string(),
    "image": pa.string(),
    "index": pa.int64(),
    "shard": pa.int64(),
    "size": INTS,
    "target": pa.int64(),
    "predicted": pa.int64(),
    "label": pa.string(),
    "probability": pa.float64(),
    "score": pa.float64(),
    "deletion_curve": FLOATS,
    "insertion_curve": FLOATS,
    "curve_fractions": FLOATS,
    "forward": pa.int64(),
    "backward": pa.int64(),
    "seconds": pa.float64(),
    "metric_seconds": pa.float64(),
    "peak_memory": pa.int64(),
    "heatmap_shape": INTS,
    "heatmap_scale": pa.float64(),
    "rows_at": FLOATS,
    "columns_at": FLOATS,
    "warnings": WORDS,
    "error": pa.string(),
}
ALL_METRICS = {"deletion": False, "insertion": True, "infidelity": False}


def row(method: str, index: int, **values: Any) -> dict[str, Any]:
    """The row of an explained image; ``values`` replace its values."""
    known = {
        "model": "net",
        "method": method,
        "image": f"{index}.png",
        "index": index,
        "shard": 0,
        "size": [32, 32],
        "target": 1,
        "predicted": 1,
        "label": "cat",
        "probability": 0.9,
        "score": 0.9,
        "forward": 1,
        "backward": 1,
        "seconds": 0.5,
        "metric_seconds": 0.1,
        "heatmap": np.linspace(0, 1, 16).reshape(4, 4),
        "heatmap_scale": 1.0,
        "warnings": [],
    }
    return {**known, **values}


def failed(method: str, index: int, error: str, image: str | None = None) -> dict[str, Any]:
    """The row of an image with an error."""
    gone = dict.fromkeys(
        ("target", "predicted", "label", "probability", "score", "forward", "backward", "seconds", "metric_seconds")
    )
    return row(method, index, image=image or f"{index}.png", heatmap=None, error=error, **gone)


@dataclass
class RunWriter:
    """Writes the files of a run."""

    folder: Path
    plan: dict[str, Any] = field(default_factory=dict)

    def start(
        self,
        methods: Sequence[str | dict[str, Any]],
        metrics: Mapping[str, bool | None] = ALL_METRICS,
        metric_settings: Mapping[str, Any] | None = None,
        **plan: Any,
    ) -> None:
        """Write run.json."""
        entries = [
            {"id": m, "name": m, "class": m, "settings": {}, "resolution": None} if isinstance(m, str) else m for m in methods
        ]
        self.plan = {
            "schema": 1,
            "name": "toy",
            "versions": {"faithmap": "1"},
            "models": [{"name": "net", "digest": "d1"}],
            "methods": entries,
            "metrics": [
                {"id": i, "name": i, "settings": dict(metric_settings or {}), "higher_is_better": better}
                for i, better in metrics.items()
            ],
            "data": {"kind": "folder", "path": str(self.folder.parent / "photos"), "images": 4, "digest": "d2"},
            "seed": 0,
            "units": 1,
            **plan,
        }
        (self.folder / "units").mkdir(parents=True)
        (self.folder / "run.json").write_text(json.dumps(self.plan))

    def analysis(self) -> Analysis:
        """The analysis of the run."""
        run = open_run(self.folder)
        return analyse(run, read_results(run))

    def page(self, spread: Literal["interval", "error"] = "interval") -> ReportPage:
        """The report of the run, without images."""
        return make_page(self.analysis(), [ExampleImages([], [])], spread)

    def unit(self, name: str, rows: Sequence[dict[str, Any]], row_group_size: int | None = None) -> Path:
        """Write one file of rows; every unknown column is a metric."""
        given = dict.fromkeys(key for one in rows for key in one)
        metrics = [key for key in given if key not in KINDS and key != "heatmap" and not key.endswith(("_curve", "_fractions"))]
        kinds = {**KINDS, **dict.fromkeys(metrics, pa.float64())}
        kinds |= {key: FLOATS for key in given if key.endswith(("_curve", "_fractions"))}
        data = {key: pa.array([one.get(key) for one in rows], kind) for key, kind in kinds.items() if key != "heatmap_shape"}
        maps = [None if one.get("heatmap") is None else np.asarray(one["heatmap"]) for one in rows]
        data["heatmap_shape"] = pa.array([None if m is None else m.shape for m in maps], INTS)
        data["heatmap"] = heatmaps(maps)
        path = self.folder / "units" / f"{name}.parquet"
        table = pa.table(data).replace_schema_metadata({b"faithmap": json.dumps({"schema": 1, "unit": name})})
        pq.write_table(table, path, compression="zstd", row_group_size=row_group_size)
        return path


def texts(table: ReportTable) -> list[list[str]]:
    """The texts of the cells."""
    return [[cell.text for cell in line] for line in table.rows]


def heatmaps(maps: list[Any]) -> pa.Array:
    """Fixed-shape tensors in half precision; lists if the shapes differ."""
    shapes = {m.shape for m in maps if m is not None}
    if len(shapes) > 1:
        return pa.array([None if m is None else m.astype(np.float16).ravel() for m in maps], pa.list_(pa.float16()))
    shape = shapes.pop() if shapes else (1, 1)
    filled = np.stack([np.zeros(shape, np.float16) if m is None else m.astype(np.float16) for m in maps])
    missing = pa.array([m is None for m in maps])
    storage = pa.FixedSizeListArray.from_arrays(pa.array(filled.ravel()), shape[0] * shape[1], mask=missing)
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float16(), shape), storage)
