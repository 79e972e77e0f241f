"""Infidelity (:mod:`faithmap.metrics.functional.infidelity`) as a torchmetrics class."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.metrics.base import MetricSettings, ModelMetric
from faithmap.metrics.functional.curves import Progress
from faithmap.metrics.functional.infidelity import AnyPerturbation, Reading, infidelity
from faithmap.score import ScoreKind, Target


class Infidelity(ModelMetric):
    """Mean squared error of the score drops that the heatmap predicts; 0 is perfect.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> metric = Infidelity(model, draws=10)
    >>> metric.update(torch.rand(2, 3, 4, 4), torch.rand(2, 4, 4))
    >>> tuple(metric.per_image().shape)
    (2,)

    Args:
        model: the model that was explained; it is no submodule of the metric.
        perturbation: "square", "gaussian", "region", or a Perturbation, or a function of an image and its generator.
        draws: number of perturbations per image, at least 1.
        reading: what a value of the heatmap means, "local" or "global"; None for global if the perturbation removes whole
            pixels, or else local.
        scaled: multiply each map by its best factor.
        score: of the target class: probability or logit.
        seed: of the perturbations; the draws of an image do not depend on the batches.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (draws done, number of draws) of each update.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0

    def __init__(
        self,
        model: nn.Module,
        *,
        perturbation: AnyPerturbation = "square",
        draws: int = 1000,
        reading: Reading | None = None,
        scaled: bool = True,
        score: ScoreKind = "probability",
        seed: int = 0,
        chunk_size: int = 32,
        autocast: torch.dtype | None = None,
        progress: Progress | None = None,
        **metric_settings: Unpack[MetricSettings],
    ) -> None:
        super().__init__(model, **metric_settings)
        self.seed = seed
        self._infidelity = partial(
            infidelity,
            perturbation=perturbation,
            draws=draws,
            reading=reading,
            scaled=scaled,
            score=score,
            chunk_size=chunk_size,
            autocast=autocast,
            progress=progress,
        )

    def measure(
        self, images: Float[Tensor, "n c h w"], heatmaps: Explanation | Float[Tensor, "n r c"], target: Target
    ) -> Float[Tensor, " n"]:
        """Infidelity of each image."""
        generators = self._next_generators(self.seed, len(images), images.device)
        return self._infidelity(self.model, images, heatmaps, target, generator=generators).value
