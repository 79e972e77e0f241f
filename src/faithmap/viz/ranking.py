"""Methods from the best to the worst: mean scores with their intervals, every photograph's own behind them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

from faithmap.selection import SCORES, Choice, Ranked
from faithmap.text import spoken
from faithmap.viz.figure import Heading, Picture, axes_at

_ROW, _SIDE, _PLOT, _AXIS, _GAP = 0.26, 0.25, 4.6, 0.65, 0.15
_COLUMNS = (("forward", 0.75), ("backward", 1.55), ("an image", 2.35))
"""At the right of the plot, and where they end, in inches from it."""

_COST = _COLUMNS[-1][1]
_LONGEST = 48
"""Letters of a name; more end in an ellipsis."""

_METHOD, _ALIKE, _CONTROL = "#0072b2", "#56b4e9", "0.55"
"""The best, those that cannot be told from it, the controls; the others are black."""

_NAME, _BEST, _SMALL = FontProperties(size=8.5), FontProperties(size=8.5, weight="bold"), FontProperties(size=8)


def ranking(choice: Choice, *, title: str = "Methods") -> Figure:
    """The ranking with 95 % intervals, and what an image costs.

    Args:
        choice: what came out.
        title: above.
    """
    named = [_named(method) for method in choice.ranking]
    rows, names = len(named), max(map(_width, named)) + _GAP
    width = 2 * _SIDE + names + _PLOT + _COST
    heading = Heading.of(title, _words(choice), width - 2 * _SIDE)
    height = (rows + 0.6) * _ROW
    figure = Picture(figsize=(width, heading.height + height + _AXIS))
    heading.write(figure, _SIDE)
    ax = axes_at(figure, _SIDE + names, heading.height, _PLOT, height)
    for row, method in enumerate(choice.ranking):
        _draw(ax, row, method, choice)
    ax.set(ylim=(rows - 0.3, -0.9), yticks=range(rows))
    ax.set_yticklabels(named, parse_math=False)
    for label, method in zip(ax.get_yticklabels(), choice.ranking, strict=True):
        label.set_color(_CONTROL if method.control else "black")
        label.set_fontproperties(_BEST if method is choice.best else _NAME)
    _beside(ax, -1.2, [name for name, _ in _COLUMNS])
    ax.set_xlabel(choice.score.replace("_", " "), size=9)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.tick_params(axis="x", labelsize=8.5)
    ax.tick_params(axis="y", left=False)
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
    _beside(ax, row, [str(method.passes.forward), str(method.passes.backward), spoken(method.seconds)])


def _beside(ax: Axes, row: float, cells: Sequence[str]) -> None:
    """One row of the columns at the right."""
    for cell, (_, end) in zip(cells, _COLUMNS, strict=True):
        place = ax.get_yaxis_transform()
        ax.text(1 + end / _PLOT, row, cell, transform=place, va="center", ha="right", font=_SMALL, color="0.25")


def _colour(method: Ranked, choice: Choice) -> str:
    if method.control:
        return _CONTROL
    if method is choice.best:
        return _METHOD
    return _ALIKE if method in choice.alike else "black"


def _named(method: Ranked) -> str:
    name = method.name if len(method.name) <= _LONGEST else method.name[: _LONGEST - 1] + "…"
    return f"{name} (control)" if method.control else name


def _width(name: str) -> float:
    """Of the best method's letters, which are the widest, in inches."""
    points, _, _ = text_to_path.get_text_width_height_descent(name, _BEST, ismath=False)
    return float(points) / 72


def _words(choice: Choice) -> str:
    """What is shown, and in which colours."""
    order = "higher is better" if SCORES[choice.score] else "lower is better"
    shown = f"{len(choice)} photographs, each a tick; means with 95 % intervals" if len(choice) > 1 else "1 photograph"
    few = "too few to show any difference" if not choice.enough else ""
    alike = "light blue: cannot be told from the best" if choice.enough and choice.alike else ""
    out = f"{len(choice.left_out)} left out" if choice.left_out else ""
    return "; ".join(filter(None, [f"{shown}; {order}", few, alike, out]))
