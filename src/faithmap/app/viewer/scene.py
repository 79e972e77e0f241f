"""Scene: everything that the browser needs to show maps of one photograph, and deletion and insertion step by step.

The order of the cells is the library's, :func:`faithmap.explanation.cell_ranks` of the map whose curves were
measured, and so is the number of cells after each step: the browser ranks nothing. It places cells as
:meth:`faithmap.Explanation.at` and :func:`faithmap.baselines.upsample` do. Both images of the model's input are lossless at 8
bits. Values of a map are sent in single precision, lowest byte first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from faithmap.app.viewer.packing import finite, jpeg, packed, png
from faithmap.errors import one_line
from faithmap.explanation import Explanation, cell_ranks
from faithmap.metrics.functional import DeletionInsertion
from faithmap.metrics.functional.curves import Curve, step_counts
from faithmap.metrics.functional.evidence import Level
from faithmap.model import Geometry
from faithmap.viz.browser import colours, display
from faithmap.viz.figure import flaw, limits

Curves: TypeAlias = DeletionInsertion
"""The curves of one image."""

SIDE = 960
"""Maximum length of the photograph's longer side, in pixels."""

STEPS = 50
"""Steps of the slider if no curve has been measured."""

COLOUR_MAPS = ("plasma", "viridis", "cividis", "inferno")
DIVERGING = "RdBu_r"

VERDICTS: Mapping[Level, str] = MappingProxyType(
    {"supported": "good", "mixed": "mixed", "undecided": "mixed", "unsupported": "bad", "unrecognised": "bad"}
)
"""How the page colours the verdict of a jury."""


@dataclass(frozen=True)
class PanelAreas:
    """Areas under the two curves of one map.

    Attributes:
        deletion: area under the deletion curve; lower is better.
        insertion: area under the insertion curve; higher is better.

    >>> PanelAreas(deletion=0.1, insertion=0.7)
    PanelAreas(deletion=0.1, insertion=0.7)
    """

    deletion: float
    insertion: float

    @classmethod
    def of(cls, curves: Curves) -> PanelAreas:
        """The areas of these curves; their mean if they belong to several random maps."""
        return cls(float(curves.deletion.area.mean()), float(curves.insertion.area.mean()))


@dataclass(frozen=True)
class MapPanel:
    """One panel: one map of one image.

    Attributes:
        name: name of the method; untrusted text, like all text here.
        target: the class, "tabby" or "class 281".
        heatmap: raw values, high for important cells.
        explanation: of one image, with the positions of the cells; None if their corners are those of the model's input.
        curves: curves of this map; None while it is unfinished.
        random: areas of a random map.
        facts: printed below the panel, such as "passes": "62".
        warnings: warnings about the map.
        verdict: level and sentence of a jury; None if none was asked.

    >>> MapPanel("Grad-CAM", "tabby", torch.rand(7, 7), facts={"passes": "2"}).target
    'tabby'
    """

    name: str
    target: str
    heatmap: Float[Tensor, "rows columns"]
    explanation: Explanation | None = None
    curves: Curves | None = None
    random: PanelAreas | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    verdict: tuple[Level, str] | None = None


def scene(
    photo: Image.Image,
    geometry: Geometry | None,
    view: Float[Tensor, "1 3 h w"],
    blurred: Float[Tensor, "1 3 h w"],
    panels: Sequence[MapPanel],
    *,
    difference: bool = False,
    agreement: Sequence[Sequence[float]] | None = None,
) -> dict[str, object]:
    """Plain data for :class:`faithmap.app.viewer.Viewer`.

    Args:
        photo: the original, upright.
        geometry: how the model's input is cropped from it; None if the photograph itself is the input.
        view: the model's input, in [0, 1].
        blurred: what removed pixels become, the baseline of both curves.
        panels: one to four, from left to right.
        difference: whether to add a panel with the first map minus the second, each scaled to [0, 1] as it is drawn.
        agreement: Spearman rank correlation of every two maps, with ones on the diagonal.

    Raises:
        ValueError: if photo, view and maps do not fit each other.

    >>> view = torch.zeros(1, 3, 8, 8)
    >>> made = scene(Image.new("RGB", (8, 8)), None, view, view, [MapPanel("Grad-CAM", "tabby", torch.rand(4, 4))])
    >>> len(made["panels"])
    1
    """
    _check(photo, geometry, view, blurred, panels, difference, agreement)
    size = (view.shape[-2], view.shape[-1])
    return {
        **_pictures(photo, geometry, view, blurred),
        "steps": max((len(panel.curves.deletion.fractions) - 1 for panel in panels if panel.curves), default=STEPS),
        "panels": [_panel(panel, size) for panel in panels],
        "difference": difference,
        "agreement": None if agreement is None else [[finite(value) for value in row] for row in agreement],
        "display": {**display(), "maps": {name: colours(name) for name in COLOUR_MAPS}, "diverging": colours(DIVERGING)},
    }


