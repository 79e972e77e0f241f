"""Areas under perturbation curves (:mod:`faithmap.metrics.functional.curves`) as torchmetrics classes."""

from __future__ import annotations

from functools import partial
from typing import TypeAlias, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.baselines import Baseline
from faithmap.explanation import Explanation
from faithmap.metrics.base import MetricSettings, ModelMetric
from faithmap.metrics.functional.curves import (
    DELETION,
    INSERTION,
    LEAST_FIRST,
    PerturbationCurve,
    Progress,
    Protocol,
    ProtocolName,
    evaluate_curves,
)
from faithmap.score import Target

Maps: TypeAlias = Explanation | Float[Tensor, "n r c"]


class _CurveMetric(ModelMetric):
    """Base of the metrics that are areas under perturbation curves; see the subclasses."""

    kinds: tuple[PerturbationCurve, ...]
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def __init__(
        self,
        model: nn.Module,
        *,
        protocol: ProtocolName | Protocol = "igos",
        steps: int | None = None,
        baseline: Baseline | None = None,
        chunk_size: int = 32,
        autocast: torch.dtype | None = None,
        progress: Progress | None = None,
        **metric_settings: Unpack[MetricSettings],
    ) -> None:
        super().__init__(model, **metric_settings)
        self._evaluate = partial(
            evaluate_curves,
            kinds=self.kinds,
            protocol=protocol,
            steps=steps,
            baseline=baseline,
            chunk_size=chunk_size,
            autocast=autocast,
            progress=progress,
        )

    def _areas(self, images: Float[Tensor, "n c h w"], heatmaps: Maps, target: Target) -> tuple[Float[Tensor, " n"], ...]:
        """Area under each kind of curve."""
        return tuple(curve.area for curve in self._evaluate(self.model, images, heatmaps, target).curves)


class Deletion(_CurveMetric):
    """Area under the deletion curve, in [0, 1]; low if the score depends on the cells that are deleted first.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> metric = Deletion(model, steps=4)
    >>> metric.update(torch.rand(2, 3, 4, 4), torch.rand(2, 2, 2))
    >>> tuple(metric.per_image().shape)
    (2,)

    Args:
        model: the model that was explained; it is no submodule of the metric.
        protocol: the name of one of :data:`~faithmap.metrics.PROTOCOLS`, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: what deleted cells become; None for the protocol's baseline.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images) of each update.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    kinds = (DELETION,)
    higher_is_better: bool = False

    def measure(self, images: Float[Tensor, "n c h w"], heatmaps: Maps, target: Target) -> Float[Tensor, " n"]:
        """Area of each image."""
        (area,) = self._areas(images, heatmaps, target)
        return area


class Insertion(_CurveMetric):
    """Area under the insertion curve, in [0, 1]; high if the cells that are inserted first suffice for the score.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> metric = Insertion(model, steps=4)
    >>> metric.update(torch.rand(2, 3, 4, 4), torch.rand(2, 2, 2))
    >>> tuple(metric.per_image().shape)
    (2,)

    Args:
        model: the model that was explained; it is no submodule of the metric.
        protocol: the name of one of :data:`~faithmap.metrics.PROTOCOLS`, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: the image before any cell is inserted; None for the protocol's baseline.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images) of each update.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    kinds = (INSERTION,)
    higher_is_better: bool = True

    def measure(self, images: Float[Tensor, "n c h w"], heatmaps: Maps, target: Target) -> Float[Tensor, " n"]:
        """Area of each image."""
        (area,) = self._areas(images, heatmaps, target)
        return area


class InsertionMinusDeletion(_CurveMetric):
    """Insertion area minus deletion area, in [-1, 1]: low for a map that scores well on only one of them.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> metric = InsertionMinusDeletion(model, steps=4)
    >>> metric.update(torch.rand(2, 3, 4, 4), torch.rand(2, 2, 2))
    >>> tuple(metric.per_image().shape)
    (2,)

    Args:
        model: the model that was explained; it is no submodule of the metric.
        protocol: the name of one of :data:`~faithmap.metrics.PROTOCOLS`, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: for both curves; None for the protocol's baselines.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images) of each update.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    kinds = (DELETION, INSERTION)
    higher_is_better: bool = True
    plot_lower_bound: float = -1.0

    def measure(self, images: Float[Tensor, "n c h w"], heatmaps: Maps, target: Target) -> Float[Tensor, " n"]:
        """Difference of each image."""
        deletion, insertion = self._areas(images, heatmaps, target)
        return insertion - deletion


class MoRFMinusLeRF(_CurveMetric):
    """Area between the deletion curves with the least and with the most relevant cells first, in [-1, 1].

    0 in expectation for a random map.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> metric = MoRFMinusLeRF(model, steps=4)
    >>> metric.update(torch.rand(2, 3, 4, 4), torch.rand(2, 2, 2))
    >>> tuple(metric.per_image().shape)
    (2,)

    Args:
        model: the model that was explained; it is no submodule of the metric.
        protocol: the name of one of :data:`~faithmap.metrics.PROTOCOLS`, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: what deleted cells become; None for the protocol's baseline.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images) of each update.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    kinds = (DELETION, LEAST_FIRST)
    higher_is_better: bool = True
    plot_lower_bound: float = -1.0

    def measure(self, images: Float[Tensor, "n c h w"], heatmaps: Maps, target: Target) -> Float[Tensor, " n"]:
        """Area between the two curves of each image."""
        most, least = self._areas(images, heatmaps, target)
        return least - most
