"""Agreement of two methods' maps (:mod:`faithmap.metrics.functional.agreement`) as torchmetrics classes.

Agreement is not quality: two methods can both be wrong. ``higher_is_better`` is therefore None.
"""

from __future__ import annotations

from typing import Unpack

from faithmap.metrics.base import HeatmapMetric, MetricSettings
from faithmap.metrics.functional.agreement import Maps, spearman, ssim, top_k_overlap


class Spearman(HeatmapMetric):
    """Rank correlation of two maps of each image, in [-1, 1].

    >>> import torch
    >>> maps = torch.rand(2, 8, 8)
    >>> metric = Spearman()
    >>> metric.update(maps, maps.exp())
    >>> metric.compute()
    tensor(1.)

    Args:
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool | None = None
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0

    def update(self, first: Maps, second: Maps) -> None:
        """Compare the maps of more images.

        Args:
            first: one map per image.
            second: one map of each of the same images.
        """
        self.values.append(spearman(first, second))


class TopKOverlap(HeatmapMetric):
    """Share of the k highest cells that two maps of each image have in common, in [0, 1]; k / N for random maps.

    >>> import torch
    >>> maps = torch.rand(2, 8, 8)
    >>> metric = TopKOverlap(k=5)
    >>> metric.update(maps, maps)
    >>> metric.compute()
    tensor(1.)

    Args:
        k: a number of cells (int), or a share of the cells in (0, 1] (float).
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool | None = None
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def __init__(self, k: float = 0.1, **metric_settings: Unpack[MetricSettings]) -> None:
        super().__init__(**metric_settings)
        self.k = k

    def update(self, first: Maps, second: Maps) -> None:
        """Compare the maps of more images.

        Args:
            first: one map per image.
            second: one map of each of the same images.
        """
        self.values.append(top_k_overlap(first, second, self.k))


class SSIM(HeatmapMetric):
    """Structural similarity of two maps of each image, in [-1, 1].

    >>> import torch
    >>> maps = torch.rand(2, 8, 8)
    >>> metric = SSIM()
    >>> metric.update(maps, 3 * maps)
    >>> metric.compute()
    tensor(1.)

    Args:
        data_range: None scales each map to [0, 1]; a positive number is the range of unscaled maps.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool | None = None
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0

    def __init__(self, data_range: float | None = None, **metric_settings: Unpack[MetricSettings]) -> None:
        super().__init__(**metric_settings)
        self.data_range = data_range

    def update(self, first: Maps, second: Maps) -> None:
        """Compare the maps of more images.

        Args:
            first: one map per image.
            second: one map of each of the same images.
        """
        self.values.append(ssim(first, second, data_range=self.data_range))
