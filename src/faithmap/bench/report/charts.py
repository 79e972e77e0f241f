"""Charts as SVG, coloured by the style sheet of the page, so that they follow its light and dark scheme.

A method has the colour of its number in the run; from the ninth method on, colours repeat with dashes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from faithmap.bench.report.results import GRID, Numbers

WIDTH, HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 22, 26, 44
_COLOURS = 8


@dataclass(frozen=True)
class CurveLine:
    """A mean curve on the grid."""

    name: str
    colour: int
    scores: Numbers


@dataclass(frozen=True)
class CostPoint:
    """Cost and faithfulness of a method, the ends of its interval, and whether it is on the Pareto front."""

    name: str
    colour: int
    cost: float
    worth: float
    low: float
    high: float
    front: bool


@dataclass(frozen=True)
class _Axis:
    """Maps values to positions, linearly or logarithmically."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 2)


def style_of(colour: int) -> str:
    """The CSS classes of a method's lines and marks.

    >>> style_of(2), style_of(9)
    ('c2 d0', 'c1 d1')
    """
    return f"c{colour % _COLOURS} d{min(colour // _COLOURS, 2)}"


def curves(title: str, lines: Sequence[CurveLine]) -> Markup:
    """Mean scores against the fraction of deleted or inserted cells."""
    scores = np.concatenate([line.scores for line in lines])
    x = _Axis(0, 1, _LEFT, WIDTH - _RIGHT, [0, 0.25, 0.5, 0.75, 1])
    y = _vertical(min(0.0, float(scores.min())), float(scores.max()))
    drawn = [
        _tag(
            "polyline",
            _named(line.name),
            points=" ".join(f"{x(f)},{y(s)}" for f, s in zip(GRID, line.scores, strict=True)),
            **_class("line", line.colour),
        )
        for line in lines
    ]
    frame = _frame(x, y, title, "cells deleted or inserted", [f"{tick:.0%}" for tick in x.ticks])
    return _svg(title, Markup("").join([frame, *drawn]))


def costs(title: str, axis: str, points: Sequence[CostPoint]) -> Markup:
    """Faithfulness against cost on a logarithmic axis, with the Pareto front."""
    x = _horizontal([point.cost for point in points])
    ends = [end for point in points for end in (point.low, point.high, point.worth) if not math.isnan(end)]
    y = _vertical(min(ends), max(ends))
    front = sorted((point for point in points if point.front), key=lambda point: point.cost)
    steps = " ".join(
        f"{x(p.cost)},{y(w)}" for previous, p in zip([front[0], *front], front, strict=False) for w in (previous.worth, p.worth)
    )
    drawn = [_tag("polyline", points=f"{steps} {x.end},{y(front[-1].worth)}", class_="front")]
    taken = [(x(p.cost) - 6, y(p.worth) - 6, x(p.cost) + 6, y(p.worth) + 6) for p in points]
    for point in sorted(points, key=lambda point: -point.worth):
        at = (x(point.cost), y(point.worth))
        if not math.isnan(point.low):
            drawn.append(_tag("line", x1=at[0], x2=at[0], y1=y(point.low), y2=y(point.high), **_class("bar", point.colour)))
        drawn.append(
            _tag("circle", _named(point.name), cx=at[0], cy=at[1], r=6 if point.front else 4.5, **_class("dot", point.colour))
        )
        drawn.append(_label(point.name, at, taken))
    frame = _frame(x, y, title, axis, [f"{tick:,.0f}" if tick >= 10 else f"{tick:g}" for tick in x.ticks])
    return _svg(title, Markup("").join([frame, *drawn]))


def _label(name: str, at: tuple[float, float], taken: list[tuple[float, float, float, float]]) -> Markup:
    """Next to its point, at the first of a few positions where it covers no other label."""
    short = name if len(name) <= 24 else name[:23] + "…"
    width = 6.2 * len(short)
    right = at[0] + 7 + width < WIDTH
    for shift in (-6, 16, -19, 29, -32, 42, -45):
        left = at[0] + 7 if right else at[0] - 7 - width
        box = (left, at[1] + shift - 10, left + width, at[1] + shift + 2)
        if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            break
    taken.append(box)
    anchor = "start" if right else "end"
    return _tag(
        "text",
        escape(short),
        x=round(at[0] + (7 if right else -7), 2),
        y=round(at[1] + shift, 2),
        text_anchor=anchor,
        class_="name",
    )


def _frame(x: _Axis, y: _Axis, title: str, below: str, across: Sequence[str]) -> Markup:
    """Grid, ticks, title and axis labels."""
    parts = [_tag("text", escape(title), x=_LEFT, y=14, class_="title")]
    for tick in y.ticks:
        parts.append(_tag("line", x1=x.start, x2=x.end, y1=y(tick), y2=y(tick), class_="grid"))
        parts.append(_tag("text", f"{tick:.4g}", x=x.start - 6, y=y(tick) + 4, text_anchor="end", class_="tick"))
    for tick, words in zip(x.ticks, across, strict=True):
        parts.append(_tag("line", x1=x(tick), x2=x(tick), y1=y.start, y2=y.start + 4, class_="axis"))
        parts.append(_tag("text", words, x=x(tick), y=y.start + 17, text_anchor="middle", class_="tick"))
    parts.append(_tag("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"))
    parts.append(_tag("text", escape(below), x=(x.start + x.end) / 2, y=HEIGHT - 8, text_anchor="middle", class_="tick"))
    return Markup("").join(parts)


def _vertical(low: float, high: float) -> _Axis:
    """An axis with round ticks around all values."""
    largest = max(abs(low), abs(high))
    span = high - low if high - low > 1e-9 * largest else largest or 1.0  # differences by rounding are no difference
    step = next(
        s
        for power in (10.0 ** math.floor(math.log10(span / 5)),)
        for s in (power, 2 * power, 5 * power, 10 * power)
        if span / s <= 6
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [i * step for i in range(first, last + 1)]
    return _Axis(ticks[0], ticks[-1], HEIGHT - _BOTTOM, _TOP, ticks)


def _horizontal(values: Sequence[float]) -> _Axis:
    """A logarithmic axis from two thirds of the lowest to 1.5 times the highest value; ticks at powers of ten and multiples."""
    low, high = min(values) / 1.5, max(values) * 1.5
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(ticks) >= 3:
            break
    return _Axis(low, high, _LEFT, WIDTH - _RIGHT, ticks, log=True)


def _class(kind: str, colour: int) -> dict[str, str]:
    return {"class_": f"{kind} {style_of(colour)}"}


def _named(name: str) -> Markup:
    return Markup("<title>{}</title>").format(name)


def _tag(kind: str, inside: str | Markup = "", **attributes: str | float) -> Markup:
    words = Markup("").join(Markup(' {}="{}"').format(k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items())
    return Markup("<{}{}>{}</{}>").format(kind, words, inside, kind)


def _svg(title: str, inside: Markup) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, inside
    )
