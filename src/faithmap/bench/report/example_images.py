"""Example images of the page: their selection, and their heatmaps at a reduced size.

The page shows the images with the best scores, the worst scores, and the largest differences between methods. An image's score
is the mean of the headline metric over methods; every image is judged by the same methods, so that methods of several
resolutions can be averaged.

From an image, its blurred copy and a heatmap the browser makes the images of a deletion and insertion test with k cells. Both
images are small JPEG files and heatmaps have half precision, so that a page with dozens of heatmaps has megabytes.
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
from faithmap.bench.report.results import AREAS, Indices, Numbers, on_grid, open_unit_file, protocols
from faithmap.bench.report.run_record import ReportedRun, Shape
from faithmap.data import ImageError, read_image
from faithmap.explanation import Explanation
from faithmap.model import Geometry
from faithmap.viz.figure import flaw, limits

MAX_SIDE = 256
"""Pixels of the longer side of a shown image."""

MAX_CHARACTERS = 8_000_000
"""Characters of the page that all images and heatmaps may take; images beyond it are left out."""

REASONS = ("among the best", "among the worst", "with large differences between methods")

UNKNOWN_VIEW = "The record of the run does not have the model's cropping: the middle of the images is shown."

_FIELDS = ("image", "label", "target", "predicted", "probability", "heatmap_scale", "warnings")
_COLUMNS = (*_FIELDS, "size", "heatmap", "heatmap_shape", "rows_at", "columns_at")


class MissingError(Exception):
    """An image that is not shown; the message is the reason."""


@dataclass(frozen=True)
class ExampleImage:
    """An image as the page shows it.

    Attributes:
        name: of the file; untrusted.
        reason: of the selection.
        class_text: class and probability.
        original: the model's view as a data URI.
        blurred: the same, blurred.
        height: of both, in pixels.
        width: of both, in pixels.
        maps: one heatmap per method, as the script reads it.
        captions: method, resolution if the model has several, and scores of each heatmap.
    """

    name: str
    reason: str
    class_text: str
    original: str
    blurred: str
    height: int
    width: int
    maps: Sequence[Mapping[str, Any]]
    captions: Sequence[tuple[str, str, str]]

    @property
    def characters(self) -> int:
        """Characters that it takes of the page."""
        return len(self.original) + len(self.blurred) + sum(len(entry["data"]) + 2000 for entry in self.maps)


@dataclass(frozen=True)
class ExampleImages:
    """The shown images of a model, and notes on those that are left out."""

    images: Sequence[ExampleImage]
    notes: Sequence[str]


@dataclass(frozen=True)
class ChosenImage:
    """An image by its index, the reason of its selection, and its score."""

    index: int
    reason: str
    score: float


@dataclass(frozen=True)
class MethodMap:
    """The row of an image under one method.

    Attributes:
        entry: the method.
        image: index of the image.
        fields: image, label, target, predicted, probability, heatmap_scale and warnings.
        size: height and width of the model's input; None if unknown.
        heatmap: as stored; None if the row has none.
        rows: centres of its rows in pixels of the model's input; None if its corners are the image's.
        columns: centres of its columns.
        points: fractions and scores of each curve, by the name of its area.
    """

    entry: MethodEntry
    image: int
    fields: dict[str, Any]
    size: Shape | None
    heatmap: Float[Tensor, "r c"] | None
    rows: Float[Tensor, " r"] | None
    columns: Float[Tensor, " c"] | None
    points: dict[str, tuple[Numbers, Numbers]]

    @property
    def curves(self) -> dict[str, Numbers]:
        """The curves on the grid."""
        return {area: on_grid(*points) for area, points in self.points.items()}

    def cells(self) -> Float[Tensor, "r c"] | None:
        """The heatmap at the cells of the deletion and insertion test."""
        if self.heatmap is None:
            return None
        rows, columns = (self.rows, self.columns) if self.size is not None else (None, None)
        stored = Explanation(self.heatmap.float().unsqueeze(0), self.size or (224, 224), rows=rows, columns=columns)
        wanted = self.entry.cells or stored.resolution
        raw = wanted == stored.resolution and not self.entry.resampled
        return (stored.heatmap if raw else stored.at(wanted))[0]


def make_examples(analysis: Analysis, section: ModelSection, each: int, data: Path | None, limit: int) -> ExampleImages:
    """Choose the images of a model, and prepare them for the page.

    Args:
        analysis: of the run.
        section: the model.
        each: images for each reason.
        data: folder of the images; None for the one in the record of the run.
        limit: maximum number of characters of the page.
    """
    metric = analysis.headline
    chosen = choose_images(section, metric, analysis.directions.get(metric or "", True), each)
    maps = read_maps(analysis.run, section, [one.index for one in chosen])
    folder = data or images_folder(analysis)
    notes = [] if section.model.view or not chosen else [UNKNOWN_VIEW]
    images: list[ExampleImage] = []
    for one in chosen:
        reason = f"{one.reason}: {metric} {one.score:.3f} on average"
        try:
            example = _example(analysis, section, maps[one.index], folder, reason)
        except (ImageError, MissingError) as error:
            notes.append(str(error))
            continue
        if example.characters + sum(other.characters for other in images) > limit:
            notes.append(f"The {len(chosen) - len(images)} last images are left out, to limit the size of the page.")
            break
        images.append(example)
    return ExampleImages(images, notes)


def choose_images(section: ModelSection, metric: str | None, higher_is_better: bool, each: int) -> list[ChosenImage]:
    """Choose images for each reason, none twice; the reasons alternate, so that a limit shortens all of them.

    Args:
        section: the model.
        metric: the headline; None chooses nothing.
        higher_is_better: direction of the metric.
        each: images for each reason.
    """
    entries = _entries_with_common_images(section.entries, metric)
    if metric is None or not entries:
        return []
    common = reduce(np.intersect1d, (entry.results.values(metric)[0] for entry in entries))
    scores = np.stack([_values_at(entry, metric, common) for entry in entries])
    mean = scores.mean(axis=0)
    best = np.argsort(-mean if higher_is_better else mean, kind="stable")
    orders = [best, best[::-1]]
    if len(entries) > 1:
        orders.append(np.argsort(-scores.std(axis=0), kind="stable"))
    chosen: dict[int, ChosenImage] = {}
    for place in range(min(each, len(common))):
        for order, reason in zip(orders, REASONS, strict=False):
            at = int(order[place])
            chosen.setdefault(at, ChosenImage(int(common[at]), reason, float(mean[at])))
    return list(chosen.values())


def _entries_with_common_images(entries: Sequence[MethodEntry], metric: str | None) -> list[MethodEntry]:
    """As many methods as have an image in common, those with the most images first."""
    kept: list[MethodEntry] = []
    common = None
    for entry in sorted(entries, key=lambda entry: -len(entry.results.values(metric or "")[0])):
        images = entry.results.values(metric or "")[0]
        shared = images if common is None else np.intersect1d(common, images)
        if len(shared):
            kept, common = [*kept, entry], shared
    return kept


def _values_at(entry: MethodEntry, metric: str, images: Indices) -> Numbers:
    index, values = entry.results.values(metric)
    return values[np.searchsorted(index, images)]


def images_folder(analysis: Analysis) -> Path | None:
    """The folder of the images: as in the record of the run, or relative to the run; None if the record has none."""
    path = analysis.run.plan.data.path
    if path is None:
        return None
    places = [Path(path), analysis.run.folder / path]
    found = next((place for place in places if place.exists()), places[0])
    return found.parent if found.is_file() else found


def _example(
    analysis: Analysis, section: ModelSection, method_maps: Sequence[MethodMap], folder: Path | None, reason: str
) -> ExampleImage:
    first = method_maps[0]
    name = str(first.fields["image"])
    view = small_view(read_dataset_image(folder, name), section.model.view, first.size)
    prefix = next(iter(protocols(analysis.metrics)), "")
    maps, captions = [], []
    for method_map in method_maps:
        curves = {area: [round(float(score), 4) for score in scores] for area, scores in method_map.curves.items()}
        entry = method_map.entry
        maps.append({**_map_for_script(method_map), "colour": analysis.colours[entry.name], "curves": curves})
        scores = [score for area in AREAS if (score := _score(method_map, prefix + area)) is not None]
        resolution = resolution_name(entry.cells) if len(section.groups) > 1 else ""
        captions.append((entry.name, resolution, " / ".join(f"{score:.3f}" for score in scores)))
    height, width = view.shape[-2:]
    return ExampleImage(
        name=name,
        reason=reason,
        class_text=class_text(first.fields),
        original=_jpeg(view, 80),
        blurred=_jpeg(Blur()(view), 60),
        height=height,
        width=width,
        maps=maps,
        captions=captions,
    )


def _score(method_map: MethodMap, column: str) -> float | None:
    images, values = method_map.entry.results.values(column)
    at = (images == method_map.image).nonzero()[0]
    return float(values[at[0]]) if len(at) else None


def _map_for_script(method_map: MethodMap) -> dict[str, Any]:
    cells = method_map.cells()
    if cells is None:
        return {"name": method_map.entry.name, "rows": 0, "columns": 0, "data": "", "ends": None}
    ends = None if flaw(cells) else limits(cells)
    data = base64.b64encode(cells.half().numpy().astype("<f2").tobytes()).decode()
    return {"name": method_map.entry.name, "rows": cells.shape[0], "columns": cells.shape[1], "data": data, "ends": ends}


def read_dataset_image(folder: Path | None, name: str) -> Float[Tensor, "1 3 H W"]:
    """Read an image of the data set by the name in a row, which is untrusted.

    Raises:
        MissingError: if the name leads out of the folder, or there is no folder.
        ImageError: if the file cannot be read.
    """
    if folder is None or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise MissingError(f"{name}: is not shown, since it is in no known folder.")
    return read_image(folder / name)


def small_view(
    image: Float[Tensor, "1 3 H W"], geometry: Geometry | None, size: Shape | None, side: int = MAX_SIDE
) -> Float[Tensor, "1 3 h w"]:
    """The model's view of an image, reduced in size.

    Args:
        image: of the data set.
        geometry: of the model; if None, the middle of the image is shown in the shape of the model's input.
        size: height and width of the model's input, if known.
        side: maximum number of pixels of the longer side.
    """
    height, width = image.shape[-2:]
    if geometry is None:
        shape = size or (1, 1)
        scale = min(height / shape[0], width / shape[1])
        geometry = Geometry(crop=(max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))))
    view = geometry(image)
    scale = side / max(view.shape[-2:])
    if scale < 1:
        small = (max(2, round(view.shape[-2] * scale)), max(2, round(view.shape[-1] * scale)))
        view = F.interpolate(view, small, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    return view


def class_text(fields: Mapping[str, Any]) -> str:
    """Explained class, its probability, and the predicted class if it differs."""
    target = fields["label"] or (None if fields["target"] is None else f"class {fields['target']}")
    parts = [] if target is None else [str(target)]
    if fields["probability"] is not None:
        parts.append(f"probability {fields['probability']:.3f}")
    if fields["predicted"] is not None and fields["predicted"] != fields["target"]:
        parts.append(f"the model predicts class {fields['predicted']}")
    return ", ".join(parts)


def _jpeg(image: Float[Tensor, "1 3 h w"], quality: int) -> str:
    pixels = image[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True, order=True)
class _StoredRow:
    """Where the row of an image under a method (by its position in the section) is stored."""

    file: int
    row: int
    image: int
    method: int


def read_maps(run: ReportedRun, section: ModelSection, images: Sequence[int]) -> dict[int, list[MethodMap]]:
    """The rows of each image, in the order of the methods; only the row groups that contain them are read."""
    wanted = [
        _StoredRow(*location, image, method)
        for method, entry in enumerate(section.entries)
        for image in images
        if (location := entry.results.location(image)) is not None
    ]
    found: dict[int, dict[int, MethodMap]] = {image: {} for image in images}
    for number, stored in groupby(sorted(wanted), key=lambda stored: stored.file):
        with open_unit_file(run.files[number]) as file:
            for place, row in _read_rows(file, list(stored)):
                found[place.image][place.method] = _method_map(section.entries[place.method], place.image, row)
    return {image: [maps[method] for method in sorted(maps)] for image, maps in found.items()}


def _read_rows(file: pq.ParquetFile, stored: list[_StoredRow]) -> Iterator[tuple[_StoredRow, pa.Table]]:
    """Each row as a table; a row group is read once for all its rows."""
    curves = ("curve_fractions", *(f"{area}_curve" for area in AREAS))
    names = [name for name in file.schema_arrow.names if name in _COLUMNS or name.endswith(curves)]
    ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)])
    for number, places in groupby(stored, key=lambda place: int(np.searchsorted(ends, place.row, side="right"))):
        table = file.read_row_group(number, columns=names)
        start = int(ends[number]) - table.num_rows
        for place in places:
            yield place, table.slice(place.row - start, 1)


def _method_map(entry: MethodEntry, image: int, table: pa.Table) -> MethodMap:
    def get(name: str) -> Any:
        return table.column(name)[0].as_py() if name in table.column_names else None

    rows, columns = (
        None if at is None else torch.tensor(at, dtype=torch.float64) for at in (get("rows_at"), get("columns_at"))
    )
    points = {}
    prefix = next(iter(protocols(name.removesuffix("_curve") for name in table.column_names)), "")
    for area in AREAS:
        fractions, scores = get(f"{prefix}curve_fractions"), get(f"{prefix}{area}_curve")
        if fractions and scores and len(fractions) == len(scores):
            points[area] = np.asarray(fractions, np.float64), np.asarray(scores, np.float64)
    size = get("size")
    heatmap = _heatmap(table, get("heatmap_shape"))
    if heatmap is not None and any(
        at is not None and len(at) != side for at, side in zip((rows, columns), heatmap.shape, strict=True)
    ):
        heatmap = None
    fields = {name: get(name) for name in _FIELDS}
    return MethodMap(entry, image, fields, (size[0], size[1]) if size else None, heatmap, rows, columns, points)


def _heatmap(table: pa.Table, shape: Sequence[int] | None) -> Float[Tensor, "r c"] | None:
    """From a fixed-shape tensor, or from a list with its shape in another column."""
    if "heatmap" not in table.column_names:
        return None
    cell = table.column("heatmap").combine_chunks()
    shape = shape or getattr(cell.type, "shape", None)
    if cell.null_count or not shape or len(shape) != 2:
        return None
    storage = cell.storage if isinstance(cell, pa.ExtensionArray) else cell
    values = storage.flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(np.array(values)).view(*shape) if len(values) == shape[0] * shape[1] else None