def _pictures(photo: Image.Image, geometry: Geometry | None, view: Tensor, blurred: Tensor) -> dict[str, object]:
    """The photograph, the part of it that is the model's input, the input, and its blurred copy."""
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
    panels: Sequence[MapPanel],
    difference: bool,
    agreement: Sequence[Sequence[float]] | None,
) -> None:
    """Raise ValueError if photo, view and maps do not fit each other."""
    made = geometry or Geometry()
    expected = tuple(made.crop or made.resized((photo.height, photo.width)))
    if view.shape != blurred.shape or tuple(view.shape) != (1, 3, *expected):
        shapes = f"the view has shape {tuple(view.shape)} and its blurred copy {tuple(blurred.shape)}"
        raise ValueError(f"{shapes}; give two images of (1, 3, {expected[0]}, {expected[1]}), as the geometry cuts them")
    if not 1 <= len(panels) <= 4:
        raise ValueError(f"there are {len(panels)} maps; give one to four")
    if difference and len(panels) != 2:
        raise ValueError(f"there are {len(panels)} maps; give two for their difference")
    if agreement is not None and {len(agreement), *(len(row) for row in agreement)} != {len(panels)}:
        raise ValueError(f"agreement is no table of {len(panels)} by {len(panels)}; give a row and a column for each map")


def _small(photo: Image.Image) -> Image.Image:
    """The photograph in RGB, no larger than necessary."""
    small = photo.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    return small


def _panel(panel: MapPanel, size: tuple[int, int]) -> dict[str, Any]:
    """A map, the ranking of its cells, and its curves."""
    explanation = _placed(panel, size)
    rows, columns = explanation.centres
    problem = flaw(explanation.heatmap)
    curves = panel.curves
    if curves is None:
        ranked = explanation.heatmap
    elif curves.resolution == explanation.resolution:
        ranked = curves.protocol.ranked(explanation)
    else:
        ranked = explanation.at(curves.resolution)
    cells = ranked[0].numel()
    fractions = panel.curves.deletion.fractions if panel.curves else None
    counts = step_counts(cells, STEPS) if fractions is None else (fractions.double() * cells).round().long()
    return {
        "name": one_line(panel.name),
        "target": one_line(panel.target),
        "rows": rows.tolist(),
        "columns": columns.tolist(),
        "values": packed(explanation.heatmap, torch.float32),
        "ends": None if problem else list(limits(explanation.heatmap)),
        "flaw": problem,
        "ranked": list(ranked.shape[-2:]),
        "places": packed(cell_ranks(ranked), torch.int32),
        "counts": counts.tolist(),
        "curves": None if panel.curves is None else _curves(panel.curves, panel.random),
        "facts": [[one_line(name), one_line(value)] for name, value in panel.facts.items()],
        "warnings": [one_line(text) for text in panel.warnings],
        "verdict": None if panel.verdict is None else [VERDICTS[panel.verdict[0]], f"Jury: {one_line(panel.verdict[1])}."],
    }


def _placed(panel: MapPanel, size: tuple[int, int]) -> Explanation:
    """The panel's map with the positions of its cells."""
    explanation = panel.explanation or Explanation.from_array(panel.heatmap.detach().cpu(), size)
    if len(explanation) != 1 or tuple(explanation.image_size) != size or explanation.resolution != tuple(panel.heatmap.shape):
        held = (
            f"its explanation has {len(explanation)} of {explanation.resolution} for images of {tuple(explanation.image_size)}"
        )
        shape = tuple(panel.heatmap.shape)
        raise ValueError(f"{panel.name}: the heatmap has shape {shape}, {held}; give those of one image, for a view of {size}")
    return replace(explanation, heatmap=panel.heatmap.detach().cpu().unsqueeze(0))


def _curves(curves: Curves, random: PanelAreas | None) -> dict[str, Any]:
    """The score at each step, and the areas."""

    def points(curve: Curve, random_area: float | None) -> dict[str, Any]:
        return {
            "fractions": [finite(value) for value in curve.fractions.tolist()],
            "scores": [finite(value) for value in curve.scores[0].tolist()],
            "area": finite(float(curve.area[0])),
            "random_area": None if random_area is None else finite(random_area),
        }

    return {
        "deletion": points(curves.deletion, random.deletion if random else None),
        "insertion": points(curves.insertion, random.insertion if random else None),
    }
