"""Sensitivity (:mod:`faithmap.metrics.functional.sensitivity`) as torchmetrics classes."""

from __future__ import annotations

from functools import partial
from typing import Unpack

from jaxtyping import Float
from torch import Tensor

from faithmap.metrics.base import HeatmapMetric, MetricSettings
from faithmap.metrics.functional.curves import Progress
from faithmap.metrics.functional.sensitivity import HeatmapFunction, SensitivityResult, sensitivity
from faithmap.score import Target


class _Sensitivity(HeatmapMetric):
    """Base of both sensitivities; see the subclasses."""

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0
    explainer: HeatmapFunction

    def __init__(
        self,
        explainer: HeatmapFunction,
        *,
        radius: float = 0.02,
        draws: int = 10,
        limits: tuple[float, float] | None = (0.0, 1.0),
        seed: int = 0,
        chunk_size: int = 32,
        progress: Progress | None = None,
        **metric_settings: Unpack[MetricSettings],
    ) -> None:
        super().__init__(**metric_settings)
        self.__dict__["explainer"] = explainer  # nn.Module would register a module as a submodule
        self.seed = seed
        self._sensitivity = partial(
            sensitivity, radius=radius, draws=draws, limits=limits, chunk_size=chunk_size, progress=progress
        )

    def _measured(self, images: Float[Tensor, "n c h w"], target: Target) -> SensitivityResult:
        generators = self._next_generators(self.seed, len(images), images.device)
        return self._sensitivity(self.explainer, images, target, generator=generators)


class MaxSensitivity(_Sensitivity):
    """The largest relative change of the map under small perturbations of the image; 0 if the map never changes.

    >>> import torch
    >>> metric = MaxSensitivity(lambda images: images.mean(dim=1), draws=3)
    >>> metric.update(torch.rand(2, 3, 4, 4))
    >>> tuple(metric.per_image().shape)
    (2,)

    Args:
        explainer: returns the maps that are compared; it is no submodule of the metric.
        radius: of the ball of perturbations, in pixel units, at least 0.
        draws: number of perturbed versions of each image, at least 1.
        limits: the range of images; None for images in other units than [0, 1].
        seed: of the perturbations; the draws of an image do not depend on the batches.
        chunk_size: maximum number of images per call of the explainer.
        progress: called with (perturbed maps done, number of perturbed maps) of each update.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    def update(self, images: Float[Tensor, "n c h w"], target: Target = None) -> None:
        """Explain and perturb more images.

        Args:
            images: the images to explain.
            target: the explained class, as the explainer takes it; None for the target of the explainer's own result.
        """
        self.values.append(self._measured(images, target).maximum)


class MeanSensitivity(_Sensitivity):
    """The mean relative change of the map under small perturbations of the image; 0 if the map never changes.

    >>> import torch
    >>> metric = MeanSensitivity(lambda images: images.mean(dim=1), draws=3)
    >>> metric.update(torch.rand(2, 3, 4, 4))
    >>> tuple(metric.per_image().shape)
    (2,)

    Args:
        explainer: returns the maps that are compared; it is no submodule of the metric.
        radius: of the ball of perturbations, in pixel units, at least 0.
        draws: number of perturbed versions of each image, at least 1.
        limits: the range of images; None for images in other units than [0, 1].
        seed: of the perturbations; the draws of an image do not depend on the batches.
        chunk_size: maximum number of images per call of the explainer.
        progress: called with (perturbed maps done, number of perturbed maps) of each update.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    def update(self, images: Float[Tensor, "n c h w"], target: Target = None) -> None:
        """Explain and perturb more images.

        Args:
            images: the images to explain.
            target: the explained class, as the explainer takes it; None for the target of the explainer's own result.
        """
        self.values.append(self._measured(images, target).mean)
