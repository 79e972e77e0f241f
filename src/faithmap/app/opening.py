"""Scenes of the images of a benchmark: one image for the viewer, and several as lines of a list.

Maps and curves are the stored ones; nothing is computed again. Maps are stored in half precision, so that cells with nearly
equal values may be ranked differently than in the evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from faithmap.app.differing import explanation_of, is_control
from faithmap.app.listing import RunListing
from faithmap.app.viewer.packing import jpeg, packed
from faithmap.app.viewer.scene import MapPanel, PanelAreas, scene
from faithmap.baselines import make_baseline, with_zero
from faithmap.bench.report.analysis import MethodEntry
from faithmap.bench.report.example_images import MethodMap, MissingError, class_text, read_dataset_image, read_maps, small_view
from faithmap.bench.report.results import AREAS, COSTS, protocols
from faithmap.bench.report.run_record import Shape
from faithmap.bench.report.tables import amount, number
from faithmap.data import ImageError
from faithmap.errors import one_line
from faithmap.explanation import Explanation
from faithmap.methods.settings import arguments_of
from faithmap.metrics.functional import DeletionInsertion, deletion_insertion
from faithmap.metrics.functional.agreement import spearman
from faithmap.metrics.functional.curves import PROTOCOLS, Curve, Protocol
from faithmap.model import Geometry
from faithmap.viz.browser import colours, display
from faithmap.viz.figure import COLORMAP, flaw, limits

MOST = 4
"""Maximum number of maps side by side."""

THUMB, CELLS = 112, 32
"""Size of a thumbnail's longer side in pixels, and maximum number of cells per side of its map."""


def opened(listing: RunListing, image: int, methods: Sequence[str]) -> dict[str, object]:
    """The scene of one image.

    Args:
        listing: of a model.
        image: its index.
        methods: up to four names; methods without a map of the image are left out.

    Raises:
        ValueError: if the photograph cannot be read, or no map of it is stored. The message contains no folder.
    """
    rows = [row for row in _rows(listing, image, methods).values() if row.heatmap is not None]
    if not rows:
        raise ValueError(f"{_name(listing, image)}: none of these methods has a map of it")
    photo = _photo(listing, image)
    size = rows[0].size or (224, 224)
    geometry = listing.section.model.view or _middle(photo, size)
    view = geometry(photo)
    explanations = [_explanation(row, size) for row in rows]
    panels = [_panel(listing, row, map_) for row, map_ in zip(rows, explanations, strict=True)]
    agreement = [[float(spearman(a, b)[0]) for b in explanations] for a in explanations] if len(explanations) > 1 else None
    return scene(_picture(photo), geometry, view, _removed(listing, view), panels, agreement=agreement)


def sheet(listing: RunListing, images: Sequence[int], metric: str, methods: Sequence[str]) -> dict[str, object]:
    """Plain data of several images, each with maps and scores, or an error message."""
    kept = list(methods)[:MOST]
    found = read_maps(listing.analysis.run, listing.section, images)
    lines = []
    for image in images:
        rows = {row.entry.id: row for row in found[image]}
        entries = {name: rows.get(listing.methods[name].id) for name in kept if name in listing.methods}
        maps = [_thumb(listing, name, row, metric, image) for name, row in entries.items()]
        words = next((class_text(row.fields) for row in found[image] if row.fields["target"] is not None), "")
        lines.append({"index": image, "name": _name(listing, image), "facts": one_line(words), "maps": maps})
        lines[-1] |= _small(listing, image, found[image])
    return {"lines": lines, "display": {**display(), "table": colours(COLORMAP)}}


def _small(listing: RunListing, image: int, rows: Sequence[MethodMap]) -> dict[str, Any]:
    """A thumbnail of the model's input, or an error message."""
    try:
        photo = _photo(listing, image)
    except ValueError as error:
        return {"picture": None, "problem": str(error)}
    view = small_view(photo, listing.section.model.view, rows[0].size, THUMB)
    return {"picture": jpeg(_picture(view)), "height": view.shape[-2], "width": view.shape[-1]}


def _thumb(listing: RunListing, name: str, row: MethodMap | None, metric: str, image: int) -> dict[str, Any]:
    """A map at a low resolution, and its score."""
    made: dict[str, Any] = {"name": one_line(name), "score": number(_value(listing.methods[name], metric, image)), "ends": None}
    cells = None if row is None else row.cells()
    if cells is None or flaw(cells):
        return made
    rows, columns = (min(side, CELLS) for side in cells.shape)
    coarse = Explanation(cells.unsqueeze(0), (224, 224)).at((rows, columns))[0]
    if flaw(coarse):
        return made
    return {**made, "rows": rows, "columns": columns, "values": packed(coarse, torch.float32), "ends": list(limits(coarse))}


