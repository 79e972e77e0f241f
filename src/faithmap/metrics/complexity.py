"""Complexity and sparseness (:mod:`faithmap.metrics.functional.complexity`) as torchmetrics classes."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics.base import HeatmapMetric
from faithmap.metrics.functional.complexity import entropy, gini


class Complexity(HeatmapMetric):
    """Entropy of the maps, in [0, 1]; low if few cells have most of a map's mass.

    >>> import torch
    >>> metric = Complexity()
    >>> metric.update(torch.ones(2, 4, 4))
    >>> metric.compute()
    tensor(1.)

    Args:
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def update(self, heatmaps: Explanation | Float[Tensor, "n r c"]) -> None:
        """Measure more maps."""
        self.values.append(entropy(heatmaps))


class Sparseness(HeatmapMetric):
    """Gini index of the maps, in [0, 1); high if few cells have most of a map's mass.

    >>> import torch
    >>> metric = Sparseness()
    >>> metric.update(torch.ones(2, 4, 4))
    >>> metric.compute()
    tensor(0.)

    Args:
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def update(self, heatmaps: Explanation | Float[Tensor, "n r c"]) -> None:
        """Measure more maps."""
        self.values.append(gini(heatmaps))
