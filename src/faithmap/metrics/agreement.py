"""How alike two methods' maps are, :mod:`faithmap.metrics.functional.agreement`, as torchmetrics classes.

Agreement is no quality: two methods can be wrong together. ``higher_is_better`` is therefore None.
"""

from __future__ import annotations

from typing import Any

from faithmap.metrics.base import HeatmapMetric
from faithmap.metrics.functional.agreement import Maps, spearman, ssim, top_k_overlap


class Spearman(HeatmapMetric):
    """Rank correlation of two maps of each image, in [-1, 1]."""

    higher_is_better: bool | None = None
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0

    def update(self, first: Maps, second: Maps) -> None:
        """Compare the maps of some more images."""
        self.values.append(spearman(first, second))


class TopKOverlap(HeatmapMetric):
    """Share of the k highest cells that two maps of each image have in common, in [0, 1]; k / N by chance.

    Args:
        k: a number of cells (int), or a share of them (float).
        settings: torchmetrics' own.
    """

    higher_is_better: bool | None = None
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def __init__(self, k: float = 0.1, **settings: Any) -> None:
        super().__init__(**settings)
        self.k = k

    def update(self, first: Maps, second: Maps) -> None:
        """Compare the maps of some more images."""
        self.values.append(top_k_overlap(first, second, self.k))


class SSIM(HeatmapMetric):
    """Structural similarity of two maps of each image, in [-1, 1].

    Args:
        data_range: None scales each map to [0, 1]; a number is the range of the maps as they are.
        settings: torchmetrics' own.
    """

    higher_is_better: bool | None = None
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0

    def __init__(self, data_range: float | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.data_range = data_range

    def update(self, first: Maps, second: Maps) -> None:
        """Compare the maps of some more images."""
        self.values.append(ssim(first, second, data_range=self.data_range))
