"""What the page shows of an image: the photograph as the model saw it, the same blurred, and each method's map.

From these the browser makes the pictures of a game in which k cells are gone. Both pictures are small JPEG files, and maps are
half-precision numbers, so that a page with dozens of maps stays in megabytes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from io import BytesIO
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from faithmap.baselines import Blur
from faithmap.bench.report.analysis import Analysis, MethodEntry, ModelSection, resolution_name
from faithmap.bench.report.results import GAMES, Numbers, on_grid, protocols, reading
from faithmap.bench.report.run_record import ReportedRun, Size
from faithmap.data import ImageError, read_image
from faithmap.explanation import Explanation
from faithmap.geometry import Geometry
from faithmap.viz.overlay import flaw, limits

SIDE = 256
"""Of a picture's longer side, in pixels, at most."""

BUDGET = 8_000_000
"""Letters of a page that all pictures and maps may take; images that do not fit are left out."""


@dataclass(frozen=True)
class ExampleImage:
    """An image as the page shows it.

    Attributes:
        name: of the file; untrusted.
        reason: why it is shown.
        facts: class and probability.
        photograph: a data URI; ``blurred`` likewise.
        height: of both in pixels; ``width`` likewise.
        maps: what the browser is given, one a method.
        spoken: of each map the method, its resolution where the model has several, and its scores.
    """

    name: str
    reason: str
    facts: str
    photograph: str
    blurred: str
    height: int
    width: int
    maps: Sequence[Mapping[str, Any]]
    spoken: Sequence[tuple[str, str, str]]

    @property
    def letters(self) -> int:
        """What it takes of the page."""
        return len(self.photograph) + len(self.blurred) + sum(len(entry["data"]) + 2000 for entry in self.maps)


@dataclass(frozen=True)
class ExampleImages:
    """The cards of a model, and what had to be left out."""

    cards: Sequence[ExampleImage]
    notes: Sequence[str]


def album(analysis: Analysis, section: ModelSection, each: int, data: Path | None, budget: int) -> ExampleImages:
    """Choose the images, read their maps and make their cards.

    Args:
        analysis: the run.
        section: the model.
        each: images for each reason.
        data: where the images are; None for the place that the plan names.
        budget: letters.
    """
    metric = analysis.headline
    chosen = choose(section, metric, analysis.directions.get(metric or "", True), each)
    rows = read_maps(analysis.run, section, [one.index for one in chosen])
    folder = data or images_folder(analysis)
    notes = [] if section.model.view or not chosen else [UNKNOWN_VIEW]
    cards: list[ExampleImage] = []
    for one in chosen:
        try:
            reason = f"{one.reason}: {metric} {one.score:.3f} on average"
            card = _card(analysis, section, rows[one.index], folder, reason)
        except (ImageError, MissingError) as error:
            notes.append(str(error))
            continue
        if card.letters + sum(other.letters for other in cards) > budget:
            notes.append(f"The {len(chosen) - len(cards)} last images are left out, so that the page stays small.")
            break
        cards.append(card)
    return ExampleImages(cards, notes)


UNKNOWN_VIEW = "The plan does not say how the model cuts its images: their middle is shown."


class MissingError(Exception):
    """An image that is not shown, and why."""


def images_folder(analysis: Analysis) -> Path | None:
    """Where the data set is, also where it stands beside the run."""
    path = analysis.run.plan.data.path
    if path is None:
        return None
    places = [Path(path), analysis.run.folder / path]
    found = next((place for place in places if place.exists()), places[0])
    return found.parent if found.is_file() else found


def _card(
    analysis: Analysis, section: ModelSection, rows: Sequence[MethodMap], folder: Path | None, reason: str
) -> ExampleImage:
    words = rows[0].words
    name = str(words["image"])
    view = small_view(read_photo(folder, name), section.model.view, rows[0].size)
    maps, spoken = [], []
    for row in rows:
        scores = {game: score for game in _games(analysis) if (score := _score(row, game)) is not None}
        maps.append({**_map(row), "colour": analysis.colours[row.entry.name], "curves": _curves(row)})
        resolution = resolution_name(row.entry.cells) if len(section.groups) > 1 else ""
        spoken.append((row.entry.name, resolution, " / ".join(f"{score:.3f}" for score in scores.values())))
    height, width = view.shape[-2:]
    blurred = _jpeg(Blur()(view), 60)
    return ExampleImage(name, reason, facts(words), _jpeg(view, 80), blurred, height, width, maps, spoken)


def read_photo(folder: Path | None, name: str) -> Float[Tensor, "1 3 H W"]:
    """A photograph of the data set, by the name in a row, which nobody has vouched for.

    Raises:
        MissingError: for a name that leads out of the folder, or where there is none.
        ImageError: where it cannot be read.
    """
    if folder is None or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise MissingError(f"{name}: is not shown, for it lies in no known folder.")
    return read_image(folder / name)


