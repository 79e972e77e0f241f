"""Scene: everything that the browser needs to show maps of one photograph and to play deletion and insertion with them.

The order of the cells comes from the library, :func:`faithmap.explanation.cell_ranks` of the very map that the
games were played with, as do the numbers of cells after each step: the browser ranks nothing. It places cells as
:meth:`faithmap.Explanation.at` and :func:`faithmap.masking.upsample` do. Both pictures of what the model saw come without
loss, in 8 bits. Numbers of a map travel as single precision, lowest byte first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from faithmap.app.viewer.packing import finite, jpeg, packed, png
from faithmap.explanation import Explanation, cell_ranks
from faithmap.geometry import Geometry
from faithmap.metrics.functional import DeletionInsertion
from faithmap.metrics.functional.curves import Curve, step_counts
from faithmap.text import one_line
from faithmap.viz.browser import colours, display
from faithmap.viz.overlay import flaw, limits

Curves: TypeAlias = DeletionInsertion
"""Of one image: the library's own result."""

SIDE = 960
"""Of the photograph's longer side as it is sent, in pixels, at most."""

STEPS = 50
"""Of the scrubber where nothing was measured yet."""

COLOUR_MAPS = ("plasma", "viridis", "cividis", "inferno")
DIVERGING = "RdBu_r"


@dataclass(frozen=True)
class Areas:
    """Under the curves of deletion, where less is better, and of insertion, where more is."""

    deletion: float
    insertion: float

    @classmethod
    def of(cls, curves: Curves) -> Areas:
        """Their mean, where the curves are of several random maps of one image."""
        return cls(float(curves.deletion.area.mean()), float(curves.insertion.area.mean()))


@dataclass(frozen=True)
class Shown:
    """One panel: one map of one image.

    Attributes:
        name: of the method; untrusted, as is all text here.
        target: the class, "tabby" or "class 281".
        heatmap: raw, high where it matters.
        explanation: for where its cells lie, of one image; None: they fill the model's view, corners aligned.
        curves: of this map; None while it still grows.
        chance: the areas of a random map.
        facts: shown below the panel, such as "passes": "62".
        warnings: in plain words.
    """

    name: str
    target: str
    heatmap: Float[Tensor, "rows columns"]
    explanation: Explanation | None = None
    curves: Curves | None = None
    chance: Areas | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def scene(
    photo: Image.Image,
    geometry: Geometry | None,
    view: Float[Tensor, "1 3 h w"],
    blurred: Float[Tensor, "1 3 h w"],
    shown: Sequence[Shown],
    *,
    difference: bool = False,
    agreement: Sequence[Sequence[float]] | None = None,
) -> dict[str, object]:
    """Plain data for :class:`faithmap.app.viewer.Viewer`.

    Args:
        photo: the original, upright.
        geometry: how the view was cut from it; None where the photograph itself was explained.
        view: what the model saw, in [0, 1].
        blurred: what a removed pixel becomes, the baseline of both games.
        shown: one to four panels, from left to right.
        difference: add a panel with the first map minus the second, each scaled to [0, 1] as it is drawn.
        agreement: of every two maps, their rank correlation (Spearman), with ones on the diagonal.

    Raises:
        ValueError: for a photo, view and maps that do not fit each other.
    """
    _check(photo, geometry, view, blurred, shown, difference, agreement)
    size = (view.shape[-2], view.shape[-1])
    return {
        **_pictures(photo, geometry, view, blurred),
        "steps": max((len(one.curves.deletion.fractions) - 1 for one in shown if one.curves), default=STEPS),
        "panels": [_panel(one, size) for one in shown],
        "difference": difference,
        "agreement": None if agreement is None else [[finite(value) for value in row] for row in agreement],
        "display": {**display(), "maps": {name: colours(name) for name in COLOUR_MAPS}, "diverging": colours(DIVERGING)},
    }


