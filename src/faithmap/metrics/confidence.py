"""Average drop, increase in confidence and average gain as torchmetrics classes.

They are one measurement read in three ways, and belong together: drop alone is won by a map of ones. A collection in which
they share it asks the model once:

.. code-block:: python

    names = ["AverageDrop", "IncreaseInConfidence", "AverageGain"]
    metrics = MetricCollection([AverageDrop(model), IncreaseInConfidence(model), AverageGain(model)], compute_groups=[names])
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics.base import ModelMetric, keywords_of
from faithmap.metrics.functional.confidence import Confidence, confidence
from faithmap.score import Target

Maps = Explanation | Float[Tensor, "n r c"]


class _Reading(ModelMetric):
    """Base of the three: settings as in :func:`faithmap.metrics.functional.confidence`; the state is Y and O of each image."""

    known: ClassVar[frozenset[str]] = keywords_of(confidence)
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 100.0

    def measure(self, images: Float[Tensor, "n c h w"], heatmaps: Maps, target: Target) -> Float[Tensor, "n 2"]:
        """Both scores of each image."""
        found = confidence(self.model, images, heatmaps, target, **self.settings)
        return torch.stack([found.clean, found.masked], dim=1)

    def _together(self) -> Float[Tensor, " n"]:
        return self.read(Confidence(*super()._together().unbind(dim=1)))

    @abstractmethod
    def read(self, found: Confidence) -> Float[Tensor, " n"]:
        """One of its readings."""


class AverageDrop(_Reading):
    """What part of the score is lost under the heatmap, in percent; low is good, and a map of ones has 0."""

    higher_is_better: bool = False

    def read(self, found: Confidence) -> Float[Tensor, " n"]:
        """Each image's drop."""
        return found.drop


class IncreaseInConfidence(_Reading):
    """How often the score rises under the heatmap, in percent of the images; a map of ones has 0."""

    higher_is_better: bool = True

    def read(self, found: Confidence) -> Float[Tensor, " n"]:
        """100 for each image whose score rises."""
        return found.increase


class AverageGain(_Reading):
    """What part of the missing score is won under the heatmap, in percent; a map of ones has 0."""

    higher_is_better: bool = True

    def read(self, found: Confidence) -> Float[Tensor, " n"]:
        """Each image's gain."""
        return found.gain
