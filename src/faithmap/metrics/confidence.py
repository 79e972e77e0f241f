"""Average drop, increase in confidence and average gain as torchmetrics classes.

They are three numbers of one measurement, and should be reported together: a map of ones has the best drop. A collection in
which they share the measurement evaluates the model once:

.. code-block:: python

    names = ["AverageDrop", "IncreaseInConfidence", "AverageGain"]
    metrics = MetricCollection([AverageDrop(model), IncreaseInConfidence(model), AverageGain(model)], compute_groups=[names])
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TypeAlias, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.metrics.base import MetricSettings, ModelMetric
from faithmap.metrics.functional.confidence import Confidence, Scaling, confidence
from faithmap.score import Target

Maps: TypeAlias = Explanation | Float[Tensor, "n r c"]


class _ConfidenceMetric(ModelMetric):
    """Base of the three metrics; the state is Y and O of each image."""

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 100.0

    def __init__(
        self,
        model: nn.Module,
        *,
        scaling: Scaling = "max",
        chunk_size: int = 32,
        autocast: torch.dtype | None = None,
        **metric_settings: Unpack[MetricSettings],
    ) -> None:
        super().__init__(model, **metric_settings)
        self._confidence = partial(confidence, scaling=scaling, chunk_size=chunk_size, autocast=autocast)

    def measure(self, images: Float[Tensor, "n c h w"], heatmaps: Maps, target: Target) -> Float[Tensor, "n 2"]:
        """Y and O of each image."""
        result = self._confidence(self.model, images, heatmaps, target)
        return torch.stack([result.clean, result.masked], dim=1)

    def _all_values(self) -> Float[Tensor, " n"]:
        return self.of(Confidence(*super()._all_values().unbind(dim=1)))

    @abstractmethod
    def of(self, result: Confidence) -> Float[Tensor, " n"]:
        """The value of each image."""


class AverageDrop(_ConfidenceMetric):
    """Relative loss of the score if the image is multiplied by its heatmap, in percent; low is good, a map of ones has 0.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> metric = AverageDrop(model)
    >>> metric.update(torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4))
    >>> metric.compute()
    tensor(0.)

    Args:
        model: the model that was explained, of [0, 1] pixels, where 0 is black; it is no submodule of the metric.
        scaling: of each map to [0, 1]: "max", "min_max" or "none".
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool = False

    def of(self, result: Confidence) -> Float[Tensor, " n"]:
        """Drop of each image."""
        return result.drop


class IncreaseInConfidence(_ConfidenceMetric):
    """Percentage of images whose score increases if they are multiplied by their heatmap; a map of ones has 0.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> metric = IncreaseInConfidence(model)
    >>> metric.update(torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4))
    >>> metric.compute()
    tensor(0.)

    Args:
        model: the model that was explained, of [0, 1] pixels, where 0 is black; it is no submodule of the metric.
        scaling: of each map to [0, 1]: "max", "min_max" or "none".
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool = True

    def of(self, result: Confidence) -> Float[Tensor, " n"]:
        """100 for each image whose score increases, else 0."""
        return result.increase


class AverageGain(_ConfidenceMetric):
    """Gain of the score relative to the largest possible gain, in percent; a map of ones has 0.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> metric = AverageGain(model)
    >>> metric.update(torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4))
    >>> metric.compute()
    tensor(0.)

    Args:
        model: the model that was explained, of [0, 1] pixels, where 0 is black; it is no submodule of the metric.
        scaling: of each map to [0, 1]: "max", "min_max" or "none".
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool = True

    def of(self, result: Confidence) -> Float[Tensor, " n"]:
        """Gain of each image."""
        return result.gain
