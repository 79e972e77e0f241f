"""Localisation, :mod:`faithmap.metrics.functional.localisation`, as torchmetrics classes.

.. code-block:: python

    metric = PointingGame(geometry=model.geometry)
    for annotated in VOCBoxes("VOC2007", "test"):
        image = model.preprocess(annotated.read())
        for name in annotated.classes:
            target = model.find(name)
            metric.update(explainer(image, target), [annotated.boxes(name)], [target], image_sizes=[annotated.size])
    metric.compute()                    # the mean over classes
    metric.per_class()                  # each class, by its number
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeAlias, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from faithmap.explanation import Explanation
from faithmap.metrics.base import HeatmapMetric, MetricSettings
from faithmap.metrics.functional.annotated_regions import Objects, Size
from faithmap.metrics.functional.localisation import (
    energy_pointing_game,
    pointing_accuracy,
    pointing_game,
    relevance_rank,
)
from faithmap.metrics.statistics import Interval, Paired, Summary, paired, per_class
from faithmap.model import Geometry
from faithmap.warning_types import renamed_parameters

Maps: TypeAlias = Explanation | Float[Tensor, "n r c"]
Classes: TypeAlias = int | Sequence[int] | Int[Tensor, " n"] | None

UNKNOWN_CLASS = -1


class _Localisation(HeatmapMetric):
    """Base of the localisation metrics: one value and one class per image; see the subclasses."""

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    classes: list[Tensor]

    def __init__(self, *, geometry: Geometry | None = None, **metric_settings: Unpack[MetricSettings]) -> None:
        super().__init__(**metric_settings)
        self.geometry = geometry
        self.add_state("classes", default=[], dist_reduce_fx="cat")

    @renamed_parameters(photos="image_sizes")
    def update(
        self, heatmaps: Maps, objects: Objects, target: Classes = None, image_sizes: Sequence[Size] | None = None
    ) -> None:
        """Measure more images.

        Args:
            heatmaps: of the model's inputs; a tensor of the maps alone, or an Explanation.
            objects: the boxes (k, 4) of each image's explained class, or its masks (k, H, W), in pixels of the original image.
            target: the class of each image; None for the Explanation's target.
            image_sizes: (height, width) of each original image; not needed for masks, nor if the original image was explained.
        """
        classes = self._classes(heatmaps, target)
        values = self.measure(heatmaps, objects, image_sizes)
        self.values.append(values)
        self.classes.append(classes.to(values.device))

    @abstractmethod
    def measure(self, heatmaps: Maps, objects: Objects, image_sizes: Sequence[Size] | None) -> Float[Tensor, " n"]:
        """The value of each image.

        Args:
            heatmaps: as for ``update``.
            objects: as for ``update``.
            image_sizes: as for ``update``.
        """

    def per_class(self) -> dict[int, Summary]:
        """Mean, standard error and number of images of each class.

        Raises:
            ValueError: before the first update, or if the class of an image is unknown.
        """
        values, classes = self._with_classes()
        if bool((classes == UNKNOWN_CLASS).any()):
            raise ValueError(f"{type(self).__name__} does not know the class of every image; give update a target")
        return per_class(values, classes)

    def _with_classes(self) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
        if self._is_synced:
            return self._all_values(), dim_zero_cat(self.classes)
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync):
            return self._all_values(), dim_zero_cat(self.classes)

    def _classes(self, heatmaps: Maps, target: Classes) -> Int[Tensor, " n"]:
        known = heatmaps.target if target is None and isinstance(heatmaps, Explanation) else target
        classes = torch.as_tensor(UNKNOWN_CLASS if known is None else known)
        if classes.ndim == 0:
            classes = classes.expand(len(heatmaps))
        if classes.shape != (len(heatmaps),) or classes.is_floating_point():
            raise ValueError(f"targets have shape {tuple(classes.shape)} for {len(heatmaps)} images; give one class per image")
        return classes.long()


class PointingGame(_Localisation):
    """Mean over classes of the share of images whose heatmap points at the object, in [0, 1].

    >>> heatmaps = torch.zeros(2, 40, 40)
    >>> heatmaps[:, 5, 5] = 1.0
    >>> metric = PointingGame()
    >>> metric.update(heatmaps, [torch.tensor([[0, 0, 10, 10]]), torch.tensor([[30, 30, 40, 40]])], [3, 3])
    >>> metric.compute()
    tensor(0.5000)

    Args:
        tolerance: in pixels of the original image, at least 0; 0 counts only hits inside the object.
        geometry: ``model.geometry`` if the model's inputs were resized and cropped from the original images; None if the
            heatmap covers the whole original image.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    def __init__(
        self, *, tolerance: float = 15.0, geometry: Geometry | None = None, **metric_settings: Unpack[MetricSettings]
    ) -> None:
        super().__init__(geometry=geometry, **metric_settings)
        self.tolerance = tolerance

    def measure(self, heatmaps: Maps, objects: Objects, image_sizes: Sequence[Size] | None) -> Float[Tensor, " n"]:
        """1 for each hit, 0 for each miss."""
        hits = pointing_game(heatmaps, objects, tolerance=self.tolerance, image_sizes=image_sizes, geometry=self.geometry)
        return hits.float()

    def compute(self) -> Float[Tensor, ""]:
        """The mean over classes of hits / (hits + misses)."""
        return pointing_accuracy(*self._with_classes())

    def interval(self, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
        """Bootstrap interval of the mean over classes; images are resampled within each class.

        The number of hits among images drawn with replacement from a class is binomial, and is drawn as such.

        Args:
            level: of confidence, in (0, 1).
            resamples: number of bootstrap samples.
            seed: of the samples.
        """
        if not 0 < level < 1 or resamples < 1:
            raise ValueError(f"level is {level}, resamples {resamples}; give a level between 0 and 1, and at least 1 resample")
        values, classes = self._with_classes()
        _, members, counts = classes.unique(return_inverse=True, return_counts=True)
        counts = counts.double().expand(resamples, -1)
        shares = torch.zeros_like(counts[0]).index_add(0, members, values.double()) / counts[0]
        generator = torch.Generator(values.device).manual_seed(seed)
        means = (torch.binomial(counts, shares.expand(resamples, -1), generator) / counts).mean(dim=1)
        ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=means.dtype, device=means.device)
        low, high = means.quantile(ends).tolist()
        return Interval(low, high, level)

    def paired_with(self, other: HeatmapMetric) -> Paired:
        """Difference of both means over classes, on the same images, with a test of whether it differs from 0.

        Args:
            other: a PointingGame that was updated with the same images in the same order.

        Raises:
            TypeError: if the other is no PointingGame.
            ValueError: for other classes or another number of images.
        """
        if not isinstance(other, PointingGame):
            raise TypeError(f"a pointing game cannot be paired with {type(other).__name__}; give another PointingGame")
        (own, classes), (others, other_classes) = self._with_classes(), other._with_classes()
        if not torch.equal(classes, other_classes):
            raise ValueError("the two metrics have different images or classes; update both with the same, in the same order")
        _, members, counts = classes.unique(return_inverse=True, return_counts=True)
        weights = len(classes) / (len(counts) * counts[members])  # the mean over images becomes the mean over classes
        return paired(own * weights, others * weights)

    def _classes(self, heatmaps: Maps, target: Classes) -> Int[Tensor, " n"]:
        classes = super()._classes(heatmaps, target)
        if bool((classes == UNKNOWN_CLASS).any()):
            raise ValueError("the pointing game is evaluated per class; give a target, or an Explanation that has one")
        return classes


