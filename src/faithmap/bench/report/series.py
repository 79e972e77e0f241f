"""Series: what one method gave on one model, an entry an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faithmap.bench.report.columns import CLASS
from faithmap.bench.report.curves import MeanCurve, Numbers
from faithmap.bench.report.folder import Size


@dataclass
class Series:
    """What one method gave on one model: an entry an image, in the order of the data set.

    Attributes:
        index: of the images.
        file: the number of the file, by the order of names, that a row is in, and ``row`` its place there.
        numbers: metrics, costs and the explained class; NaN where a row has none.
        cells: rows and columns of the heatmaps; None where they differ.
        curves: the mean of each game, by the game's column.
    """

    index: NDArray[np.int64]
    file: NDArray[np.int64]
    row: NDArray[np.int64]
    numbers: dict[str, Numbers]
    cells: Size | None
    curves: dict[str, MeanCurve]

    def values(self, name: str) -> tuple[NDArray[np.int64], Numbers]:
        """The images that have a finite number, and these."""
        column = self.numbers.get(name)
        if column is None:
            return self.index[:0], np.empty(0)
        there = np.isfinite(column)
        return self.index[there], column[there]

    def mean_over_classes(self, name: str) -> float | None:
        """The mean of each explained class's mean, as pointing games count; None where there is no number."""
        column, classes = self.numbers.get(name), self.numbers.get(CLASS)
        if column is None or classes is None or not np.isfinite(column).any():
            return None
        there = np.isfinite(column)
        return float(np.mean([column[there & (classes == one)].mean() for one in np.unique(classes[there])]))
