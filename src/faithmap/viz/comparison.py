"""Comparison: maps of several methods on one image, their cells, and their deletion and insertion curves.

The pictures are those of Figures 3 to 6 of the I-GOS paper, maps with their curves, and of Figure 4a of the Expected Grad-CAM
paper, overlays with the coarse maps that they are made from.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.model import Geometry
from faithmap.viz.figure import (
    COLORMAP,
    COLOURS,
    KINDS,
    REFERENCE,
    CurveKind,
    Heading,
    InlineFigure,
    axes_at,
    check_explained,
    draw,
    draw_map,
    draw_message,
    flaw,
    frame,
    label,
    limits,
    line_of,
    one_image,
    title_of,
)
from faithmap.viz.panel import paint_cells

if TYPE_CHECKING:
    from faithmap.metrics.functional import DeletionInsertion

Part: TypeAlias = Literal["overlay", "cells", "curves"]
"""What is drawn of each method: its map over the image, its own cells, its curves."""

_HEIGHT, _GAP, _SIDE = 2.2, 0.2, 0.25
_PLOT, _PLOT_LEFT = 1.05, 0.32
_BELOW, _ROW_BELOW = 0.34, 0.28
_TITLE_WIDTH, _TITLE_LINE = 30, 0.17

_REFERENCES: tuple[tuple[CurveKind, Literal["--", "-"]], ...] = (("deletion", "--"), ("insertion", "-"))
"""Lines of random maps."""

ComparedMethods: TypeAlias = "Mapping[str, tuple[Explanation, DeletionInsertion | None]]"
"""Name of each method to its explanation and the curves of it."""


def compare(
    image: Float[Tensor, "1 c h w"],
    methods: ComparedMethods,
    *,
    photo: Float[Tensor, "1 c H W"] | None = None,
    geometry: Geometry | None = None,
    labels: Sequence[str] | None = None,
    parts: Sequence[Part] = ("overlay", "curves"),
    references: Sequence[DeletionInsertion] = (),
    columns: int = 4,
    title: str | None = None,
    colormap: str = COLORMAP,
) -> Figure:
    """Draw the image, and the map of every method, each on its own colour scale, with its curves below it.

    >>> import torch
    >>> maps = {name: (Explanation(torch.rand(1, 4, 4), (16, 16)), None) for name in ("gradcam", "rise")}
    >>> [ax.get_title() for ax in compare(torch.rand(1, 3, 16, 16), maps).axes]
    ['Photograph', 'gradcam', 'rise']

    Args:
        image: the one image that was explained, in [0, 1].
        methods: explanation and curves of each method, in the order of the drawing. Areas compare only if all have one protocol
            and resolution; the heading states these, or that they differ. A line break in a name begins a second line.
        photo: the original image; None draws ``image``.
        geometry: resize and crop from the photo to the image.
        labels: one name per class.
        parts: what is drawn of each method, from top to bottom: ``"overlay"``, ``"cells"``, ``"curves"``. Without any curves
            their place is left out.
        references: curves of random maps, drawn in grey beside those of the methods of the same protocol and resolution.
        columns: maximum number of pictures per row, at least 1; rows are about equally long.
        title: instead of the class and its probability.
        colormap: name of a colormap of matplotlib.

    Raises:
        ValueError: for no methods, several images, no map among the parts, or an image, photo and explanation that do not fit
            each other.
    """
    if not methods or columns < 1:
        raise ValueError("there is nothing to compare; give at least one method, and at least one column")
    image = one_image(image)
    for explanation, evidence in methods.values():
        check_explained(image, explanation, evidence)
    original = image if photo is None else one_image(photo, "photo")
    drawn_parts = _checked(parts, [evidence for _, evidence in methods.values()])
    first, evidence = next(iter(methods.values()))
    subtitle = _protocol_text([evidence for _, evidence in methods.values()], references)
    texts = title or title_of(first, evidence, labels), subtitle
    lines = {name: _lines(name) for name in methods}
    sheet = _PictureGrid.of(original, 1 + len(methods), columns, drawn_parts, max(map(len, lines.values())))
    figure, heading = sheet.figure(texts)
    first_axes, *pictures = sheet.axes(figure, heading)
    draw(first_axes[0], original, "Photograph")
    if "curves" in drawn_parts:
        _legend(first_axes[0], with_references=bool(references))
    place = None if photo is None else geometry
    for axes, (name, pair) in zip(pictures, methods.items(), strict=True):
        named = dict(zip(drawn_parts, axes, strict=True))
        _draw_method(named, original, pair, "\n".join(lines[name]), references, colormap, place)
    return figure


def _draw_method(
    axes: Mapping[Part, Axes],
    photo: Float[Tensor, "1 3 h w"],
    method: tuple[Explanation, DeletionInsertion | None],
    name: str,
    references: Sequence[DeletionInsertion],
    colormap: str,
    geometry: Geometry | None,
) -> None:
    """Draw the parts of one method, with its name above the first one and its areas below its last map."""
    explanation, evidence = method
    maps = [part for part in axes if part != "curves"]
    for part, ax in axes.items():
        texts = (name if part == maps[0] else "", _areas(evidence) if part == maps[-1] else "")
        if part == "overlay":
            draw_map(ax, photo, explanation, texts, colormap, geometry)
        elif part == "cells":
            _draw_cells(ax, explanation, texts, colormap)
        elif evidence is not None:
            _draw_curves(ax, evidence, references)
        else:
            ax.set_axis_off()


def _draw_cells(ax: Axes, explanation: Explanation, texts: tuple[str, str], colormap: str) -> None:
    """Draw the map's own cells without interpolation; of a map without an order, write what is wrong with it."""
    problem = flaw(explanation.heatmap)
    if problem is None:
        paint_cells(ax, explanation, limits(explanation.heatmap), colormap)
        label(ax, *texts)
    else:
        draw_message(ax, problem, texts[0], explanation.image_size)


