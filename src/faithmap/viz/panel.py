"""One explanation on one sheet: photograph, heatmap, both together, and the proof."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.geometry import Geometry
from faithmap.metrics.functional import DeletionInsertion
from faithmap.viz.captions import how, what
from faithmap.viz.checks import check_explained, one_photo
from faithmap.viz.colours import COLORMAP, flaw, limits
from faithmap.viz.curves import curves
from faithmap.viz.figure import Heading, Picture, axes_at, draw, say
from faithmap.viz.overlay import OPACITY, SATURATION, overlay, placed

_HEIGHT, _BOTTOM, _SIDE = 2.7, 0.4, 0.25
_GAP, _BAR_GAP, _CURVES_GAP = 0.3, 0.85, 0.85
_CURVES, _LEGEND = 3.4, 0.8


def show(
    image: Float[Tensor, "1 c h w"],
    why: Explanation,
    proof: DeletionInsertion | None = None,
    *,
    photo: Float[Tensor, "1 c H W"] | None = None,
    geometry: Geometry | None = None,
    reference: DeletionInsertion | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    opacity: float = OPACITY,
    saturation: float = SATURATION,
    colormap: str = COLORMAP,
) -> Figure:
    """Photograph, heatmap with its raw values, overlay, and deletion and insertion curves, side by side.

    A heatmap that ranks nothing is not drawn; the picture says so instead.

    Args:
        image: the one image that was explained, in [0, 1].
        why: its explanation.
        proof: its curves; without them the picture ends at the overlay.
        photo: the original photograph, of which ``image`` is the model's view; None shows the image itself.
        geometry: how the view was cut from the photo: the model's ``geometry``. Has no say without a photo.
        reference: curves of a random map, drawn behind the proof's.
        labels: one name per class.
        title: instead of the class and its probability.
        opacity: see :func:`overlay`.
        saturation: likewise.
        colormap: likewise.

    Raises:
        ValueError: for several images, or an image, photo and explanation that do not fit each other.
    """
    image = one_photo(image)
    check_explained(image, why, proof)
    original = image if photo is None else one_photo(photo, "photo")
    heat = placed(why, original, None if photo is None else geometry).cpu()
    words = title or what(why, proof, labels), how(why, proof)
    figure, (left, middle, right, *plot) = _sheet(original, image, words, with_curves=proof is not None)
    draw(left, original, "Photograph")
    problem = flaw(why.heatmap)
    if problem is None:
        ends = limits(why.heatmap)
        draw_cells(middle, why, ends, colormap)
        blend = overlay(original, heat, opacity=opacity, saturation=saturation, colormap=colormap, ends=ends)
        draw(right, blend, "Heatmap on the photograph", "pale: not shown to the model" if bool(heat.isnan().any()) else "")
    else:
        say(middle, problem, "Heatmap", image.shape[-2:])
        say(right, problem, "Heatmap on the photograph", original.shape[-2:])
    if proof is not None:
        curves(proof, reference, plot[0], score="score" if why.target is None else "class probability")
        plot[0].set_title("Deletion and insertion", size=10)
    return figure


def _edges(centres: Float[Tensor, " r"] | None, cells: int, length: int) -> list[float]:
    """Of cells: half way between their centres, the outermost reaching to the image's border."""
    if centres is None:
        return [length * i / cells for i in range(cells + 1)]
    middles = (centres[1:] + centres[:-1]).cpu() / 2 + 0.5
    return [0.0, *middles.clamp(0, length).tolist(), float(length)]


def draw_cells(ax: Axes, why: Explanation, ends: tuple[float, float], colormap: str) -> None:
    """The heatmap's own cells, unsmoothed, over the area of the image, with a bar that tells their raw values."""
    cells = why.heatmap[0].detach().cpu().double()
    height, width = why.image_size
    low, high = float(cells.min()), float(cells.max())
    norm = Normalize(*ends)
    if why.rows is None and why.columns is None:
        ax.imshow(cells.numpy(), cmap=colormap, norm=norm, interpolation="nearest", extent=(0, width, height, 0))
    else:
        down, across = _edges(why.rows, cells.shape[0], height), _edges(why.columns, cells.shape[1], width)
        ax.pcolormesh(across, down, cells.numpy(), cmap=colormap, norm=norm)
        ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.set(xticks=[], yticks=[])
    ax.set_title("Heatmap", size=10)
    ax.set_xlabel(f"from {low:.3g} to {high:.3g}", size=8)
    beyond = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((low < ends[0], high > ends[1]))
    ax.apply_aspect()
    inch = ax.figure.dpi / ax.bbox.width
    bar = ax.figure.colorbar(
        ScalarMappable(norm, colormap),
        cax=ax.inset_axes((1 + 0.1 * inch, 0, 0.14 * inch, 1)),
        extend=beyond or "neither",
        ticks=MaxNLocator(5),
        format=FuncFormatter(lambda value, _: f"{value:.3g}"),
    )
    bar.ax.tick_params(labelsize=8)


def _sheet(photo: Tensor, image: Tensor, words: tuple[str, str], *, with_curves: bool) -> tuple[Picture, list[Axes]]:
    """A figure with nothing but its heading, and its axes, as wide as what goes into them."""
    wide, view = (_HEIGHT * min(max(x.shape[-1] / x.shape[-2], 0.6), 2.0) for x in (photo, image))
    slots = [(_SIDE, wide), (_GAP, view), (_BAR_GAP, wide)] + [(_CURVES_GAP, _CURVES)] * with_curves
    width = sum(gap + slot for gap, slot in slots) + _SIDE
    heading = Heading.of(*words, width - 2 * _SIDE)
    figure = Picture(figsize=(width, heading.height + _HEIGHT + _BOTTOM))
    heading.write(figure, _SIDE)
    axes, at = [], 0.0
    for i, (gap, slot) in enumerate(slots):
        axes.append(axes_at(figure, at + gap, heading.height, slot, _HEIGHT - _LEGEND * (i == 3)))
        at += gap + slot
    return figure, axes
