"""Timing: seconds per pass of a model, measured on one image, and the estimated time of a method.

The time of a backward pass is that of a gradient minus its two forward passes. The shortest of several measurements is used,
because other programs only make them longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.layers import target_layers
from faithmap.methods.base import Explainer, Passes
from faithmap.methods.controls import RandomMap
from faithmap.methods.gradients import Gradient
from faithmap.methods.registry import METHODS
from faithmap.model import undisturbed
from faithmap.score import Target, target_of

Clock = Callable[[], float]

TIMED = 4
"""Images in a timed pass on a CPU, where larger batches are not faster."""

REPEATS = 2
"""Number of measurements, after one that does not count, because a first pass includes preparations."""


def clock_of(device: torch.device) -> Clock:
    """A clock in seconds that waits for the work of an accelerator."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


@dataclass(frozen=True)
class PassTimes:
    """Seconds per image of a forward and of a backward pass.

    Attributes:
        forward: seconds of a forward pass.
        backward: seconds of a backward pass; None if the score has no gradient.
        obstacles: name of each need of a method that the model does not meet, to the reason.
    """

    forward: float
    backward: float | None
    obstacles: dict[str, str]

    @classmethod
    def measured(
        cls, model: nn.Module, image: Float[Tensor, "1 c h w"], target: Target, chunk_size: int, clock: Clock
    ) -> PassTimes:
        """Measure a few passes over copies of one image."""
        count = chunk_size if image.device.type == "cuda" else min(TIMED, chunk_size)
        copies = image.expand(count, -1, -1, -1)
        copied_target = target_of(target, torch.zeros(count, dtype=torch.long, device=image.device))
        obstacles: dict[str, str] = {}

        def timed(explainer: Explainer) -> float:
            explainer(copies, copied_target)
            return min(once(explainer) for _ in range(REPEATS))

        def once(explainer: Explainer) -> float:
            started = clock()
            explainer(copies, copied_target)
            return (clock() - started) / count

        random_map, gradient = RandomMap(model, resolution=2, chunk_size=count), Gradient(model, chunk_size=count)
        forward, backward = timed(random_map), None
        try:
            backward = max(0.0, timed(gradient) - gradient.passes(image).forward * forward)
        except (ValueError, NotImplementedError) as error:
            obstacles["gradient"] = str(error)
        try:
            with undisturbed(model):
                target_layers(model, None, None, image)
        except ValueError as error:
            obstacles["layer"] = str(error)
        return cls(forward, backward, obstacles)

    def obstacle(self, explainer: Explainer, image: Float[Tensor, "1 c h w"]) -> str | None:
        """The reason if a method cannot explain the model, as far as it is known beforehand; otherwise None."""
        needs = {need for method in METHODS.values() if type(explainer) is method.explainer for need in method.needs}
        if getattr(explainer, "target_layer", None) is not None:
            needs -= {"layer"}  # the layer is given
        for need in sorted(needs & self.obstacles.keys()):
            return f"does not fit the model: {self.obstacles[need]}"
        try:
            explainer.check(image)
        except (ValueError, ModuleNotFoundError) as error:
            return f"cannot be run: {error}"
        return None

    def seconds(self, passes: Passes) -> float:
        """Estimated time of an image that takes these passes."""
        return passes.forward * self.forward + passes.backward * (self.backward or 0.0)
