"""Estimate: passes, hours and disk of a plan, before anything of it is run.

An image takes the method's passes, which it foretells, and those of the metrics, which follow from their settings. Hours are
these times what a pass takes: measured on the first image, or given as passes a second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.bench.plan import BenchPlan, PlannedMethod
from faithmap.methods.base import Passes
from faithmap.metrics.functional.curves import PROTOCOLS
from faithmap.metrics.functional.road import FRACTIONS
from faithmap.model import Classifier
from faithmap.selection.timing import Pace, clock_of
from faithmap.warning_types import suppressed

if TYPE_CHECKING:
    from faithmap.bench.spec import MetricSpec

FILE_BYTES, ROW_BYTES, CURVE_BYTES = 12_500, 200, 12
"""Of a file without rows, of a row without its heatmap and curves, and of a point of the three curves; measured."""

LAYER_CELLS = 14 * 14
"""Of a class activation map, about."""


@dataclass(frozen=True)
class MethodEstimate:
    """What a method takes, over all models and images.

    Attributes:
        method: its id.
        passes: that an image takes for the map; None where the method does not foretell them.
        judging: that an image takes for the metrics.
        seconds: for all images; without the method's own passes where they are not known. None where no pace is known.
        size: in bytes.
    """

    method: str
    passes: Passes | None
    judging: Passes
    seconds: float | None
    size: int


@dataclass(frozen=True)
class Estimate:
    """Of a plan."""

    units: int
    images: int
    parts: Sequence[MethodEstimate]

    @property
    def seconds(self) -> float | None:
        """On one device."""
        known = [part.seconds for part in self.parts]
        return None if None in known else sum(second for second in known if second is not None)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(part.size for part in self.parts)

    @property
    def passes(self) -> int:
        """Forward and backward, of all images; those that are foretold."""
        each = ((part.passes or Passes(0, 0), part.judging) for part in self.parts)
        return self.images * sum(sum(own) + sum(judging) for own, judging in each)


def estimate(plan: BenchPlan, size: tuple[int, int], paces: Mapping[str, Pace] | None = None) -> Estimate:
    """What a plan takes.

    Args:
        plan: to be run.
        size: (height, width) of what a model sees.
        paces: of each model, by its id; None leaves the time out.
    """
    images, models = len(plan.items), [model.id for model in plan.setup.models]
    parts = []
    for method in plan.setup.methods:
        own = None if method.passes is None else Passes(*method.passes)
        judging = metric_passes(plan.setup.metrics, own, cells_of(method, size), size[0])
        seconds = None
        if paces is not None:
            whole = Passes(*(a + b for a, b in zip(own or (0, 0), judging, strict=True)))
            seconds = images * sum(paces[model].seconds(whole) for model in models)
        cells, games = cells_of(method, size), [m for m in plan.setup.metrics if m.name == "deletion_insertion"]
        points = sum(_steps(game, cells, size[0]) + 1 for game in games)
        row = ROW_BYTES + CURVE_BYTES * points + 2 * cells
        disk = len(models) * (images * row + plan.items.shards * FILE_BYTES)
        parts.append(MethodEstimate(method.id, own, judging, seconds, disk))
    return Estimate(len(plan), images * len(models), parts)


def measured_pace(model: Classifier, image: Float[Tensor, "1 c h w"], chunk_size: int) -> Pace:
    """What a pass of the model takes here, by a few of them."""
    with suppressed(), torch.no_grad():
        return Pace.measured(model, image, None, chunk_size, clock_of(image.device))


def given_pace(passes_per_second: float) -> Pace:
    """A pace that the user knows; a backward pass is counted like a forward one."""
    return Pace(1 / passes_per_second, 1 / passes_per_second, {})


def cells_of(method: PlannedMethod, size: tuple[int, int]) -> int:
    """Of a method's map, about."""
    resolution = method.resolution or method.settings.get("resolution")
    if isinstance(resolution, (list, tuple)):
        return math.prod(resolution)
    if isinstance(resolution, int):
        return resolution**2
    return LAYER_CELLS if "target_layer" in method.settings else math.prod(size)


def metric_passes(metrics: Sequence[MetricSpec], own: Passes | None, cells: int, height: int) -> Passes:
    """Of all metrics, for one image of that height whose map has so many cells."""
    forward = backward = 0
    for metric in metrics:
        asked: Mapping[str, Any] = metric.settings
        if metric.name == "deletion_insertion":
            forward += 2 * (_steps(metric, cells, height) + 1) + 1
        elif metric.name == "infidelity":
            forward += asked.get("draws", 1000) + 1
        elif metric.name == "sensitivity":
            again = asked.get("draws", 10) + 1
            forward, backward = forward + again * (own.forward if own else 0), backward + again * (own.backward if own else 0)
        elif metric.name == "road":
            forward += 2 * len(asked.get("fractions", FRACTIONS)) + 1
        elif metric.name == "confidence":
            forward += 2
        elif metric.name == "saturation":
            forward, backward = forward + asked.get("positions", 51) + 2, backward + asked.get("positions", 51)
    return Passes(forward, backward)


def _steps(metric: MetricSpec, cells: int, height: int) -> int:
    """Points of a curve, less one."""
    protocol = PROTOCOLS[metric.settings.get("protocol", "igos")]
    if metric.settings.get("resolution"):
        cells = int(metric.settings["resolution"]) ** 2
    wanted = metric.settings.get("steps") or protocol.steps or height
    return min(int(wanted), cells) if protocol.unit == "cells" else int(wanted)