def _draw_curves(ax: Axes, evidence: DeletionInsertion, references: Sequence[DeletionInsertion]) -> None:
    """Plot both curves, and in grey those of a random map of the same protocol and resolution."""
    same = [one for one in references if _protocol_of(one) == _protocol_of(evidence)]
    for one in same:
        for kind, style in _REFERENCES:
            ax.plot(*line_of(getattr(one, kind)), color=REFERENCE, linestyle=style, linewidth=0.8)
    for kind in KINDS:
        ax.plot(*line_of(getattr(evidence, kind)), color=COLOURS[kind], linewidth=1.6)
    frame(ax, [curve for one in (*same, evidence) for curve in (one.deletion, one.insertion)])
    ax.set_xticks([0, 0.5, 1])
    ax.tick_params(labelsize=7)


def _legend(ax: Axes, *, with_references: bool) -> None:
    """Name the lines of all curves, below the photograph."""
    lines = [Line2D([], [], color=COLOURS[kind], label=kind) for kind in KINDS]
    grey: dict[str, Any] = {"color": REFERENCE, "linewidth": 0.8}
    if with_references:
        lines += [Line2D([], [], label=f"{kind}, random map", linestyle=style, **grey) for kind, style in _REFERENCES]
    below: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.2), "frameon": False, "borderaxespad": 0}
    title = "score against the share of cells\ndeleted or inserted"
    ax.legend(handles=lines, title=title, fontsize=8, title_fontsize=8, alignment="left", **below)


def _lines(name: str) -> list[str]:
    """A name as lines that fit above a picture."""
    return [line for part in name.split("\n") for line in textwrap.wrap(part, _TITLE_WIDTH)] or [""]


def _areas(evidence: DeletionInsertion | None) -> str:
    areas = () if evidence is None else (evidence.deletion.area, evidence.insertion.area)
    return "  ".join(f"{kind} {float(area):.3f}" for kind, area in zip(KINDS, areas, strict=bool(areas)))


@dataclass(frozen=True)
class _PictureGrid:
    """Positions of all pictures, in inches: one column of parts per method, in rows that are about equally long."""

    wide: float
    across: int
    cells: int
    parts: tuple[Part, ...]
    above: float

    @classmethod
    def of(cls, photo: Tensor, cells: int, columns: int, parts: tuple[Part, ...], lines: int) -> _PictureGrid:
        """The sheet of that many pictures, whose titles have at most that many lines."""
        wide = _HEIGHT * min(max(photo.shape[-1] / photo.shape[-2], 0.6), 2.0)
        down = -(-cells // columns)
        return cls(wide, -(-cells // down), cells, parts, _TITLE_LINE * (lines - 1))

    @property
    def height(self) -> float:
        """Of one row, with the space below it."""
        parts = sum((_PLOT if part == "curves" else _HEIGHT) + _BELOW for part in self.parts)
        return self.above + parts + _ROW_BELOW

    def figure(self, texts: tuple[str, str]) -> tuple[InlineFigure, Heading]:
        """The figure with its heading."""
        width = 2 * _SIDE + self.across * (self.wide + _GAP) - _GAP
        heading = Heading.of(*texts, width - 2 * _SIDE)
        figure = InlineFigure(figsize=(width, heading.height + -(-self.cells // self.across) * self.height))
        heading.write(figure, _SIDE)
        return figure, heading

    def axes(self, figure: Figure, heading: Heading) -> Iterator[list[Axes]]:
        """The axes of the parts of each picture; the first one, the photograph, has only one."""
        for i in range(self.cells):
            left = _SIDE + i % self.across * (self.wide + _GAP)
            top = heading.height + i // self.across * self.height + self.above
            made = []
            for part in self.parts if i else self.parts[:1]:
                if part == "curves":
                    made.append(axes_at(figure, left + _PLOT_LEFT, top, self.wide - _PLOT_LEFT, _PLOT))
                    top += _PLOT + _BELOW
                else:
                    made.append(axes_at(figure, left, top, self.wide, _HEIGHT))
                    top += _HEIGHT + _BELOW
            yield made


def _checked(parts: Sequence[Part], evidence: Sequence[DeletionInsertion | None]) -> tuple[Part, ...]:
    """The parts, without curves where there are none."""
    known = get_args(Part)
    if len(set(parts)) != len(parts) or not set(parts) <= set(known) or parts[:1] in ([], (), ["curves"], ("curves",)):
        given = f"parts are {', '.join(parts) or 'empty'}"
        raise ValueError(f"{given}; give some of {', '.join(known)}, each once, and first overlay or cells")
    return tuple(part for part in parts if part != "curves" or any(one is not None for one in evidence))


def _protocol_of(evidence: DeletionInsertion) -> tuple[str, tuple[int, int]]:
    return evidence.protocol.name, evidence.resolution


def _protocol_text(evidence: Sequence[DeletionInsertion | None], references: Sequence[DeletionInsertion]) -> str:
    """Protocol and resolution of the areas, and the areas of the random map."""
    protocols = {_protocol_of(one) for one in evidence if one is not None}
    if not protocols:
        return ""
    if len(protocols) > 1:
        return "areas of different resolutions, which cannot be compared"
    ((name, (rows, columns)),) = protocols
    text = f"deletion and insertion by the {name} protocol, {rows} \N{MULTIPLICATION SIGN} {columns} cells"
    random = [one for one in references if _protocol_of(one) in protocols]
    return f"{text}; a random map: {_areas(random[0])}" if random else text