def _pictures(photo: Image.Image, geometry: Geometry | None, view: Tensor, blurred: Tensor) -> dict[str, object]:
    """The photograph, the part of it that the model saw, and both of what it was shown."""
    top, left, tall, wide = (geometry or Geometry()).window((photo.height, photo.width))
    small = _small(photo)
    return {
        "photo": jpeg(small),
        "size": [small.height, small.width],
        "window": [top / photo.height, left / photo.width, tall / photo.height, wide / photo.width],
        "view": png(view),
        "blurred": png(blurred),
        "height": view.shape[-2],
        "width": view.shape[-1],
    }


def _check(
    photo: Image.Image,
    geometry: Geometry | None,
    view: Tensor,
    blurred: Tensor,
    shown: Sequence[Shown],
    difference: bool,
    agreement: Sequence[Sequence[float]] | None,
) -> None:
    """Refuse what cannot be shown."""
    made = geometry or Geometry()
    seen = tuple(made.crop or made.resized((photo.height, photo.width)))
    if view.shape != blurred.shape or tuple(view.shape) != (1, 3, *seen):
        shapes = f"the view has shape {tuple(view.shape)} and its blurred copy {tuple(blurred.shape)}"
        raise ValueError(f"{shapes}; give two images of (1, 3, {seen[0]}, {seen[1]}), as the geometry cuts them")
    if not 1 <= len(shown) <= 4:
        raise ValueError(f"there are {len(shown)} maps; give one to four")
    if difference and len(shown) != 2:
        raise ValueError(f"there are {len(shown)} maps; give two for their difference")
    if agreement is not None and {len(agreement), *(len(row) for row in agreement)} != {len(shown)}:
        raise ValueError(f"agreement is no table of {len(shown)} by {len(shown)}; give a row and a column for each map")


def _small(photo: Image.Image) -> Image.Image:
    """In RGB, no larger than it is shown."""
    small = photo.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    return small


def _panel(one: Shown, size: tuple[int, int]) -> dict[str, Any]:
    """A map, the order of what is played, and its curves."""
    why = _placed(one, size)
    rows, columns = why.centres
    problem = flaw(why.heatmap)
    ranked = why.cells if one.curves is None or one.curves.resolution == why.resolution else why.at(one.curves.resolution)
    cells = ranked[0].numel()
    fractions = one.curves.deletion.fractions if one.curves else None
    counts = step_counts(cells, STEPS) if fractions is None else (fractions.double() * cells).round().long()
    return {
        "name": one_line(one.name),
        "target": one_line(one.target),
        "rows": rows.tolist(),
        "columns": columns.tolist(),
        "values": packed(why.heatmap, torch.float32),
        "ends": None if problem else list(limits(why.heatmap)),
        "flaw": problem,
        "played": list(ranked.shape[-2:]),
        "places": packed(cell_ranks(ranked), torch.int32),
        "counts": counts.tolist(),
        "games": None if one.curves is None else _games(one.curves, one.chance),
        "facts": [[one_line(name), one_line(value)] for name, value in one.facts.items()],
        "warnings": [one_line(text) for text in one.warnings],
    }


def _placed(one: Shown, size: tuple[int, int]) -> Explanation:
    """The panel's map where its cells lie."""
    why = one.explanation or Explanation.from_array(one.heatmap.detach().cpu(), size)
    if len(why) != 1 or tuple(why.image_size) != size or why.resolution != tuple(one.heatmap.shape):
        held = f"its explanation holds {len(why)} of {why.resolution} for images of {tuple(why.image_size)}"
        shape = tuple(one.heatmap.shape)
        raise ValueError(f"{one.name}: the heatmap has shape {shape}, {held}; give those of one image, for a view of {size}")
    return replace(why, heatmap=one.heatmap.detach().cpu().unsqueeze(0))


def _games(curves: Curves, chance: Areas | None) -> dict[str, Any]:
    """The score after each step, and the areas."""

    def game(curve: Curve, by_chance: float | None) -> dict[str, Any]:
        return {
            "fractions": [finite(value) for value in curve.fractions.tolist()],
            "scores": [finite(value) for value in curve.scores[0].tolist()],
            "area": finite(float(curve.area[0])),
            "chance": None if by_chance is None else finite(by_chance),
        }

    return {
        "deletion": game(curves.deletion, chance.deletion if chance else None),
        "insertion": game(curves.insertion, chance.insertion if chance else None),
    }