def _rows(listing: RunListing, image: int, methods: Sequence[str]) -> dict[str, MethodMap]:
    """By name, in the order of the methods, up to the maximum side by side."""
    found = {row.entry.id: row for row in read_maps(listing.analysis.run, listing.section, [image])[image]}
    wanted = {name: listing.methods[name].id for name in list(methods)[:MOST] if name in listing.methods}
    return {name: found[key] for name, key in wanted.items() if key in found}


def _photo(listing: RunListing, image: int) -> Float[Tensor, "1 3 H W"]:
    name = _name(listing, image)
    try:
        return read_dataset_image(listing.folder, listing.names[image])
    except (ImageError, MissingError) as error:
        raise ValueError(f"{name}: the photograph is missing or cannot be read") from error


def _name(listing: RunListing, image: int) -> str:
    if image not in listing.names:
        raise ValueError(f"there is no image {image} in this run")
    return listing.title(image)


def _picture(photo: Float[Tensor, "1 3 h w"]) -> Image.Image:
    return Image.fromarray(photo[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().to(torch.uint8).numpy())


def _middle(photo: Float[Tensor, "1 3 H W"], size: Shape) -> Geometry:
    """The largest crop of the centre with the shape of the model's input."""
    scale = max(size[0] / photo.shape[-2], size[1] / photo.shape[-1])
    height, width = (max(side, round(scale * length)) for side, length in zip(size, photo.shape[-2:], strict=True))
    return Geometry((height, width), size)


def _explanation(row: MethodMap, size: Shape) -> Explanation:
    made = explanation_of(row)
    assert made is not None  # noqa: S101 - those without were left out
    return replace(made, image_size=size)


def _panel(listing: RunListing, row: MethodMap, explanation: Explanation) -> MapPanel:
    target = row.fields["label"] or f"class {row.fields['target']}"
    warnings = row.fields["warnings"] or ()
    name = next(name for name, entry in listing.methods.items() if entry.id == row.entry.id)
    curves, areas = _curves(listing, row, explanation), _random_areas(listing, row)
    return MapPanel(name, str(target), explanation.heatmap[0], explanation, curves, areas, _facts(listing, row), warnings)


def _curves(listing: RunListing, row: MethodMap, explanation: Explanation) -> DeletionInsertion | None:
    """The measured curves; None if one of them was not measured."""
    protocol, _ = _protocol(listing)
    if any(curve not in row.points for curve in AREAS):
        return None
    made = []
    for curve in AREAS:
        fractions, scores = (torch.from_numpy(np.array(values)) for values in row.points[curve])
        made.append(Curve(fractions, scores.unsqueeze(0)))
    cells = explanation.image_size if protocol.unit == "pixels" else row.entry.cells or explanation.resolution
    return DeletionInsertion(made[0], made[1], replace(protocol, resampled=row.entry.resampled), cells)


def _random_areas(listing: RunListing, row: MethodMap) -> PanelAreas | None:
    """Areas of the run's random map at the same resolution."""
    for entry in listing.methods.values():
        if is_control(listing.analysis.run, entry) and entry.cells == row.entry.cells:
            deletion, insertion = (_value(entry, _prefix(listing) + curve, row.image) for curve in AREAS)
            if deletion is not None and insertion is not None:
                return PanelAreas(deletion, insertion)
    return None


def _facts(listing: RunListing, row: MethodMap) -> Mapping[str, str]:
    """Passes, seconds, and the other scores."""
    costs = {"forward passes": "forward", "backward passes": "backward", "seconds": "seconds"}
    values = {text: _value(row.entry, column, row.image) for text, column in costs.items()}
    areas = {name for name in listing.metrics if name.endswith(AREAS)}
    values |= {name: _value(row.entry, name, row.image) for name in listing.metrics if name not in {*areas, *COSTS}}
    return {listing.with_direction(name): amount(value) for name, value in values.items() if value is not None}


def _value(entry: MethodEntry, column: str, image: int) -> float | None:
    index, values = entry.results.values(column)
    at = np.searchsorted(index, image)
    return float(values[at]) if at < len(index) and index[at] == image else None


def _prefix(listing: RunListing) -> str:
    """Prefix of the columns of the first protocol, whose curves are shown."""
    return next(iter(protocols(listing.metrics)), "")


def _protocol(listing: RunListing) -> tuple[Protocol, Mapping[str, Any]]:
    """The protocol of the curves, and their settings in the plan."""
    column = _prefix(listing) + AREAS[0]
    settings = next((metric.settings for metric in listing.analysis.run.plan.metrics if metric.id == column), {})
    return PROTOCOLS.get(str(settings.get("protocol")), PROTOCOLS["igos"]), settings


def _removed(listing: RunListing, view: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 3 h w"]:
    """What removed pixels become: the plan's baseline, otherwise the insertion baseline of the protocol."""
    protocol, settings = _protocol(listing)
    baseline = protocol.insertion_baseline
    if "baseline" in settings:
        baseline = arguments_of(deletion_insertion)["baseline"].from_plain(settings["baseline"])
    if (zero := listing.section.model.zero) is not None:
        baseline = with_zero(baseline, zero)
    return make_baseline(baseline, view)
