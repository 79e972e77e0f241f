"""Maps of a model that forgets, beside the map of the trained one: a row an image, and how alike they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics.functional import Randomisation
from faithmap.viz.captions import how, named
from faithmap.viz.checks import check_explained, one_photo
from faithmap.viz.colours import COLORMAP, flaw
from faithmap.viz.figure import Heading, Picture, axes_at, draw, say
from faithmap.viz.overlay import overlay, placed

_HEIGHT, _GAP, _SIDE, _BELOW = 1.7, 0.15, 0.25, 0.45
_CURVES, _CURVES_GAP, _AXIS, _LEGEND = 2.9, 0.6, 0.25, 0.35
_LONGEST = 20

_LINES = (("spearman", "Spearman", "#0072b2", "-"), ("ssim", "SSIM", "#009e73", "--"))
"""Blue and green, which stay apart with every common colour blindness, and two kinds of line."""


def sanity(
    images: Float[Tensor, "n c h w"],
    checked: Randomisation,
    *,
    stages: int = 5,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    colormap: str = COLORMAP,
) -> Figure:
    """The map of the trained model, the maps after some of the stages, and the similarity after all of them.

    Every map is in its own colour range. Dots on the curves are the maps that are shown; crosses are maps that rank nothing.

    Args:
        images: that were explained, in [0, 1].
        checked: of the same images, with its heatmaps kept.
        stages: maps of random models in a row, spread evenly over the stages, the first and the last among them.
        labels: one name per class.
        title: instead of the kind of check.
        colormap: one of matplotlib's, by name.

    Raises:
        ValueError: for heatmaps that were not kept, no stages, or images that were not those explained.
    """
    if not checked.heatmaps or len(checked) != len(images) or stages < 1:
        raise ValueError(
            f"{len(images)} images, {stages} stages to show, and {len(checked.heatmaps)} kept for {len(checked)} images; "
            "give at least 1 stage, and the check of just these images, made with keep_heatmaps=True"
        )
    photos = [one_photo(image) for image in images.split(1)]
    for photo, why in zip(photos, checked.original, strict=True):
        check_explained(photo, why)
    shown = torch.linspace(0, len(checked.layers) - 1, min(stages, len(checked.layers)), dtype=torch.float64).round().long()
    wide = _HEIGHT * min(max(images.shape[-1] / images.shape[-2], 0.6), 2.0)
    plot = _SIDE + (1 + len(shown)) * (wide + _GAP) + _CURVES_GAP
    heading = Heading.of(*_words(checked, title), plot + _CURVES - _SIDE)
    figure = Picture(figsize=(plot + _CURVES + _SIDE, heading.height + len(photos) * (_HEIGHT + _BELOW) + _LEGEND))
    heading.write(figure, _SIDE)
    low = min(0.0, float(checked.spearman.min()), float(checked.ssim.min()))
    for row, photo in enumerate(photos):
        top, here = heading.height + row * (_HEIGHT + _BELOW), checked[row]
        axes = [axes_at(figure, _SIDE + i * (wide + _GAP), top, wide, _HEIGHT) for i in range(1 + len(shown))]
        above = ["trained", *(_short(checked.layers[i]) for i in shown.tolist())] if row == 0 else [""] * len(axes)
        below = [named(here.original.target, labels) or "", *(f"Spearman {here.spearman[0, i]:.2f}" for i in shown.tolist())]
        maps = [here.original, *(here.heatmaps[i] for i in shown.tolist())]
        for ax, why, over, under in zip(axes, maps, above, below, strict=True):
            _draw(ax, photo, why, (over, _short(under)), colormap)
        last = row == len(photos) - 1
        _curves(axes_at(figure, plot, top, _CURVES, _HEIGHT - _AXIS * last), here, shown.tolist(), low, last=last)
    return figure


def _draw(ax: Axes, photo: Float[Tensor, "1 3 h w"], why: Explanation, words: tuple[str, str], colormap: str) -> None:
    problem = flaw(why.heatmap)
    if problem is None:
        draw(ax, overlay(photo, placed(why, photo).cpu(), colormap=colormap), *words)
    else:
        say(ax, problem.replace(": ", ":\n").replace("value ", "value\n"), words[0], photo.shape[-2:])
    ax.title.set_fontsize(8.5)


def _curves(ax: Axes, checked: Randomisation, shown: Sequence[int], low: float, *, last: bool) -> None:
    """Both similarities of one image over the stages; the trained model's own, 1, stands at 0 of a cascade."""
    start = [1.0] if checked.mode == "cascading" else []
    flat = checked.flat[0].cpu().numpy()
    at = np.arange(1, len(flat) + 1)
    for name, label, colour, line in _LINES:
        values = getattr(checked, name)[0].detach().cpu().double().numpy()
        ax.plot([0.0] * len(start) + at.tolist(), start + values.tolist(), line, color=colour, linewidth=1.6, label=label)
        marked = [i for i in shown if not flat[i]]
        ax.plot(at[marked], values[marked], "o", color=colour, markersize=4)
    if flat.any():
        ax.plot(at[flat], checked.spearman[0].cpu().numpy()[flat], "x", color="0.1", markersize=5, label="ranks nothing")
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


def _words(checked: Randomisation, title: str | None) -> tuple[str, str]:
    ways = {
        "cascading": "Layers are made random from the output down",
        "independent": "One layer at a time is made random",
    }
    drawn = {"initialiser": "each layer's own initialiser", "permutation": "permuting the trained ones"}
    compared = "; absolute values compared" if checked.absolute else ""
    return title or ways[checked.mode], f"{how(checked.original)}; new values by {drawn[checked.draw]}{compared}"


def _short(name: str) -> str:
    """The end of a long name, which tells layers apart.

    >>> _short("encoder.layers.encoder_layer_11.mlp.0")
    '…coder_layer_11.mlp.0'
    """
    return name if len(name) <= _LONGEST else "…" + name[-_LONGEST:]