class EnergyPointingGame(_Localisation):
    """Mean share of the positive mass that lies on the object, in [0, 1].

    >>> metric = EnergyPointingGame()
    >>> metric.update(torch.ones(1, 10, 10), torch.tensor([[0, 0, 5, 5]]))
    >>> metric.compute()
    tensor(0.2500)

    Args:
        geometry: ``model.geometry`` if the model's inputs were resized and cropped from the original images; None if the
            heatmap covers the whole original image.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    def measure(self, heatmaps: Maps, objects: Objects, image_sizes: Sequence[Size] | None) -> Float[Tensor, " n"]:
        """Share of each image."""
        return energy_pointing_game(heatmaps, objects, image_sizes=image_sizes, geometry=self.geometry)


class RelevanceRank(_Localisation):
    """Mean share of the highest pixels, as many as the object has, that lie in the object; in [0, 1].

    >>> metric = RelevanceRank()
    >>> metric.update(torch.tensor([[[4.0, 3.0], [2.0, 1.0]]]), torch.tensor([[0, 0, 1, 2]]))
    >>> metric.compute()
    tensor(0.5000)

    Args:
        geometry: ``model.geometry`` if the model's inputs were resized and cropped from the original images; None if the
            heatmap covers the whole original image.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    def measure(self, heatmaps: Maps, objects: Objects, image_sizes: Sequence[Size] | None) -> Float[Tensor, " n"]:
        """Share of each image."""
        return relevance_rank(heatmaps, objects, image_sizes=image_sizes, geometry=self.geometry)
