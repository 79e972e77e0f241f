"""What the page shows of an image: the photograph as the model saw it, the same blurred, and each method's map.

From these the browser makes the pictures of a game in which k cells are gone. Both pictures are small JPEG files, and maps are
half-precision numbers, so that a page with dozens of maps stays in megabytes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from faithmap.baselines import Blur
from faithmap.bench.report.analysis import Analysis, Section, resolution_name
from faithmap.bench.report.choosing import choose
from faithmap.bench.report.columns import GAMES, protocols
from faithmap.bench.report.folder import Size
from faithmap.bench.report.maps import Row, read_maps
from faithmap.data import ImageError, read_image
from faithmap.geometry import Geometry
from faithmap.viz.colours import flaw, limits

SIDE = 256
"""Of a picture's longer side, in pixels, at most."""

BUDGET = 8_000_000
"""Letters of a page that all pictures and maps may take; images that do not fit are left out."""


@dataclass(frozen=True)
class Card:
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
class Album:
    """The cards of a model, and what had to be left out."""

    cards: Sequence[Card]
    notes: Sequence[str]


def album(analysis: Analysis, section: Section, each: int, data: Path | None, budget: int) -> Album:
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
    cards: list[Card] = []
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
    return Album(cards, notes)


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


def _card(analysis: Analysis, section: Section, rows: Sequence[Row], folder: Path | None, reason: str) -> Card:
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
    return Card(name, reason, facts(words), _jpeg(view, 80), blurred, height, width, maps, spoken)


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


def _map(row: Row) -> dict[str, Any]:
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


def _curves(row: Row) -> dict[str, list[float]]:
    return {game: [round(float(score), 4) for score in scores] for game, scores in row.curves.items()}


def _score(row: Row, game: str) -> float | None:
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
