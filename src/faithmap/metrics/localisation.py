"""Localisation, :mod:`faithmap.metrics.functional.localisation`, as torchmetrics classes.

.. code-block:: python

    metric = PointingGame(geometry=model.geometry)
    for photo in VOCBoxes("VOC2007", "test"):
        image = model.preprocess(photo.read())
        for name in photo.classes:
            target = model.find(name)
            metric.update(explainer(image, target), [photo.boxes(name)], [target], photos=[photo.size])
    metric.compute()                    # the mean over classes
    metric.per_class()                  # each class, by its number
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from faithmap.explanation import Explanation
from faithmap.geometry import Geometry
from faithmap.metrics.base import HeatmapMetric
from faithmap.metrics.functional.localisation import (
    energy_pointing_game,
    pointing_accuracy,
    pointing_game,
    relevance_rank,
)
from faithmap.metrics.functional.photographs import Objects, Size
from faithmap.metrics.statistics import Interval, Paired, Summary, paired, per_class

Maps = Explanation | Float[Tensor, "n r c"]
Classes = int | Sequence[int] | Int[Tensor, " n"] | None

UNKNOWN = -1
"""Stands for a class that nobody named."""


class _Localisation(HeatmapMetric):
    """Base: a value for each image, and the class that was looked for.

    Args:
        geometry: how the model was shown the photographs, ``model.geometry``; None where it saw all of each.
        settings: torchmetrics' own.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    classes: list[Tensor]

    def __init__(self, *, geometry: Geometry | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.geometry = geometry
        self.add_state("classes", default=[], dist_reduce_fx="cat")

    def update(self, heatmaps: Maps, objects: Objects, target: Classes = None, photos: Sequence[Size] | None = None) -> None:
        """Measure some more images.

        Args:
            heatmaps: as for :func:`faithmap.metrics.functional.pointing_game`.
            objects: likewise; those of the class that each heatmap explains.
            target: the class of each image; None for the Explanation's.
            photos: (height, width) of each photograph, as for the function.
        """
        classes = self._classes(heatmaps, target)
        values = self.measure(heatmaps, objects, photos)
        self.values.append(values)
        self.classes.append(classes.to(values.device))

    @abstractmethod
    def measure(self, heatmaps: Maps, objects: Objects, photos: Sequence[Size] | None) -> Float[Tensor, " n"]:
        """Each image's value."""

    def per_class(self) -> dict[int, Summary]:
        """Mean, standard error and number of images of each class.

        Raises:
            ValueError: before the first update, or where no class was given.
        """
        values, classes = self._with_classes()
        if bool((classes == UNKNOWN).any()):
            raise ValueError(f"{type(self).__name__} was not told every image's class; give update a target")
        return per_class(values, classes)

    def _with_classes(self) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
        if self._is_synced:
            return self._together(), dim_zero_cat(self.classes)
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync):
            return self._together(), dim_zero_cat(self.classes)

    def _classes(self, heatmaps: Maps, target: Classes) -> Int[Tensor, " n"]:
        known = heatmaps.target if target is None and isinstance(heatmaps, Explanation) else target
        classes = torch.as_tensor(UNKNOWN if known is None else known)
        if classes.ndim == 0:
            classes = classes.expand(len(heatmaps))
        if classes.shape != (len(heatmaps),) or classes.is_floating_point():
            raise ValueError(f"targets have shape {tuple(classes.shape)} for {len(heatmaps)} images; give one class per image")
        return classes.long()


class PointingGame(_Localisation):
    """Mean over classes of the share of images whose heatmap points at the object, in [0, 1].

    Args:
        tolerance: in pixels of the photograph; 0 asks for inside.
        geometry: how the model was shown the photographs; None where it saw all of each.
        settings: torchmetrics' own.
    """

    def __init__(self, *, tolerance: float = 15.0, geometry: Geometry | None = None, **settings: Any) -> None:
        super().__init__(geometry=geometry, **settings)
        self.tolerance = tolerance

    def measure(self, heatmaps: Maps, objects: Objects, photos: Sequence[Size] | None) -> Float[Tensor, " n"]:
        """1 for each hit, 0 for each miss."""
        hits = pointing_game(heatmaps, objects, tolerance=self.tolerance, photos=photos, geometry=self.geometry)
        return hits.float()

    def compute(self) -> Float[Tensor, ""]:
        """The mean over classes of hits / (hits + misses)."""
        return pointing_accuracy(*self._with_classes())

    def interval(self, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
        """Where the mean over classes lies, by bootstrap over the images within each class.

        The hits among images drawn with replacement from a class are binomial, and are drawn as such.
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
        """The difference of both means over classes, on the same images, with a test of whether it differs from 0.

        Raises:
            TypeError: where the other is no pointing game.
            ValueError: where it saw other classes or another number of images.
        """
        if not isinstance(other, PointingGame):
            raise TypeError(f"a pointing game cannot be paired with {type(other).__name__}; give another PointingGame")
        (own, classes), (others, same) = self._with_classes(), other._with_classes()
        if not torch.equal(classes, same):
            raise ValueError("the two games saw different images or classes; show both the same, in the same order")
        _, members, counts = classes.unique(return_inverse=True, return_counts=True)
        weights = len(classes) / (len(counts) * counts[members])  # makes a mean over images one over classes
        return paired(own * weights, others * weights)

    def _classes(self, heatmaps: Maps, target: Classes) -> Int[Tensor, " n"]:
        classes = super()._classes(heatmaps, target)
        if bool((classes == UNKNOWN).any()):
            raise ValueError("the pointing game is scored by class; give a target, or an Explanation that has one")
        return classes


class EnergyPointingGame(_Localisation):
    """Mean share of the positive mass that lies on the object, in [0, 1]."""

    def measure(self, heatmaps: Maps, objects: Objects, photos: Sequence[Size] | None) -> Float[Tensor, " n"]:
        """Each image's share."""
        return energy_pointing_game(heatmaps, objects, photos=photos, geometry=self.geometry)


class RelevanceRank(_Localisation):
    """Mean share of the top pixels, as many as the object has, that lie in it; in [0, 1]."""

    def measure(self, heatmaps: Maps, objects: Objects, photos: Sequence[Size] | None) -> Float[Tensor, " n"]:
        """Each image's share."""
        return relevance_rank(heatmaps, objects, photos=photos, geometry=self.geometry)
