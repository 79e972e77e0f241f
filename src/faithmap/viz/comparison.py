"""Several methods side by side on one photograph, each with its scores beneath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.geometry import Geometry
from faithmap.metrics.functional import DeletionInsertion
from faithmap.viz.captions import what
from faithmap.viz.checks import check_explained, one_photo
from faithmap.viz.colours import COLORMAP, flaw
from faithmap.viz.figure import Heading, Picture, axes_at, draw, say
from faithmap.viz.games import GAMES
from faithmap.viz.overlay import overlay, placed

_HEIGHT, _GAP, _SIDE, _BELOW = 2.2, 0.2, 0.25, 0.62

Compared = Mapping[str, tuple[Explanation, DeletionInsertion | None]]
"""For each method's name its explanation, and the curves of it."""


def compare(
    image: Float[Tensor, "1 c h w"],
    methods: Compared,
    *,
    photo: Float[Tensor, "1 c H W"] | None = None,
    geometry: Geometry | None = None,
    labels: Sequence[str] | None = None,
    columns: int = 4,
    title: str | None = None,
    colormap: str = COLORMAP,
) -> Figure:
    """The photograph, and the overlay of every method, each in its own colour range.

    Args:
        image: the one image that was explained, in [0, 1].
        methods: in the order in which they are drawn. Their areas can be compared where they were played at one resolution,
            which stands in the heading; else it says that they were not.
        photo: the original photograph; None shows the image itself.
        geometry: how the image was cut from it.
        labels: one name per class.
        columns: pictures in a row, at the most; rows are about equally long.
        title: instead of the class and its probability.
        colormap: one of matplotlib's, by name.

    Raises:
        ValueError: for no methods, several images, or an image, photo and explanation that do not fit each other.
    """
    if not methods or columns < 1:
        raise ValueError("there is nothing to compare; give at least one method, and at least one column")
    image = one_photo(image)
    for why, proof in methods.values():
        check_explained(image, why, proof)
    original = image if photo is None else one_photo(photo, "photo")
    first, proof = next(iter(methods.values()))
    words = title or what(first, proof, labels), _rules([proof for _, proof in methods.values()])
    cells = 1 + len(methods)
    wide = _HEIGHT * min(max(original.shape[-1] / original.shape[-2], 0.6), 2.0)
    down = -(-cells // columns)
    across = -(-cells // down)
    width = 2 * _SIDE + across * (wide + _GAP) - _GAP
    heading = Heading.of(*words, width - 2 * _SIDE)
    figure = Picture(figsize=(width, heading.height + down * (_HEIGHT + _BELOW)))
    heading.write(figure, _SIDE)
    spots = [(i % across, i // across) for i in range(cells)]
    axes = [
        axes_at(figure, _SIDE + x * (wide + _GAP), heading.height + y * (_HEIGHT + _BELOW), wide, _HEIGHT) for x, y in spots
    ]
    draw(axes[0], original, "Photograph")
    for ax, (name, (why, played)) in zip(axes[1:], methods.items(), strict=True):
        areas = () if played is None else (played.deletion.area, played.insertion.area)
        below = "  ".join(f"{game} {float(area):.3f}" for game, area in zip(GAMES, areas, strict=bool(areas)))
        problem = flaw(why.heatmap)
        if problem is not None:
            say(ax, problem, name, original.shape[-2:])
            continue
        heat = placed(why, original, None if photo is None else geometry).cpu()
        draw(ax, overlay(original, heat, colormap=colormap), name, below)
    return figure


def _rules(proofs: Sequence[DeletionInsertion | None]) -> str:
    """By which rules the areas came about."""
    played = {(proof.protocol.name, proof.resolution) for proof in proofs if proof is not None}
    if not played:
        return ""
    if len(played) > 1:
        return "areas of different resolutions, which cannot be compared"
    ((name, (rows, columns)),) = played
    return f"deletion and insertion by the {name} protocol, {rows} \N{MULTIPLICATION SIGN} {columns} cells"
