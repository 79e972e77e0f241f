"""Mean curves of deletion and insertion, each row's put on one grid of fractions.

A curve is straight between its points, so that its value at a grid point is exact; nothing but sums is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

GRID: Numbers = np.linspace(0, 1, 101)
"""Fractions of cells played, one a per cent."""


def on_grid(fractions: Numbers, scores: Numbers) -> Numbers:
    """A curve at the grid's fractions.

    >>> on_grid(np.array([0.0, 1.0]), np.array([1.0, 0.0]))[[0, 25, 100]]
    array([1.  , 0.75, 0.  ])
    """
    return np.interp(GRID, fractions, scores)


@dataclass
class MeanCurve:
    """The mean of curves that come one batch after the other.

    Attributes:
        total: of the scores on the grid.
        count: of the curves.
    """

    total: Numbers = field(default_factory=lambda: np.zeros_like(GRID))
    count: int = 0

    def add(self, fractions: Any, curves: Any) -> None:
        """Two Arrow lists of one entry a row; rows without a curve, or with one that does not fit, are left out."""
        for points, scores in zip(fractions, curves, strict=True):
            if not points.is_valid or not scores.is_valid:
                continue
            at, values = (np.asarray(entry.values.to_numpy(zero_copy_only=False), np.float64) for entry in (points, scores))
            if len(at) == len(values) > 0 and np.isfinite(values).all() and np.isfinite(at).all():
                self.total += on_grid(at, values)
                self.count += 1

    @property
    def mean(self) -> Numbers | None:
        """On the grid; None where there was no curve."""
        return self.total / self.count if self.count else None
