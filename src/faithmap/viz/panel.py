"""Panel: the original image, the heatmap, its overlay, and the deletion and insertion curves of one explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.model import Geometry
from faithmap.viz.figure import (
    COLORMAP,
    OPACITY,
    SATURATION,
    Heading,
    InlineFigure,
    axes_at,
    check_explained,
    curves,
    draw,
    draw_message,
    flaw,
    limits,
    one_image,
    overlay,
    placed,
    subtitle_of,
    title_of,
)
from faithmap.warning_types import renamed_parameters

if TYPE_CHECKING:
    from faithmap.metrics.functional import DeletionInsertion

_HEIGHT, _BOTTOM, _SIDE = 2.7, 0.4, 0.25
_GAP, _BAR_GAP, _CURVES_GAP = 0.3, 0.85, 0.85
_CURVES, _LEGEND = 3.4, 0.8


@renamed_parameters(why="explanation", proof="evidence")
def show(
    image: Float[Tensor, "1 c h w"],
    explanation: Explanation,
    evidence: DeletionInsertion | None = None,
    *,
    photo: Float[Tensor, "1 c H W"] | None = None,
    geometry: Geometry | None = None,
    reference: DeletionInsertion | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    verdict: str | None = None,
    opacity: float = OPACITY,
    saturation: float = SATURATION,
    colormap: str = COLORMAP,
) -> Figure:
    """Draw the image, the heatmap with its raw values, the overlay, and the deletion and insertion curves side by side.

    A heatmap whose cells have no order is not drawn; a message replaces it.

    >>> import torch
    >>> figure = show(torch.rand(1, 3, 16, 16), Explanation(torch.rand(1, 4, 4), (16, 16)))
    >>> [ax.get_title() for ax in figure.axes[:3]]
    ['Photograph', 'Heatmap', 'Heatmap on the photograph']

    Args:
        image: the one image that was explained, in [0, 1].
        explanation: its explanation.
        evidence: its curves; None draws no curves.
        photo: the original image, of which ``image`` is the model's input; None draws ``image``.
        geometry: resize and crop from the photo to the image, the model's ``geometry``; ignored without a photo.
        reference: curves of a random map, drawn in grey.
        labels: one name per class.
        title: title of the figure; None for the class and its probability.
        verdict: the sentence of a jury (:func:`faithmap.evidence`), below the title.
        opacity: opacity of the overlay, from 0 to 1.
        saturation: of the image under the overlay, from 0 to 1.
        colormap: name of a colormap of matplotlib.

    Raises:
        ValueError: for several images, or an image, photo and explanation that do not fit each other.
    """
    image = one_image(image)
    check_explained(image, explanation, evidence)
    original = image if photo is None else one_image(photo, "photo")
    heat = placed(explanation, original, None if photo is None else geometry).cpu()
    texts = title or title_of(explanation, evidence, labels), subtitle_of(explanation, evidence, verdict)
    figure, (left, middle, right, *plot) = _sheet(original, image, texts, with_curves=evidence is not None)
    draw(left, original, "Photograph")
    problem = flaw(explanation.heatmap)
    if problem is None:
        ends = limits(explanation.heatmap)
        draw_cells(middle, explanation, ends, colormap)
        blend = overlay(original, heat, opacity=opacity, saturation=saturation, colormap=colormap, ends=ends)
        draw(right, blend, "Heatmap on the photograph", "pale: not shown to the model" if bool(heat.isnan().any()) else "")
    else:
        draw_message(middle, problem, "Heatmap", image.shape[-2:])
        draw_message(right, problem, "Heatmap on the photograph", original.shape[-2:])
    if evidence is not None:
        curves(evidence, reference, plot[0], score="score" if explanation.target is None else "class probability")
        plot[0].set_title("Deletion and insertion", size=10)
    return figure


def _edges(centres: Float[Tensor, " r"] | None, cells: int, length: int) -> list[float]:
    """Edges of the cells: midway between their centres; the outermost are the image's borders."""
    if centres is None:
        return [length * i / cells for i in range(cells + 1)]
    middles = (centres[1:] + centres[:-1]).cpu() / 2 + 0.5
    return [0.0, *middles.clamp(0, length).tolist(), float(length)]


def paint_cells(ax: Axes, explanation: Explanation, ends: tuple[float, float], colormap: str) -> None:
    """Draw the heatmap's own cells, not interpolated, over the area of the image."""
    cells = explanation.heatmap[0].detach().cpu().double()
    height, width = explanation.image_size
    norm = Normalize(*ends)
    if explanation.rows is None and explanation.columns is None:
        ax.imshow(cells.numpy(), cmap=colormap, norm=norm, interpolation="nearest", extent=(0, width, height, 0))
    else:
        down, across = _edges(explanation.rows, cells.shape[0], height), _edges(explanation.columns, cells.shape[1], width)
        ax.pcolormesh(across, down, cells.numpy(), cmap=colormap, norm=norm)
        ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.set(xticks=[], yticks=[])


def draw_cells(ax: Axes, explanation: Explanation, ends: tuple[float, float], colormap: str) -> None:
    """Draw the heatmap's own cells, with a colour bar of their raw values."""
    paint_cells(ax, explanation, ends, colormap)
    values = explanation.heatmap.detach()
    low, high = float(values.min()), float(values.max())
    ax.set_title("Heatmap", size=10)
    ax.set_xlabel(f"from {low:.3g} to {high:.3g}", size=8)
    beyond = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((low < ends[0], high > ends[1]))
    ax.apply_aspect()
    inch = ax.figure.dpi / ax.bbox.width
    bar = ax.figure.colorbar(
        ScalarMappable(Normalize(*ends), colormap),
        cax=ax.inset_axes((1 + 0.1 * inch, 0, 0.14 * inch, 1)),
        extend=beyond or "neither",
        ticks=MaxNLocator(5),
        format=FuncFormatter(lambda value, _: f"{value:.3g}"),
    )
    bar.ax.tick_params(labelsize=8)


def _sheet(photo: Tensor, image: Tensor, texts: tuple[str, str], *, with_curves: bool) -> tuple[InlineFigure, list[Axes]]:
    """A figure with its heading, and its axes, as wide as their contents."""
    wide, view = (_HEIGHT * min(max(x.shape[-1] / x.shape[-2], 0.6), 2.0) for x in (photo, image))
    slots = [(_SIDE, wide), (_GAP, view), (_BAR_GAP, wide)] + [(_CURVES_GAP, _CURVES)] * with_curves
    width = sum(gap + slot for gap, slot in slots) + _SIDE
    heading = Heading.of(*texts, width - 2 * _SIDE)
    figure = InlineFigure(figsize=(width, heading.height + _HEIGHT + _BOTTOM))
    heading.write(figure, _SIDE)
    axes, at = [], 0.0
    for i, (gap, slot) in enumerate(slots):
        axes.append(axes_at(figure, at + gap, heading.height, slot, _HEIGHT - _LEGEND * (i == 3)))
        at += gap + slot
    return figure, axes