def small_view(
    photo: Float[Tensor, "1 3 H W"], geometry: Geometry | None, size: Size | None, side: int = SIDE
) -> Float[Tensor, "1 3 h w"]:
    """What the model saw, made small; where its geometry is not known, the middle in the right shape."""
    height, width = photo.shape[-2:]
    if geometry is None:
        shape = size or (1, 1)
        scale = min(height / shape[0], width / shape[1])
        geometry = Geometry(crop=(max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))))
    seen = geometry(photo)
    scale = side / max(seen.shape[-2:])
    if scale < 1:
        small = (max(2, round(seen.shape[-2] * scale)), max(2, round(seen.shape[-1] * scale)))
        seen = F.interpolate(seen, small, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    return seen


def _map(row: MethodMap) -> dict[str, Any]:
    """A method's map for the browser."""
    cells = row.cells()
    if cells is None:
        return {"name": row.entry.name, "rows": 0, "columns": 0, "data": "", "ends": None}
    ends = None if flaw(cells) else limits(cells)
    data = base64.b64encode(cells.half().numpy().astype("<f2").tobytes()).decode()
    return {"name": row.entry.name, "rows": cells.shape[0], "columns": cells.shape[1], "data": data, "ends": ends}


def _games(analysis: Analysis) -> list[str]:
    """The columns of the first protocol's games."""
    prefix = next(iter(protocols(analysis.metrics)), "")
    return [prefix + game for game in GAMES]


def _curves(row: MethodMap) -> dict[str, list[float]]:
    return {game: [round(float(score), 4) for score in scores] for game, scores in row.curves.items()}


def _score(row: MethodMap, game: str) -> float | None:
    index, values = row.entry.series.values(game)
    at = (index == row.image).nonzero()[0]
    return float(values[at[0]]) if len(at) else None


def facts(words: Mapping[str, Any]) -> str:
    """Class and probability."""
    target = words["label"] or (None if words["target"] is None else f"class {words['target']}")
    said = [] if target is None else [str(target)]
    if words["probability"] is not None:
        said.append(f"probability {words['probability']:.3f}")
    if words["predicted"] is not None and words["predicted"] != words["target"]:
        said.append(f"the model sees class {words['predicted']}")
    return ", ".join(said)


def _jpeg(image: Float[Tensor, "1 3 h w"], quality: int) -> str:
    pixels = image[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


_WORDS = ("image", "label", "target", "predicted", "probability")
_MORE = ("heatmap_scale", "warnings")
_COLUMNS = (*_WORDS, *_MORE, "size", "heatmap", "heatmap_shape", "rows_at", "columns_at")


@dataclass(frozen=True)
class MethodMap:
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

    entry: MethodEntry
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


def read_maps(run: ReportedRun, section: ModelSection, images: Sequence[int]) -> dict[int, list[MethodMap]]:
    """Each image's rows, one a method, in the order of the methods."""
    wanted = []
    for place, entry in enumerate(section.entries):
        series = entry.series
        for image in images:
            at = int(np.searchsorted(series.index, image))
            if at < len(series.index) and series.index[at] == image:
                wanted.append((int(series.file[at]), int(series.row[at]), image, place))
    found: dict[int, dict[int, MethodMap]] = {image: {} for image in images}
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


def _row(entry: MethodEntry, image: int, table: pa.Table) -> MethodMap:
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
    return MethodMap(entry, image, words, seen, heatmap if placed else None, rows, columns, points)


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


REASONS = ("among the best", "among the worst", "where the methods differ most")


@dataclass(frozen=True)
class ChosenImage:
    """An image by its index, why it is shown, and its score."""

    index: int
    reason: str
    score: float


def choose(section: ModelSection, metric: str | None, higher_is_better: bool, each: int) -> list[ChosenImage]:
    """So many images for each reason, no image twice; the reasons take turns, so that what is cut off is cut from all.

    Args:
        section: the model.
        metric: the headline; None shows nothing.
        higher_is_better: of that metric.
        each: images for each reason.
    """
    entries = _judged(section.entries, metric)
    if metric is None or not entries:
        return []
    common = reduce(np.intersect1d, (entry.series.values(metric)[0] for entry in entries))
    scores = np.stack([_at(entry, metric, common) for entry in entries])
    mean = scores.mean(axis=0)
    best = np.argsort(-mean if higher_is_better else mean, kind="stable")
    orders = [best, best[::-1]]
    if len(entries) > 1:
        orders.append(np.argsort(-scores.std(axis=0), kind="stable"))
    taken: dict[int, ChosenImage] = {}
    for place in range(min(each, len(common))):
        for order, reason in zip(orders, REASONS, strict=False):
            at = int(order[place])
            taken.setdefault(at, ChosenImage(int(common[at]), reason, float(mean[at])))
    return list(taken.values())


def _judged(entries: Sequence[MethodEntry], metric: str | None) -> list[MethodEntry]:
    """As many methods as have an image in common, those with the most images first."""
    kept: list[MethodEntry] = []
    common = None
    for entry in sorted(entries, key=lambda entry: -len(entry.series.values(metric or "")[0])):
        images = entry.series.values(metric or "")[0]
        shared = images if common is None else np.intersect1d(common, images)
        if len(shared):
            kept, common = [*kept, entry], shared
    return kept


def _at(
    entry: MethodEntry, metric: str, images: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    index, values = entry.series.values(metric)
    return values[np.searchsorted(index, images)]
