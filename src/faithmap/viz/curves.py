"""The plot of both games: how the score falls when important cells go, and rises when they come."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from faithmap.metrics.functional import Curve, DeletionInsertion
from faithmap.viz.figure import Picture
from faithmap.viz.games import COLOURS

_REFERENCE = "0.55"


def curves(
    proof: DeletionInsertion,
    reference: DeletionInsertion | None = None,
    ax: Axes | None = None,
    *,
    score: str = "class probability",
) -> Axes:
    """Plot deletion and insertion with their areas in the legend; of several images, the means.

    Args:
        proof: what is shown.
        reference: of a random map, as thin grey lines behind.
        ax: where to draw; None makes a figure, found at the result's ``figure``.
        score: the vertical axis in words.

    Raises:
        ValueError: where the reference was played by other rules or at another resolution: the areas cannot be compared.
    """
    if reference is not None and (reference.protocol.name, reference.resolution) != (proof.protocol.name, proof.resolution):
        ours, theirs = (f"{p.protocol.name} at {p.resolution[0]} x {p.resolution[1]}" for p in (proof, reference))
        raise ValueError(f"the proof was played as {ours}, the reference as {theirs}; play both alike")
    ax = Picture(figsize=(4.4, 3.4), layout="constrained").add_subplot() if ax is None else ax
    _line(ax, proof.insertion, "insertion", COLOURS["insertion"], linewidth=2)
    _line(ax, proof.deletion, "deletion", COLOURS["deletion"], linewidth=2)
    if reference is not None:
        _line(ax, reference.insertion, "random insertion", _REFERENCE, linewidth=1, zorder=1.5)
        _line(ax, reference.deletion, "random deletion", _REFERENCE, linewidth=1, linestyle="--", zorder=1.5)
    frame(ax, [game for p in (proof, reference) if p is not None for game in (p.insertion, p.deletion)])
    ax.set_xlabel(f"{proof.protocol.unit} deleted or inserted", size=9)
    ax.set_ylabel(score, size=9)
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2, "frameon": False}
    ax.legend(title="area under", fontsize=8, title_fontsize=8, handlelength=1.6, **below)
    return ax


def frame(ax: Axes, games: list[Curve]) -> None:
    """Axes for these curves: all fractions, and all probabilities, or the range of a score that is none."""
    low = min(float(game.scores.min()) for game in games)
    high = max(float(game.scores.max()) for game in games)
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    margin = 0.02 * (high - low) or 1.0
    ax.set(xlim=(-0.02, 1.02), xticks=np.linspace(0, 1, 6), ylim=(low - margin, high + margin))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.grid(visible=True, alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def line_of(game: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fractions and scores, the mean of several images."""
    fractions: NDArray[np.float64] = game.fractions.detach().cpu().double().numpy()
    return fractions, game.scores.detach().cpu().double().mean(dim=0).numpy()


def _line(ax: Axes, game: Curve, name: str, colour: str, **style: Any) -> None:
    """One game's mean curve; the area goes into its label."""
    ax.plot(*line_of(game), color=colour, label=f"{name}  {float(game.area.mean()):.3f}", **style)
