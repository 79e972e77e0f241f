"""Methods from the best to the worst: mean scores with their intervals, every photograph's own behind them."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from faithmap.choosing import SCORES, Choice, Ranked
from faithmap.viz.figure import Heading, Picture, axes_at

_ROW, _SIDE, _NAMES, _PLOT, _COST, _AXIS = 0.26, 0.25, 2.0, 4.6, 2.3, 0.65
_METHOD, _ALIKE, _CONTROL = "#0072b2", "#56b4e9", "0.55"
"""The best, those that cannot be told from it, the controls; the others are black."""


def ranking(choice: Choice, *, title: str = "Methods") -> Figure:
    """The ranking with 95 % intervals, and what an image costs.

    Args:
        choice: what came out.
        title: above.
    """
    rows, width = len(choice.ranking), 2 * _SIDE + _NAMES + _PLOT + _COST
    heading = Heading.of(title, _words(choice), width - 2 * _SIDE)
    height = (rows + 0.6) * _ROW
    figure = Picture(figsize=(width, heading.height + height + _AXIS))
    heading.write(figure, _SIDE)
    ax = axes_at(figure, _SIDE + _NAMES, heading.height, _PLOT, height)
    for row, method in enumerate(choice.ranking):
        _draw(ax, row, method, choice)
    ax.set(ylim=(rows - 0.3, -0.9), yticks=range(rows), yticklabels=[_named(method) for method in choice.ranking])
    for label, method in zip(ax.get_yticklabels(), choice.ranking, strict=True):
        label.set_color(_CONTROL if method.control else "black")
        label.set_fontweight("bold" if method is choice.best else "normal")
    ax.set_xlabel(choice.score.replace("_", " "), size=9)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.tick_params(labelsize=8.5, left=False)
    ax.grid(visible=True, axis="x", alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _draw(ax: Axes, row: int, method: Ranked, choice: Choice) -> None:
    """The photographs as small marks, the mean with its interval, and the cost at the right."""
    colour = _colour(method, choice)
    ax.plot(method.scores.tolist(), [row] * len(method.scores), "|", color=colour, alpha=0.35, markersize=7, zorder=2)
    if method.interval is not None:
        ends = [method.interval.low, method.interval.high]
        ax.plot(ends, [row, row], color=colour, linewidth=2.2, zorder=3, solid_capstyle="butt")
    ax.plot([method.mean], [row], "o", color=colour, markersize=5.5, zorder=4)
    passes = f"{method.passes.forward} + {method.passes.backward} passes, {method.seconds:.2g} s"
    ax.text(1.02, row, passes, transform=ax.get_yaxis_transform(), va="center", size=8, color="0.25")


def _colour(method: Ranked, choice: Choice) -> str:
    if method.control:
        return _CONTROL
    if method is choice.best:
        return _METHOD
    return _ALIKE if method in choice.alike else "black"


def _named(method: Ranked) -> str:
    return f"{method.name} (control)" if method.control else method.name


def _words(choice: Choice) -> str:
    """What is shown, and in which colours."""
    order = "higher is better" if SCORES[choice.score] else "lower is better"
    alike = "; light blue: cannot be told from the best" if choice.alike else ""
    out = f"; {len(choice.left_out)} left out" if choice.left_out else ""
    shown = f"{len(choice)} photograph{'s' * (len(choice) > 1)}, mean and 95 % interval"
    return f"{shown}, {order}{alike}{out}. At the right: passes forward + backward"
