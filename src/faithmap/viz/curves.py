"""Curves: deletion and insertion, and the saturation of the score along the path from a baseline to the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from faithmap.viz.figure import InlineFigure
from faithmap.warning_types import renamed_parameters

if TYPE_CHECKING:
    from faithmap.methods.cams.saturation import Saturation
    from faithmap.metrics.functional import Curve, DeletionInsertion

CurveKind: TypeAlias = Literal["deletion", "insertion"]

KINDS: tuple[CurveKind, CurveKind] = ("deletion", "insertion")

COLOURS: dict[CurveKind, str] = {"deletion": "#d55e00", "insertion": "#0072b2"}
"""Vermilion and blue, distinguishable with every common colour blindness (Okabe and Ito 2008)."""

_REFERENCE = "0.55"

_SATURATION_LINES = (("score", "#0072b2", "-"), ("similarity", "#009e73", "--"), ("gradient_norm", "#d55e00", ":"))
"""Blue, green and vermilion, distinguishable with every common colour blindness, and three line styles."""


@renamed_parameters(proof="evidence")
def curves(
    evidence: DeletionInsertion,
    reference: DeletionInsertion | None = None,
    ax: Axes | None = None,
    *,
    score: str = "class probability",
) -> Axes:
    """Plot deletion and insertion with their areas in the legend; of several images, the means.

    >>> import torch
    >>> from faithmap.metrics.functional import PROTOCOLS, Curve, DeletionInsertion
    >>> falling, rising = (Curve(torch.tensor([0.0, 1.0]), torch.tensor([s])) for s in ([1.0, 0.0], [0.0, 1.0]))
    >>> ax = curves(DeletionInsertion(falling, rising, PROTOCOLS["igos"], (7, 7)))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['insertion  0.500', 'deletion  0.500']

    Args:
        evidence: the deletion and insertion curves of the image.
        reference: curves of a random map, drawn as thin grey lines.
        ax: axes to draw on; None creates a figure, the ``figure`` of the result.
        score: label of the vertical axis.

    Raises:
        ValueError: if the reference has another protocol or resolution, so that the areas do not compare.
    """
    if reference is not None and (reference.protocol.name, reference.resolution) != (
        evidence.protocol.name,
        evidence.resolution,
    ):
        ours, theirs = (f"{p.protocol.name} at {p.resolution[0]} x {p.resolution[1]}" for p in (evidence, reference))
        raise ValueError(f"the evidence was evaluated as {ours}, the reference as {theirs}; use one protocol and resolution")
    ax = InlineFigure(figsize=(4.4, 3.4), layout="constrained").add_subplot() if ax is None else ax
    _line(ax, evidence.insertion, "insertion", COLOURS["insertion"], linewidth=2)
    _line(ax, evidence.deletion, "deletion", COLOURS["deletion"], linewidth=2)
    if reference is not None:
        _line(ax, reference.insertion, "random insertion", _REFERENCE, linewidth=1, zorder=1.5)
        _line(ax, reference.deletion, "random deletion", _REFERENCE, linewidth=1, linestyle="--", zorder=1.5)
    frame(ax, [curve for p in (evidence, reference) if p is not None for curve in (p.insertion, p.deletion)])
    ax.set_xlabel(f"{evidence.protocol.unit} deleted or inserted", size=9)
    ax.set_ylabel(score, size=9)
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2, "frameon": False}
    ax.legend(title="area under", fontsize=8, title_fontsize=8, handlelength=1.6, **below)
    return ax


def frame(ax: Axes, curves: list[Curve]) -> None:
    """Format axes for these curves: fractions from 0 to 1, and probabilities from 0 to 1 or the range of the scores."""
    low = min(float(curve.scores.min()) for curve in curves)
    high = max(float(curve.scores.max()) for curve in curves)
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    margin = 0.02 * (high - low) or 1.0
    ax.set(xlim=(-0.02, 1.02), xticks=np.linspace(0, 1, 6), ylim=(low - margin, high + margin))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.grid(visible=True, alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def line_of(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fractions, and the mean scores over the images."""
    fractions: NDArray[np.float64] = curve.fractions.detach().cpu().double().numpy()
    return fractions, curve.scores.detach().cpu().double().mean(dim=0).numpy()


def _line(ax: Axes, curve: Curve, name: str, colour: str, **style: Any) -> None:
    """Plot a mean curve with its area in the label."""
    ax.plot(*line_of(curve), color=colour, label=f"{name}  {float(curve.area.mean()):.3f}", **style)


@renamed_parameters(walk="saturation")
def saturation_curves(saturation: Saturation, ax: Axes | None = None, *, tolerance: float = 0.05) -> Axes:
    """Plot score, similarity and gradient norm of one image along the path; the saturated part of the path is grey.

    Score and gradient norm are divided by their largest absolute value, which is in the legend.

    >>> import torch
    >>> from faithmap.methods.cams.saturation import Saturation
    >>> path = torch.tensor([[0.0, 0.5, 0.97, 1.0, 1.0]])
    >>> saturation_curves(Saturation(torch.linspace(0, 1, 5), path, path, path, "layer4")).get_title()
    'Saturation at layer4'

    Args:
        saturation: the saturation of one image.
        ax: axes to draw on; None creates a figure, the ``figure`` of the result.
        tolerance: of the score, as a share of its change along the path, within which it counts as saturated.

    Raises:
        ValueError: for several images.
    """
    if len(saturation.score) != 1:
        raise ValueError(f"the saturation has {len(saturation.score)} images; give that of one")
    ax = InlineFigure(figsize=(5.2, 3.6), layout="constrained").add_subplot() if ax is None else ax
    at = saturation.positions.cpu().double().numpy()
    share = float(saturation.share(tolerance)[0])
    ax.axvspan(1 - share, 1, color="0.9", zorder=0, label=f"saturated, {100 * share:.0f} % of the path")
    for name, colour, line in _SATURATION_LINES:
        values = getattr(saturation, name)[0].detach().cpu().double()
        largest = 1.0 if name == "similarity" else float(values.abs().max()) or 1.0
        label = name.replace("_", " ") + ("" if name == "similarity" else f", up to {largest:.3g}")
        ax.plot(at, (values / largest).numpy(), color=colour, linestyle=line, linewidth=2, label=label)
    ax.set(xlim=(0, 1), ylim=(min(0.0, ax.get_ylim()[0]), 1.05))
    ax.set_xlabel("position on the path, from the baseline to the image", size=9)
    ax.set_title(f"Saturation at {saturation.target_layer}", size=10)
    ax.grid(visible=True, alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return ax
