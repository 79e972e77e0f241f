"""Ranking of methods: mean scores with their intervals, the scores of all images, and the cost per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from faithmap.errors import duration
from faithmap.viz.figure import Heading, InlineFigure, axes_at

_ROW, _SIDE, _PLOT, _AXIS, _GAP = 0.26, 0.25, 4.6, 0.65, 0.15
_COLUMNS = (("forward", 0.75), ("backward", 1.55), ("per image", 2.35))
"""Columns to the right of the plot, and their right ends, in inches from it."""

_COST = _COLUMNS[-1][1]
_LONGEST = 48
"""Maximum number of characters of a name; a longer one ends in an ellipsis."""

_METHOD, _ALIKE, _CONTROL = "#0072b2", "#56b4e9", "0.55"
"""The best method, those indistinguishable from it, the controls; the others are black."""

_NAME, _BEST, _SMALL = FontProperties(size=8.5), FontProperties(size=8.5, weight="bold"), FontProperties(size=8)


class MeanInterval(Protocol):
    """Confidence interval of a mean."""

    @property
    def low(self) -> float:
        """Lower end."""

    @property
    def high(self) -> float:
        """Upper end."""


class CountedPasses(Protocol):
    """Model passes per image."""

    @property
    def forward(self) -> int:
        """Forward passes."""

    @property
    def backward(self) -> int:
        """Backward passes."""


class RankedRow(Protocol):
    """One row of a ranking, such as :class:`faithmap.selection.Ranked`."""

    @property
    def name(self) -> str:
        """Name of the method."""

    @property
    def control(self) -> bool:
        """Whether the method is a control, which ignores the model."""

    @property
    def scores(self) -> Tensor:
        """One score per image."""

    @property
    def mean(self) -> float:
        """Mean score."""

    @property
    def interval(self) -> MeanInterval | None:
        """Interval of the mean; None for a single image."""

    @property
    def passes(self) -> CountedPasses:
        """Mean number of passes per image."""

    @property
    def seconds(self) -> float:
        """Mean time per image."""


class RankedMethods(Protocol):
    """A ranking, such as :class:`faithmap.selection.Choice`."""

    @property
    def score(self) -> str:
        """Name of the score."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a high score is good."""

    @property
    def ranking(self) -> Sequence[RankedRow]:
        """All methods, the best first."""

    @property
    def best(self) -> RankedRow:
        """The best method that is no control."""

    @property
    def indistinguishable(self) -> Sequence[RankedRow]:
        """The methods that are indistinguishable from the best."""

    @property
    def enough(self) -> bool:
        """Whether there are enough images for any difference to be significant."""

    @property
    def left_out(self) -> Sequence[object]:
        """The methods that were not evaluated."""

    def __len__(self) -> int:
        """Number of images."""


def ranking(choice: RankedMethods, *, title: str = "Methods") -> Figure:
    """Draw a ranking with 95 % intervals, and the cost of each method per image.

    >>> import torch
    >>> from faithmap import Gradient, RandomMap
    >>> from faithmap.selection import choose
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 5))
    >>> explainers = {"gradient": Gradient(model), "random": RandomMap(model)}
    >>> choice = choose(model, list(torch.rand(3, 1, 3, 16, 16)), explainers=explainers, budget=3600, resolution=4)
    >>> sorted(label.get_text() for label in ranking(choice).axes[0].get_yticklabels())
    ['gradient', 'random (control)']

    Args:
        choice: the result of :func:`faithmap.selection.choose`, or any object with the same attributes.
        title: title of the figure.
    """
    names_drawn = [_name(method) for method in choice.ranking]
    rows, names = len(names_drawn), max(map(_width, names_drawn)) + _GAP
    width = 2 * _SIDE + names + _PLOT + _COST
    heading = Heading.of(title, _subtitle(choice), width - 2 * _SIDE)
    height = (rows + 0.6) * _ROW
    figure = InlineFigure(figsize=(width, heading.height + height + _AXIS))
    heading.write(figure, _SIDE)
    ax = axes_at(figure, _SIDE + names, heading.height, _PLOT, height)
    for row, method in enumerate(choice.ranking):
        _draw(ax, row, method, choice)
    ax.set(ylim=(rows - 0.3, -0.9), yticks=range(rows))
    ax.set_yticklabels(names_drawn, parse_math=False)
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


def _draw(ax: Axes, row: int, method: RankedRow, choice: RankedMethods) -> None:
    """Draw the scores of the images as ticks, the mean with its interval, and the cost on the right."""
    colour = _colour(method, choice)
    ax.plot(method.scores.tolist(), [row] * len(method.scores), "|", color=colour, alpha=0.35, markersize=7, zorder=2)
    if method.interval is not None:
        ends = [method.interval.low, method.interval.high]
        ax.plot(ends, [row, row], color=colour, linewidth=2.2, zorder=3, solid_capstyle="butt")
    ax.plot([method.mean], [row], "o", color=colour, markersize=5.5, zorder=4)
    _beside(ax, row, [str(method.passes.forward), str(method.passes.backward), duration(method.seconds)])


def _beside(ax: Axes, row: float, cells: Sequence[str]) -> None:
    """Write one row of the columns on the right."""
    for cell, (_, end) in zip(cells, _COLUMNS, strict=True):
        place = ax.get_yaxis_transform()
        ax.text(1 + end / _PLOT, row, cell, transform=place, va="center", ha="right", font=_SMALL, color="0.25")


def _colour(method: RankedRow, choice: RankedMethods) -> str:
    if method.control:
        return _CONTROL
    if method is choice.best:
        return _METHOD
    return _ALIKE if method in choice.indistinguishable else "black"


def _name(method: RankedRow) -> str:
    name = method.name if len(method.name) <= _LONGEST else method.name[: _LONGEST - 1] + "…"
    return f"{name} (control)" if method.control else name


def _width(name: str) -> float:
    """Width in inches in the font of the best method, which is the widest."""
    points, _, _ = text_to_path.get_text_width_height_descent(name, _BEST, ismath=False)
    return float(points) / 72


def _subtitle(choice: RankedMethods) -> str:
    """Number of images, direction of the score, and meaning of the colours."""
    order = "higher is better" if choice.higher_is_better else "lower is better"
    images = f"{len(choice)} images, each a tick; means with 95 % intervals" if len(choice) > 1 else "1 image"
    few = "too few to show any difference" if not choice.enough else ""
    alike = "light blue: indistinguishable from the best" if choice.enough and choice.indistinguishable else ""
    out = f"{len(choice.left_out)} left out" if choice.left_out else ""
    return "; ".join(filter(None, [f"{images}; {order}", few, alike, out]))
