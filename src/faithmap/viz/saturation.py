"""The walk from a baseline to the image: score, similarity of the activations, and gradient norm, over the position."""

from __future__ import annotations

from matplotlib.axes import Axes

from faithmap.methods.cams.saturation import Saturation
from faithmap.viz.figure import Picture

_LINES = (("score", "#0072b2", "-"), ("similarity", "#009e73", "--"), ("gradient_norm", "#d55e00", ":"))
"""Blue, green and vermilion, which stay apart with every common colour blindness, and three kinds of line."""


def saturation_curves(walk: Saturation, ax: Axes | None = None, *, tolerance: float = 0.05) -> Axes:
    """Plot one image's walk; the saturated part of the path is grey.

    Score and gradient norm are divided by the largest of their absolute values, which the legend tells.

    Args:
        walk: of one image.
        ax: where to draw; None makes a figure, found at the result's ``figure``.
        tolerance: see :meth:`Saturation.share`.

    Raises:
        ValueError: for several images.
    """
    if len(walk.score) != 1:
        raise ValueError(f"the walk holds {len(walk.score)} images; give that of one")
    ax = Picture(figsize=(5.2, 3.6), layout="constrained").add_subplot() if ax is None else ax
    at = walk.positions.cpu().double().numpy()
    share = float(walk.share(tolerance)[0])
    ax.axvspan(1 - share, 1, color="0.9", zorder=0, label=f"saturated, {100 * share:.0f} % of the path")
    for name, colour, line in _LINES:
        values = getattr(walk, name)[0].detach().cpu().double()
        largest = 1.0 if name == "similarity" else float(values.abs().max()) or 1.0
        label = name.replace("_", " ") + ("" if name == "similarity" else f", up to {largest:.3g}")
        ax.plot(at, (values / largest).numpy(), color=colour, linestyle=line, linewidth=2, label=label)
    ax.set(xlim=(0, 1), ylim=(min(0.0, ax.get_ylim()[0]), 1.05))
    ax.set_xlabel("position on the path, from the baseline to the image", size=9)
    ax.set_title(f"Saturation at {walk.target_layer}", size=10)
    ax.grid(visible=True, alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return ax
