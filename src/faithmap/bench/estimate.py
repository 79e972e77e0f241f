"""Estimate passes, time and disk space of a plan before it is run.

An image takes the passes of the method, which the method estimates, and those of the metrics, which follow from their
settings. The time is their number times the seconds per pass, which are measured on the first image or given by the user.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.bench.plan import BenchPlan, PlannedMethod
from faithmap.methods.base import Passes
from faithmap.metrics.functional.curves import PROTOCOLS
from faithmap.metrics.functional.evidence import PANELS
from faithmap.metrics.functional.road import FRACTIONS
from faithmap.model import Classifier
from faithmap.selection.timing import PassTimes, clock_of
from faithmap.warning_types import suppressed

if TYPE_CHECKING:
    from faithmap.bench.spec import MetricSpec

FILE_BYTES, ROW_BYTES, CURVE_BYTES = 12_500, 200, 12
"""Measured bytes of a file without rows, of a row without its heatmap and curves, and of a point of the three curve columns."""

LAYER_CELLS = 14 * 14
"""Typical cells of a class activation map."""


@dataclass(frozen=True)
class MethodEstimate:
    """A method's estimate over all models and images.

    Attributes:
        method: its id.
        passes: per image, of the method; None if it cannot be estimated.
        metric_passes: per image, of the metrics.
        seconds: of all images, without the method's own passes if they are unknown; None if the time per pass is unknown.
        size: in bytes.
    """

    method: str
    passes: Passes | None
    metric_passes: Passes
    seconds: float | None
    size: int


@dataclass(frozen=True)
class Estimate:
    """Estimate of a plan."""

    units: int
    images: int
    methods: Sequence[MethodEstimate]

    @property
    def seconds(self) -> float | None:
        """On one device."""
        known = [method.seconds for method in self.methods]
        return None if None in known else sum(second for second in known if second is not None)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(method.size for method in self.methods)

    @property
    def passes(self) -> int:
        """Forward and backward passes of all images, without those that cannot be estimated."""
        each = ((method.passes or Passes(0, 0), method.metric_passes) for method in self.methods)
        return self.images * sum(sum(own) + sum(metrics) for own, metrics in each)


def estimate(plan: BenchPlan, size: tuple[int, int], paces: Mapping[str, PassTimes] | None = None) -> Estimate:
    """Estimate a plan.

    Args:
        plan: to be run.
        size: (height, width) of the model's input.
        paces: seconds per pass of each model, by its id; None leaves out the time.
    """
    images, models = len(plan.dataset), [model.id for model in plan.setup.models]
    estimates = []
    for method in plan.setup.methods:
        cells, height = cells_of(method, size), size[0]
        own = None if method.passes is None else Passes(*method.passes)
        metrics = metric_passes(plan.setup.metrics, own, cells, height)
        seconds = None
        if paces is not None:
            total = Passes(*(a + b for a, b in zip(own or (0, 0), metrics, strict=True)))
            seconds = images * sum(paces[model].seconds(total) for model in models)
        curve_points = sum(
            _steps(metric, cells, height) + 1 for metric in plan.setup.metrics if metric.name == "deletion_insertion"
        )
        row = ROW_BYTES + CURVE_BYTES * curve_points + 2 * cells
        disk = len(models) * (images * row + plan.dataset.shards * FILE_BYTES)
        estimates.append(MethodEstimate(method.id, own, metrics, seconds, disk))
    return Estimate(len(plan), images * len(models), estimates)


def measured_pace(model: Classifier, image: Float[Tensor, "1 c h w"], chunk_size: int) -> PassTimes:
    """Measure the seconds per pass of a model on its device."""
    with suppressed(), torch.no_grad():
        return PassTimes.measured(model, image, None, chunk_size, clock_of(image.device))


def given_pace(passes_per_second: float) -> PassTimes:
    """The pace for a number of passes per second, forward or backward."""
    return PassTimes(1 / passes_per_second, 1 / passes_per_second, {})


def cells_of(method: PlannedMethod, size: tuple[int, int]) -> int:
    """Approximate number of cells of a method's heatmap."""
    resolution = method.resolution or method.settings.get("resolution")
    if isinstance(resolution, (list, tuple)):
        return math.prod(resolution)
    if isinstance(resolution, int):
        return resolution**2
    return LAYER_CELLS if "target_layer" in method.settings else math.prod(size)


def metric_passes(metrics: Sequence[MetricSpec], own: Passes | None, cells: int, height: int) -> Passes:
    """Passes of all metrics for one image.

    Args:
        metrics: of the plan.
        own: passes of the method, which sensitivity repeats; None if unknown.
        cells: of the heatmap.
        height: of the model's input, in pixels.
    """
    forward = backward = 0
    for metric in metrics:
        settings: Mapping[str, Any] = metric.settings
        if metric.name == "deletion_insertion":
            forward += 2 * (_steps(metric, cells, height) + 1) + 1
        elif metric.name == "sensitivity":
            repeats = settings.get("draws", 10) + 1
            forward += repeats * (own.forward if own else 0)
            backward += repeats * (own.backward if own else 0)
        elif metric.name in ("grid_pointing_game", "difull", "planted_shortcut"):
            forward += 1 + (own.forward if own else 0)
            backward += own.backward if own else 0
        elif metric.name == "top_features":
            forward += 2 * (min(PROTOCOLS["igos"].steps or height, cells) + 1) + 2
        elif metric.name in _FORWARD:
            forward += _FORWARD[metric.name](settings)
        backward += settings.get("positions", 51) if metric.name == "saturation" else 0
    return Passes(forward, backward)


_FORWARD: Mapping[str, Callable[[Mapping[str, Any]], int]] = MappingProxyType(
    {
        "infidelity": lambda settings: int(settings.get("draws", 1000)) + 1,
        "road": lambda settings: 2 * len(settings.get("fractions", FRACTIONS)) + 1,
        "evidence": lambda settings: PANELS[settings.get("panel", "quick")].passes(),
        "saco": lambda settings: int(settings.get("groups", 10)) + 1,
        "confidence": lambda _: 2,
        "saturation": lambda settings: int(settings.get("positions", 51)) + 2,
    }
)
"""Forward passes for one image of the metrics that need their settings alone."""


def _steps(metric: MetricSpec, cells: int, height: int) -> int:
    """Removal steps of a deletion and insertion test."""
    protocol = PROTOCOLS[metric.settings.get("protocol", "igos")]
    if metric.settings.get("resolution"):
        cells = int(metric.settings["resolution"]) ** 2
    steps = metric.settings.get("steps") or protocol.steps or height
    return min(int(steps), cells) if protocol.unit == "cells" else int(steps)
