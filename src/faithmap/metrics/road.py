"""ROAD (:mod:`faithmap.metrics.functional.road`) as a torchmetrics class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.metrics.base import MetricSettings, ModelMetric
from faithmap.metrics.functional.curves import Progress
from faithmap.metrics.functional.road import FRACTIONS, TOLERANCE, road
from faithmap.score import Target


class ROAD(ModelMetric):
    """LeRF minus MoRF with imputation of removed pixels, in [-1, 1]; 0 in expectation for a random map.

    The noise of an image depends on the seed and on the number of images before it, not on the batches.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> metric = ROAD(model)
    >>> metric.update(torch.rand(2, 3, 4, 4), torch.rand(2, 4, 4))
    >>> tuple(metric.per_image().shape)
    (2,)

    Args:
        model: the model that was explained; it is no submodule of the metric.
        fractions: fractions of the pixels that are removed, ascending, each in [0, 1].
        noise_std: standard deviation of the noise on imputed pixels, in pixel units.
        tolerance: error of an imputed pixel at which the solver stops, in pixel units.
        seed: seed of the noise.
        chunk_size: maximum number of images per pass and per imputation.
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
        fractions: Sequence[float] = FRACTIONS,
        noise_std: float = 0.01,
        tolerance: float = TOLERANCE,
        seed: int = 0,
        chunk_size: int = 32,
        autocast: torch.dtype | None = None,
        progress: Progress | None = None,
        **metric_settings: Unpack[MetricSettings],
    ) -> None:
        super().__init__(model, **metric_settings)
        self.seed = seed
        self._road = partial(
            road,
            fractions=fractions,
            noise_std=noise_std,
            tolerance=tolerance,
            chunk_size=chunk_size,
            autocast=autocast,
            progress=progress,
        )

    def measure(
        self, images: Float[Tensor, "n c h w"], heatmaps: Explanation | Float[Tensor, "n r c"], target: Target
    ) -> Float[Tensor, " n"]:
        """Difference of each image."""
        generators = self._next_generators(self.seed, len(images), images.device)
        return self._road(self.model, images, heatmaps, target, generator=generators).difference
