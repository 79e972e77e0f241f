"""HeatmapMetric and ModelMetric: torchmetrics classes whose state is one value per image.

.. code-block:: python

    metric = Deletion(model)
    for images, target in loader:
        metric.update(images, explainer(images, target))
    metric.compute()                    # the mean over all images
    metric.per_image()                  # every value, in the order of the updates
    metric.interval()                   # bootstrap interval of the mean
    metric.paired_with(other)           # two explainers on the same images

Per-image values are concatenated over batches and processes, so that no result depends on the batches.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from faithmap.explanation import Explanation
from faithmap.metrics.statistics import Interval, Paired, bootstrap, paired
from faithmap.score import Target
from faithmap.seeds import image_generators


class MetricSettings(TypedDict, total=False):
    """Settings of every torchmetrics ``Metric``.

    >>> settings: MetricSettings = {"sync_on_compute": False}

    Attributes:
        compute_on_cpu: move the state to the CPU after each update.
        compute_with_cache: compute once for the same state; True by default.
        dist_sync_on_step: synchronise processes in ``forward``; False by default.
        dist_sync_fn: gathers a state from all processes; None for ``torch.distributed.all_gather``.
        distributed_available_fn: whether to synchronise at all; None to ask ``torch.distributed``.
        process_group: the processes that synchronise; None for all.
        sync_on_compute: synchronise processes in ``compute``; True by default.
    """

    compute_on_cpu: bool
    compute_with_cache: bool
    dist_sync_on_step: bool
    dist_sync_fn: Callable[..., Any] | None
    distributed_available_fn: Callable[[], bool] | None
    process_group: Any
    sync_on_compute: bool


class HeatmapMetric(Metric):
    """Base of all metrics: ``update`` of a subclass appends one value per image to ``values``.

    >>> class Brightness(HeatmapMetric):
    ...     def update(self, heatmaps): self.values.append(heatmaps.mean(dim=(1, 2)))
    >>> metric = Brightness()
    >>> metric.update(torch.ones(2, 4, 4))
    >>> metric.update(torch.zeros(1, 4, 4))
    >>> metric.compute(), metric.per_image()
    (tensor(0.6667), tensor([1., 1., 0.]))

    Args:
        metric_settings: of torchmetrics, see :class:`MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    values: list[Tensor]

    def __init__(self, **metric_settings: Unpack[MetricSettings]) -> None:
        unknown = metric_settings.keys() - MetricSettings.__annotations__.keys()
        if unknown:
            parameters = inspect.signature(type(self)).parameters.values()
            known = ", ".join(sorted(p.name for p in parameters if p.kind is not p.VAR_KEYWORD))
            raise TypeError(f"{type(self).__name__} has no setting {min(unknown)!r}; its settings are {known}")
        super().__init__(**metric_settings)
        self._images_before_forward = 0
        self.add_state("values", default=[], dist_reduce_fx="cat")
        # NaN equals no other value: a MetricCollection merges metrics whose states are equal after the first batch, which two
        # of these may be
        self.add_state("never_equal", default=torch.tensor(torch.nan), dist_reduce_fx="max")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Update, and return the mean over the images of this call."""
        self._images_before_forward = self._image_count()
        try:
            return super().forward(*args, **kwargs)
        finally:
            self._images_before_forward = 0

    def compute(self) -> Float[Tensor, ""]:
        """The mean over all images."""
        return self.per_image().mean()

    def per_image(self) -> Float[Tensor, " n"]:
        """The value of every image, in the order of the updates; of all processes, one rank after the other.

        Raises:
            ValueError: before the first update.
        """
        if self._is_synced:
            return self._all_values()
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync):
            return self._all_values()

    def interval(self, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
        """Bootstrap interval of the mean over the images.

        Args:
            level: of confidence, in (0, 1).
            resamples: number of bootstrap samples.
            seed: of the samples.
        """
        return bootstrap(self.per_image(), level=level, resamples=resamples, seed=seed)

    def paired_with(self, other: HeatmapMetric) -> Paired:
        """This metric's values minus another's on the same images, with a test of whether the mean differs from 0.

        Args:
            other: updated with the same images in the same order.
        """
        return paired(self.per_image(), other.per_image())

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """The value, or several of them over time, drawn by torchmetrics: a matplotlib figure and its axes.

        The limits are extended for scores of a callable target that lie outside the metric's own limits.

        Args:
            val: one value or a sequence of values; None for the metric's own value.
            ax: matplotlib axes to draw on; None for new ones.
        """
        axes: Any
        figure, axes = self._plot(val, ax)
        (low, high), drawn = axes.get_ylim(), axes.dataLim
        axes.set_ylim(min(low, drawn.ymin), max(high, drawn.ymax))
        return figure, axes

    def _image_count(self) -> int:
        """Images since the last reset."""
        return self._images_before_forward + sum(map(len, self.values))

    def _next_generators(self, seed: int, count: int, device: torch.device) -> list[torch.Generator]:
        """One generator per image of this update, by the index of the image since the last reset."""
        start = self._image_count()
        return image_generators(seed, range(start, start + count), device)

    def _all_values(self) -> Float[Tensor, " n"]:
        if isinstance(self.values, list) and not self.values:
            raise ValueError(f"{type(self).__name__} has no images; call update first")
        return dim_zero_cat(self.values)


class ModelMetric(HeatmapMetric):
    """Base of the metrics that evaluate a model: a subclass implements ``measure``.

    >>> class CleanScore(ModelMetric):
    ...     def measure(self, images, heatmaps, target): return self.model(images).softmax(dim=1).amax(dim=1)
    >>> metric = CleanScore(nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5)))
    >>> metric.update(torch.rand(2, 3, 4, 4), torch.rand(2, 4, 4))
    >>> tuple(metric.per_image().shape)
    (2,)

    Args:
        model: the model that was explained. It is no submodule of the metric: ``to``, ``train`` and ``state_dict`` of the
            metric do not affect it.
        metric_settings: of torchmetrics, see :class:`MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    model: nn.Module

    def __init__(self, model: nn.Module, **metric_settings: Unpack[MetricSettings]) -> None:
        super().__init__(**metric_settings)
        self.__dict__["model"] = model  # nn.Module would register it as a submodule

    def update(
        self, images: Float[Tensor, "n c h w"], heatmaps: Explanation | Float[Tensor, "n r c"], target: Target = None
    ) -> None:
        """Measure more images.

        Args:
            images: the images that were explained.
            heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
            target: the class whose score is measured, or a callable; None for the Explanation's target, or else the predicted
                class.
        """
        self.values.append(self.measure(images, heatmaps, target))

    @abstractmethod
    def measure(
        self, images: Float[Tensor, "n c h w"], heatmaps: Explanation | Float[Tensor, "n r c"], target: Target
    ) -> Float[Tensor, " n"]:
        """The value of each image.

        Args:
            images: as for ``update``.
            heatmaps: as for ``update``.
            target: as for ``update``.
        """
