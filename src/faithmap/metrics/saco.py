"""SaCo (:mod:`faithmap.metrics.functional.saco`) as a torchmetrics class."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.baselines import Baseline
from faithmap.explanation import Explanation
from faithmap.metrics.base import MetricSettings, ModelMetric
from faithmap.metrics.functional.curves import Progress
from faithmap.metrics.functional.saco import saco
from faithmap.score import Target


class SaCo(ModelMetric):
    """Whether groups of pixels with larger values matter more, in [-1, 1]; 0 in expectation for a random map.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> metric = SaCo(model, groups=4)
    >>> metric.update(torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4))
    >>> metric.per_image()
    tensor([0., 0.])

    Args:
        model: the model that was explained; it is no submodule of the metric.
        groups: number of groups of pixels, at least 2 and at most the number of pixels.
        baseline: what a removed pixel becomes; the paper takes the mean of the image.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images) of each update.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0

    def __init__(
        self,
        model: nn.Module,
        *,
        groups: int = 10,
        baseline: Baseline = "mean",
        chunk_size: int = 32,
        autocast: torch.dtype | None = None,
        progress: Progress | None = None,
        **metric_settings: Unpack[MetricSettings],
    ) -> None:
        super().__init__(model, **metric_settings)
        self._saco = partial(
            saco, groups=groups, baseline=baseline, chunk_size=chunk_size, autocast=autocast, progress=progress
        )

    def measure(
        self, images: Float[Tensor, "n c h w"], heatmaps: Explanation | Float[Tensor, "n r c"], target: Target
    ) -> Float[Tensor, " n"]:
        """The coefficient of each image."""
        return self._saco(self.model, images, heatmaps, target)
