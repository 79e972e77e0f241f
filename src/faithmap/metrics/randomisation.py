"""Model parameter randomisation (:mod:`faithmap.metrics.functional.randomisation`) as a torchmetrics class."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Unpack

from jaxtyping import Float
from torch import Tensor, nn

from faithmap.metrics.base import HeatmapMetric, MetricSettings
from faithmap.metrics.functional.curves import Progress
from faithmap.metrics.functional.randomisation import ModelExplainer, WeightDraw, randomisation
from faithmap.score import Target


class ModelRandomisation(HeatmapMetric):
    """Rank correlation, in [-1, 1], of each map with the map of the model after its weights are randomised.

    Near 0 if the method depends on what the model has learned; 1 if it does not depend on it at all. It costs two explanations
    per image. The random numbers of this library's methods do not depend on the batches.

    >>> import torch
    >>> from faithmap import Gradient
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    >>> metric = ModelRandomisation(Gradient(model))
    >>> metric.update(torch.rand(2, 3, 8, 8))
    >>> tuple(metric.per_image().shape)
    (2,)

    Args:
        explainer: any callable ``explainer(images, target)`` with a ``model``; it is no submodule of the metric.
        layers: stages of cascading randomisation, from the output down, the last of which counts: modules or their dotted
            names; None randomises the whole model at once.
        draw: random values by each layer's own "initialiser", or by "permutation" of the trained values.
        absolute: compare the absolute values of the maps.
        seed: of the random values.
        chunk_size: maximum number of images per pass while the target is resolved.
        progress: called with (explanations done, number of explanations) of each update.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool = False
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0
    explainer: ModelExplainer

    def __init__(
        self,
        explainer: ModelExplainer,
        *,
        layers: Sequence[str | nn.Module] | None = None,
        draw: WeightDraw = "initialiser",
        absolute: bool = False,
        seed: int = 0,
        chunk_size: int = 32,
        progress: Progress | None = None,
        **metric_settings: Unpack[MetricSettings],
    ) -> None:
        super().__init__(**metric_settings)
        self.__dict__["explainer"] = explainer  # nn.Module would register a module as a submodule
        self._randomisation = partial(
            randomisation, draw=draw, absolute=absolute, seed=seed, chunk_size=chunk_size, progress=progress
        )
        self.__dict__["layers"] = layers

    def update(self, images: Float[Tensor, "n c h w"], target: Target = None) -> None:
        """Explain more images, with the trained and with the randomised model.

        Args:
            images: as the explainer takes them.
            target: as the explainer takes it; None for the predicted class of the trained model.
        """
        generators = None
        if "generator" in inspect.signature(self.explainer).parameters:
            generators = self._next_generators(getattr(self.explainer, "seed", 0), len(images), images.device)
        layers = self.__dict__["layers"] or [self.explainer.model]
        result = self._randomisation(self.explainer, images, target, layers=layers, generator=generators)
        self.values.append(result.spearman[:, -1])
