"""HeatmapMetric: a torchmetrics ``Metric`` whose state is one value for each image.

.. code-block:: python

    metric = Deletion(model)
    for images, target in loader:
        metric.update(images, explainer(images, target))
    metric.compute()                    # the mean over all images
    metric.per_image()                  # every value, in the order that they came
    metric.interval()                   # where the mean lies, by bootstrap
    metric.paired_with(other)           # two explainers on the same images

Per-image values are concatenated over batches and processes, so that no result depends on how the images were batched.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from faithmap.explanation import Explanation
from faithmap.metrics.statistics import Interval, Paired, bootstrap, paired
from faithmap.score import Target
from faithmap.seeds import image_generators

OF_TORCHMETRICS = frozenset(
    {
        "compute_on_cpu",
        "compute_with_cache",
        "dist_sync_fn",
        "dist_sync_on_step",
        "distributed_available_fn",
        "process_group",
        "sync_on_compute",
    }
)


class HeatmapMetric(Metric):
    """Base of the metrics: subclasses append each image's value to ``values`` in ``update``.

    Args:
        settings: torchmetrics' own, such as ``sync_on_compute`` and ``dist_sync_on_step``.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    values: list[Tensor]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._before = 0
        self.add_state("values", default=[], dist_reduce_fx="cat")
        # NaN equals nothing: a MetricCollection merges metrics whose states agree on the first batch, and two of ours may
        self.add_state("unlike_any_other", default=torch.tensor(torch.nan), dist_reduce_fx="max")

    def forward(self, *data: Any, **named: Any) -> Any:
        """Update, and return the mean over these images alone."""
        self._before = self._count()
        try:
            return super().forward(*data, **named)
        finally:
            self._before = 0

    def compute(self) -> Float[Tensor, ""]:
        """The mean over all images."""
        return self.per_image().mean()

    def per_image(self) -> Float[Tensor, " n"]:
        """Every image's value, in the order of the updates; of all processes, one rank after the other.

        Raises:
            ValueError: before the first update.
        """
        if self._is_synced:
            return self._together()
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync):
            return self._together()

    def interval(self, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
        """Where the mean lies with that confidence, by bootstrap over the images."""
        return bootstrap(self.per_image(), level=level, resamples=resamples, seed=seed)

    def paired_with(self, other: HeatmapMetric) -> Paired:
        """This metric's values minus another's of the same images, with a test of whether the mean differs from 0."""
        return paired(self.per_image(), other.per_image())

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """The value, or several of them over time, as torchmetrics draws them: a matplotlib figure and its axes.

        Scores of a callable target can lie outside the bounds of a probability's; they are shown all the same.
        """
        axes: Any
        figure, axes = self._plot(val, ax)
        (low, high), shown = axes.get_ylim(), axes.dataLim
        axes.set_ylim(min(low, shown.ymin), max(high, shown.ymax))
        return figure, axes

    def _count(self) -> int:
        return self._before + sum(map(len, self.values))

    def _together(self) -> Float[Tensor, " n"]:
        if isinstance(self.values, list) and not self.values:
            raise ValueError(f"{type(self).__name__} has seen no images; call update first")
        return dim_zero_cat(self.values)


class ModelMetric(HeatmapMetric):
    """Base of the metrics that ask a model.

    Args:
        model: as it was explained. It is no part of the metric: ``to``, ``train`` and ``state_dict`` leave it alone.
        settings: of the function that measures, by keyword; and torchmetrics' own.

    Raises:
        TypeError: for a setting that neither of the two has.
    """

    known: ClassVar[frozenset[str]] = frozenset()
    model: nn.Module

    def __init__(self, model: nn.Module, **settings: Any) -> None:
        unknown = settings.keys() - self.known - OF_TORCHMETRICS
        if unknown:
            known = ", ".join(sorted(self.known))
            raise TypeError(f"{type(self).__name__} has no setting {min(unknown)!r}; its settings are {known}")
        super().__init__(**{name: value for name, value in settings.items() if name not in self.known})
        self.__dict__["model"] = model  # past nn.Module's bookkeeping, which would make it a part
        self.settings = {name: value for name, value in settings.items() if name in self.known}

    def update(
        self, images: Float[Tensor, "n c h w"], heatmaps: Explanation | Float[Tensor, "n r c"], target: Target = None
    ) -> None:
        """Measure some more images; arguments as those of the function."""
        self.values.append(self.measure(images, heatmaps, target))

    @abstractmethod
    def measure(
        self, images: Float[Tensor, "n c h w"], heatmaps: Explanation | Float[Tensor, "n r c"], target: Target
    ) -> Float[Tensor, " n"]:
        """Each image's value."""

    def generators(self, count: int, device: torch.device) -> list[torch.Generator]:
        """Of the next images, counted from the first that this metric saw: no draw depends on how they are batched."""
        seen = self._count()
        return image_generators(self.settings.get("seed", 0), range(seen, seen + count), device)


def keywords_of(function: Callable[..., Any]) -> frozenset[str]:
    """The names of a function's keyword-only parameters: the settings of a metric."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
