"""Points, lines and ticks of the charts are where their numbers put them."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from faithmap.bench.report import charts


def test_the_chart_of_costs_has_points_and_the_front() -> None:
    """One power of ten lies between 10 and 100; the front steps from a to c, and b is under it."""
    points = [
        charts.CostPoint("a", 0, 10.0, 0.25, math.nan, math.nan, front=True),
        charts.CostPoint("b", 1, 20.0, 0.125, 0.0, 0.25, front=False),
        charts.CostPoint("<c>", 9, 100.0, 0.5, math.nan, math.nan, front=True),
    ]
    drawn = charts.costs("worth", "passes", points)
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)" class="([^"]*)"><title>([^<]*)', drawn)
    found = {name: (float(x), float(y), float(r), style) for x, y, r, style, name in circles}
    assert {name: (r, style) for name, (_, _, r, style) in found.items()} == {
        "a": (6, "dot c0 d0"),
        "b": (4.5, "dot c1 d0"),
        "&lt;c&gt;": (6, "dot c1 d1"),
    }
    (ax, ay, *_), (bx, by, *_), (cx, cy, *_) = found["a"], found["b"], found["&lt;c&gt;"]
    assert (bx - ax) / (cx - ax) == pytest.approx(math.log10(2), abs=1e-3)
    assert (by - ay) / (cy - ay) == pytest.approx(-0.5, abs=1e-3)
    front = re.findall(r'<polyline points="([^"]*)" class="front"', drawn)[0].split()
    assert front[:4] == [f"{ax},{ay}", f"{ax},{ay}", f"{cx},{ay}", f"{cx},{cy}"]
    assert len(re.findall('class="bar', drawn)) == 1


def test_ticks_of_costs_differ() -> None:
    """Between 1 and 2 passes there is a tick at 1.5."""
    points = [charts.CostPoint(name, 0, cost, cost, math.nan, math.nan, front=True) for name, cost in (("a", 1.0), ("b", 2.0))]
    below = re.findall(r'y="273" text-anchor="middle" class="tick">([^<]*)', charts.costs("worth", "passes", points))
    assert below == ["0.8", "1", "1.5", "2", "3"]


def test_the_chart_of_curves_shows_the_scores() -> None:
    drawn = charts.curves("mean deletion curve", [charts.CurveLine("a", 0, np.linspace(1, 0, 101))])
    points = re.findall(r'points="([^"]*)"', drawn)[0].split()
    (left, top), (right, bottom) = (tuple(map(float, points[i].split(","))) for i in (0, -1))
    middle = tuple(map(float, points[50].split(",")))
    assert middle == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=0.02)
    assert left < right
    assert top < bottom


@pytest.mark.parametrize("worths", [(0.1, 0.1), (0.1, 0.1 + 1e-17), (0.0, 0.0), (1e-12, 2e-12), (-3e5, 4e5), (1, 1 + 1e-15)])
def test_axes_contain_all_values(worths: tuple[float, float]) -> None:
    points = [charts.CostPoint(str(i), i, 1.0, worth, math.nan, math.nan, front=True) for i, worth in enumerate(worths)]
    drawn = charts.costs("worth", "passes", points)
    places = [float(y) for y in re.findall(r'cy="([-\d.]+)"', drawn)]
    assert all(20 < y < charts.HEIGHT for y in places)
    assert charts.curves("flat", [charts.CurveLine("a", 0, np.full(101, worths[0]))])
