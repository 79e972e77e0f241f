"""What an explanation costs, and which methods give the most for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from faithmap.bench.report.series import Series


@dataclass(frozen=True)
class Cost:
    """Of one method, an image; None where it was not measured.

    Attributes:
        forward: passes on average; ``backward`` likewise.
        median: seconds; ``mean`` and ``slow``, the 95th percentile, likewise.
        metrics: seconds of all metrics together, on average.
        memory: the largest peak, in bytes.
        count: images that have a time.
    """

    forward: float | None
    backward: float | None
    median: float | None
    mean: float | None
    slow: float | None
    metrics: float | None
    memory: float | None
    count: int

    @property
    def passes(self) -> float | None:
        """Forward and backward together."""
        known = [number for number in (self.forward, self.backward) if number is not None]
        return sum(known) if known else None


def cost(series: Series) -> Cost:
    """From the rows."""
    seconds = series.values("seconds")[1]
    memory = series.values("peak_memory")[1]
    median, slow = (float(value) for value in np.quantile(seconds, (0.5, 0.95))) if len(seconds) else (None, None)
    return Cost(
        forward=_mean(series, "forward"),
        backward=_mean(series, "backward"),
        median=median,
        mean=_mean(series, "seconds"),
        slow=slow,
        metrics=_mean(series, "metric_seconds"),
        memory=float(memory.max()) if len(memory) else None,
        count=len(seconds),
    )


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The methods that no other beats: none is as cheap and more faithful, or as faithful and cheaper. The cheapest first.

    Args:
        points: each method's cost, lower is better, and its faithfulness, higher is better.

    >>> pareto({"a": (1, 0.3), "b": (5, 0.2), "c": (9, 0.7)})
    ['a', 'c']
    """
    best = [
        name
        for name, (price, worth) in points.items()
        if not any(p <= price and w >= worth and (p, w) != (price, worth) for p, w in points.values())
    ]
    return sorted(best, key=lambda name: points[name])


def _mean(series: Series, name: str) -> float | None:
    values = series.values(name)[1]
    return float(values.mean()) if len(values) else None
