"""The jury (:mod:`faithmap.metrics.functional.evidence`) as a torchmetrics class."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.metrics.base import MetricSettings, ModelMetric
from faithmap.metrics.functional.curves import Progress
from faithmap.metrics.functional.evidence import Panel, PanelName, evidence
from faithmap.score import Target


class JuryGain(ModelMetric):
    """By how much heatmaps are better than a random map, in the mean over the jurors that have a vote, in units of the score.

    NaN for an image for which no juror has a vote. The random map of an image depends on the seed and on the number of images
    before it, not on the batches.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    >>> metric = JuryGain(model)
    >>> metric.update(torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4))
    >>> tuple(metric.per_image().shape)
    (2,)

    Args:
        model: the model that was explained; it is no submodule of the metric.
        panel: the jurors: "quick", "full", or a :class:`~faithmap.metrics.functional.evidence.Panel`.
        second: another model with the same classes, for one more juror.
        seed: of the random maps.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (jurors done, number of jurors) of each update.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool = True

    def __init__(
        self,
        model: nn.Module,
        *,
        panel: PanelName | Panel = "quick",
        second: nn.Module | None = None,
        seed: int = 0,
        chunk_size: int = 32,
        autocast: torch.dtype | None = None,
        progress: Progress | None = None,
        **metric_settings: Unpack[MetricSettings],
    ) -> None:
        super().__init__(model, **metric_settings)
        self.seed = seed
        self._evidence = partial(
            evidence, panel=panel, second=second, chunk_size=chunk_size, autocast=autocast, progress=progress
        )

    def measure(
        self, images: Float[Tensor, "n c h w"], heatmaps: Explanation | Float[Tensor, "n r c"], target: Target
    ) -> Float[Tensor, " n"]:
        """The gain of each image."""
        generators = self._next_generators(self.seed, len(images), images.device)
        return self._evidence(self.model, images, heatmaps, target, generator=generators).gain[:, 0]
