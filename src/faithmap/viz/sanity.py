"""Sanity check: the map of the trained model, the maps after its weights are randomised, and their similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.viz.figure import (
    COLORMAP,
    Heading,
    InlineFigure,
    axes_at,
    check_explained,
    class_name,
    draw_map,
    one_image,
    subtitle_of,
)
from faithmap.warning_types import renamed_parameters

if TYPE_CHECKING:
    from faithmap.metrics.functional import Randomisation

_HEIGHT, _GAP, _SIDE, _BELOW = 1.7, 0.15, 0.25, 0.45
_CURVES, _CURVES_GAP, _AXIS, _LEGEND = 2.9, 0.6, 0.25, 0.35
_LONGEST = 20

_LINES = (("spearman", "Spearman", "#0072b2", "-"), ("ssim", "SSIM", "#009e73", "--"))
"""Blue and green, distinguishable with every common colour blindness, and two line styles."""


@renamed_parameters(checked="result")
def sanity(
    images: Float[Tensor, "n c h w"],
    result: Randomisation,
    *,
    stages: int = 5,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    colormap: str = COLORMAP,
) -> Figure:
    """Draw the map of the trained model, the maps after some of the stages, and the similarity after all of them.

    There is one row per image. Every map has its own colour scale. Dots on the curves are the maps that are drawn; crosses are
    constant maps.

    >>> from faithmap import Gradient
    >>> from faithmap.metrics.functional import randomisation
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 5))
    >>> images = torch.rand(1, 3, 16, 16)
    >>> figure = sanity(images, randomisation(Gradient(model), images, keep_heatmaps=True))
    >>> [ax.get_title() for ax in figure.axes]
    ['trained', '1', '']

    Args:
        images: the images that were explained, in [0, 1].
        result: of the same images, with its heatmaps kept.
        stages: maximum number of random maps per row, at least 1, evenly spread over the stages, the first and the last
            included.
        labels: one name per class.
        title: title of the figure; None for the kind of the check.
        colormap: name of a colormap of matplotlib.

    Raises:
        ValueError: for heatmaps that were not kept, no stages, or other images than those explained.
    """
    if not result.heatmaps or len(result) != len(images) or stages < 1:
        raise ValueError(
            f"{len(images)} images, {stages} stages to draw, and {len(result.heatmaps)} kept for {len(result)} images; "
            "give at least 1 stage, and the result of these images, made with keep_heatmaps=True"
        )
    pictures = [one_image(image) for image in images.split(1)]
    for picture, explanation in zip(pictures, result.original, strict=True):
        check_explained(picture, explanation)
    drawn = torch.linspace(0, len(result.layers) - 1, min(stages, len(result.layers)), dtype=torch.float64).round().long()
    wide = _HEIGHT * min(max(images.shape[-1] / images.shape[-2], 0.6), 2.0)
    plot = _SIDE + (1 + len(drawn)) * (wide + _GAP) + _CURVES_GAP
    heading = Heading.of(*_texts(result, title), plot + _CURVES - _SIDE)
    figure = InlineFigure(figsize=(plot + _CURVES + _SIDE, heading.height + len(pictures) * (_HEIGHT + _BELOW) + _LEGEND))
    heading.write(figure, _SIDE)
    low = min(0.0, float(result.spearman.min()), float(result.ssim.min()))
    for row, picture in enumerate(pictures):
        top, one = heading.height + row * (_HEIGHT + _BELOW), result[row]
        axes = [axes_at(figure, _SIDE + i * (wide + _GAP), top, wide, _HEIGHT) for i in range(1 + len(drawn))]
        above = ["trained", *(_short(result.layers[i]) for i in drawn.tolist())] if row == 0 else [""] * len(axes)
        below = [class_name(one.original.target, labels) or "", *(f"Spearman {one.spearman[0, i]:.2f}" for i in drawn.tolist())]
        maps = [one.original, *(one.heatmaps[i] for i in drawn.tolist())]
        for ax, explanation, over, under in zip(axes, maps, above, below, strict=True):
            _draw(ax, picture, explanation, (over, _short(under)), colormap)
        last = row == len(pictures) - 1
        _curves(axes_at(figure, plot, top, _CURVES, _HEIGHT - _AXIS * last), one, drawn.tolist(), low, last=last)
    return figure


def _draw(ax: Axes, image: Float[Tensor, "1 3 h w"], explanation: Explanation, texts: tuple[str, str], colormap: str) -> None:
    draw_map(ax, image, explanation, texts, colormap, narrow=True)
    ax.title.set_fontsize(8.5)


def _curves(ax: Axes, result: Randomisation, drawn: Sequence[int], low: float, *, last: bool) -> None:
    """Plot both similarities of one image over the stages; a cascade starts at 1, the similarity of the trained model."""
    start = [1.0] if result.mode == "cascading" else []
    flat = result.flat[0].cpu().numpy()
    at = np.arange(1, len(flat) + 1)
    for name, label, colour, line in _LINES:
        values = getattr(result, name)[0].detach().cpu().double().numpy()
        ax.plot([0.0] * len(start) + at.tolist(), start + values.tolist(), line, color=colour, linewidth=1.6, label=label)
        marked = [i for i in drawn if not flat[i]]
        ax.plot(at[marked], values[marked], "o", color=colour, markersize=4)
    if flat.any():
        ax.plot(at[flat], result.spearman[0].cpu().numpy()[flat], "x", color="0.1", markersize=5, label="ranks nothing")
    ax.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    ax.set(xlim=(1 - len(start) - 0.02 * len(flat), 1.02 * len(flat)), ylim=(low - 0.05, 1.05))
    ax.yaxis.set_major_locator(MultipleLocator(0.5))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.grid(visible=True, alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    if last:
        ax.set_xlabel(f"{'stages' if start else 'stage that is'} random, from the output down", size=8)
        ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.45, -0.26), ncols=3, columnspacing=1.0)


def _texts(result: Randomisation, title: str | None) -> tuple[str, str]:
    ways = {
        "cascading": "Layers are made random from the output down",
        "independent": "One layer at a time is made random",
    }
    draws = {"initialiser": "each layer's own initialiser", "permutation": "permuting the trained ones"}
    compared = "; absolute values compared" if result.absolute else ""
    return title or ways[result.mode], f"{subtitle_of(result.original)}; new values by {draws[result.draw]}{compared}"


def _short(name: str) -> str:
    """The end of a long name, which distinguishes layers.

    >>> _short("encoder.layers.encoder_layer_11.mlp.0")
    '…coder_layer_11.mlp.0'
    """
    return name if len(name) <= _LONGEST else "…" + name[-_LONGEST:]
