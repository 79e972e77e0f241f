"""Comparison: the overlays of several methods on one image, with their deletion and insertion areas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.model import Geometry
from faithmap.viz.figure import (
    COLORMAP,
    KINDS,
    Heading,
    InlineFigure,
    axes_at,
    check_explained,
    draw,
    draw_map,
    one_image,
    title_of,
)

if TYPE_CHECKING:
    from faithmap.metrics.functional import DeletionInsertion

_HEIGHT, _GAP, _SIDE, _BELOW = 2.2, 0.2, 0.25, 0.62

ComparedMethods: TypeAlias = "Mapping[str, tuple[Explanation, DeletionInsertion | None]]"
"""Name of each method to its explanation and the curves of it."""


def compare(
    image: Float[Tensor, "1 c h w"],
    methods: ComparedMethods,
    *,
    photo: Float[Tensor, "1 c H W"] | None = None,
    geometry: Geometry | None = None,
    labels: Sequence[str] | None = None,
    columns: int = 4,
    title: str | None = None,
    colormap: str = COLORMAP,
) -> Figure:
    """Draw the image, and the overlay of every method, each on its own colour scale.

    >>> import torch
    >>> maps = {name: (Explanation(torch.rand(1, 4, 4), (16, 16)), None) for name in ("gradcam", "rise")}
    >>> [ax.get_title() for ax in compare(torch.rand(1, 3, 16, 16), maps).axes]
    ['Photograph', 'gradcam', 'rise']

    Args:
        image: the one image that was explained, in [0, 1].
        methods: explanation and curves of each method, in the order of the drawing. Areas compare only if all have one protocol
            and resolution; the heading states these, or that they differ.
        photo: the original image; None draws ``image``.
        geometry: resize and crop from the photo to the image.
        labels: one name per class.
        columns: maximum number of pictures per row, at least 1; rows are about equally long.
        title: instead of the class and its probability.
        colormap: name of a colormap of matplotlib.

    Raises:
        ValueError: for no methods, several images, or an image, photo and explanation that do not fit each other.
    """
    if not methods or columns < 1:
        raise ValueError("there is nothing to compare; give at least one method, and at least one column")
    image = one_image(image)
    for explanation, evidence in methods.values():
        check_explained(image, explanation, evidence)
    original = image if photo is None else one_image(photo, "photo")
    first, evidence = next(iter(methods.values()))
    texts = title or title_of(first, evidence, labels), _protocol_text([evidence for _, evidence in methods.values()])
    cells = 1 + len(methods)
    wide = _HEIGHT * min(max(original.shape[-1] / original.shape[-2], 0.6), 2.0)
    down = -(-cells // columns)
    across = -(-cells // down)
    width = 2 * _SIDE + across * (wide + _GAP) - _GAP
    heading = Heading.of(*texts, width - 2 * _SIDE)
    figure = InlineFigure(figsize=(width, heading.height + down * (_HEIGHT + _BELOW)))
    heading.write(figure, _SIDE)
    positions = [(i % across, i // across) for i in range(cells)]
    axes = [
        axes_at(figure, _SIDE + x * (wide + _GAP), heading.height + y * (_HEIGHT + _BELOW), wide, _HEIGHT) for x, y in positions
    ]
    draw(axes[0], original, "Photograph")
    for ax, (name, (explanation, evidence)) in zip(axes[1:], methods.items(), strict=True):
        areas = () if evidence is None else (evidence.deletion.area, evidence.insertion.area)
        below = "  ".join(f"{kind} {float(area):.3f}" for kind, area in zip(KINDS, areas, strict=bool(areas)))
        draw_map(ax, original, explanation, (name, below), colormap, None if photo is None else geometry)
    return figure


def _protocol_text(evidence: Sequence[DeletionInsertion | None]) -> str:
    """Protocol and resolution of the areas."""
    protocols = {(one.protocol.name, one.resolution) for one in evidence if one is not None}
    if not protocols:
        return ""
    if len(protocols) > 1:
        return "areas of different resolutions, which cannot be compared"
    ((name, (rows, columns)),) = protocols
    return f"deletion and insertion by the {name} protocol, {rows} \N{MULTIPLICATION SIGN} {columns} cells"
