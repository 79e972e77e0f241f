"""The heatmaps of the few images that are shown, read from the row groups that hold them and from no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.bench.report.analysis import Entry, Section
from faithmap.bench.report.columns import GAMES, protocols
from faithmap.bench.report.curves import Numbers, on_grid
from faithmap.bench.report.folder import Run, Size
from faithmap.bench.report.rows import reading
from faithmap.explanation import Explanation

_WORDS = ("image", "label", "target", "predicted", "probability")
_MORE = ("heatmap_scale", "warnings")
_COLUMNS = (*_WORDS, *_MORE, "size", "heatmap", "heatmap_shape", "rows_at", "columns_at")


@dataclass(frozen=True)
class Row:
    """One method's answer for one image.

    Attributes:
        entry: the method.
        image: its index.
        words: image, label, target, predicted and probability; what the stored heatmap was divided by, and warnings.
        size: height and width of what the model saw; None where nobody knows.
        heatmap: as stored; None where the row has none.
        rows: centres of its cells in pixels of the model's view, or None; ``columns`` likewise.
        points: of each game the fractions and the scores, where it was played.
    """

    entry: Entry
    image: int
    words: dict[str, Any]
    size: Size | None
    heatmap: Float[Tensor, "r c"] | None
    rows: Float[Tensor, " r"] | None
    columns: Float[Tensor, " c"] | None
    points: dict[str, tuple[Numbers, Numbers]]

    @property
    def curves(self) -> dict[str, Numbers]:
        """Of each game on the grid."""
        return {game: on_grid(*points) for game, points in self.points.items()}

    def cells(self) -> Float[Tensor, "r c"] | None:
        """The map at the cells that the games were played with."""
        if self.heatmap is None:
            return None
        placed = self.size is not None
        rows, columns = (self.rows, self.columns) if placed else (None, None)
        why = Explanation(self.heatmap.float().unsqueeze(0), self.size or (224, 224), rows=rows, columns=columns)
        wanted = self.entry.cells or why.resolution
        return (why.cells if wanted == why.resolution else why.at(wanted))[0]


def read_maps(run: Run, section: Section, images: Sequence[int]) -> dict[int, list[Row]]:
    """Each image's rows, one a method, in the order of the methods."""
    wanted = []
    for place, entry in enumerate(section.entries):
        series = entry.series
        for image in images:
            at = int(np.searchsorted(series.index, image))
            if at < len(series.index) and series.index[at] == image:
                wanted.append((int(series.file[at]), int(series.row[at]), image, place))
    found: dict[int, dict[int, Row]] = {image: {} for image in images}
    for number, jobs in groupby(sorted(wanted), key=lambda job: job[0]):
        with reading(run.files[number]) as file:
            for (_, _, image, place), row in _rows(file, list(jobs)):
                found[image][place] = _row(section.entries[place], image, row)
    return {image: [rows[place] for place in sorted(rows)] for image, rows in found.items()}


def _rows(file: pq.ParquetFile, jobs: list[tuple[int, int, int, int]]) -> Iterator[tuple[tuple[int, int, int, int], pa.Table]]:
    """Each job's row; a row group is read once for all jobs in it."""
    ends = ("curve_fractions", *(f"{game}_curve" for game in GAMES))
    names = [name for name in file.schema_arrow.names if name in _COLUMNS or name.endswith(ends)]
    stops = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)])
    for number, some in groupby(jobs, key=lambda job: int(np.searchsorted(stops, job[1], side="right"))):
        table = file.read_row_group(number, columns=names)
        start = int(stops[number]) - table.num_rows
        for job in some:
            yield job, table.slice(job[1] - start, 1)


def _row(entry: Entry, image: int, table: pa.Table) -> Row:
    def get(name: str) -> Any:
        return table.column(name)[0].as_py() if name in table.column_names else None

    rows, columns = (
        None if at is None else torch.tensor(at, dtype=torch.float64) for at in (get("rows_at"), get("columns_at"))
    )
    points = {}
    prefix = next(iter(protocols(name.removesuffix("_curve") for name in table.column_names)), "")
    for game in GAMES:
        fractions, scores = get(f"{prefix}curve_fractions"), get(f"{prefix}{game}_curve")
        if fractions and scores and len(fractions) == len(scores):
            points[game] = np.asarray(fractions, np.float64), np.asarray(scores, np.float64)
    size = get("size")
    seen = (size[0], size[1]) if size else None
    words = {name: get(name) for name in (*_WORDS, *_MORE)}
    heatmap = _heatmap(table, get("heatmap_shape"))
    placed = heatmap is None or all(
        at is None or len(at) == side for at, side in zip((rows, columns), heatmap.shape, strict=True)
    )
    return Row(entry, image, words, seen, heatmap if placed else None, rows, columns, points)


def _heatmap(table: pa.Table, shape: Sequence[int] | None) -> Float[Tensor, "r c"] | None:
    """A tensor of fixed shape, or a list with its shape beside it."""
    if "heatmap" not in table.column_names:
        return None
    cell = table.column("heatmap").combine_chunks()
    shape = shape or getattr(cell.type, "shape", None)
    if cell.null_count or not shape or len(shape) != 2:
        return None
    storage = cell.storage if isinstance(cell, pa.ExtensionArray) else cell
    values = storage.flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(np.array(values)).view(*shape) if len(values) == shape[0] * shape[1] else None
