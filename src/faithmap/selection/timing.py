"""Pace: what a pass of a model takes, measured on one photograph, and what a method will therefore take.

A backward pass is what the gradient takes beside its two forward passes, its graph included. Of several measurements the
shortest counts: whatever else a machine does only makes them longer.
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
"""Images in a timed pass on a processor, where more together are no faster."""

REPEATS = 2
"""Measurements, after one that does not count: a first pass also prepares what the later ones find ready."""


def clock_of(device: torch.device) -> Clock:
    """Seconds; an accelerator's work is waited for."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


@dataclass(frozen=True)
class Pace:
    """Seconds that an image takes in a pass.

    Attributes:
        forward: of a forward pass.
        backward: of the backward pass behind it; None where the score has no gradient.
        obstacles: why needs of a method are not met, by their names in the registry.
    """

    forward: float
    backward: float | None
    obstacles: dict[str, str]

    @classmethod
    def measured(cls, model: nn.Module, image: Float[Tensor, "1 c h w"], target: Target, chunk_size: int, clock: Clock) -> Pace:
        """By a few passes over copies of one image."""
        count = chunk_size if image.device.type == "cuda" else min(TIMED, chunk_size)
        copies = image.expand(count, -1, -1, -1)
        asked = target_of(target, torch.zeros(count, dtype=torch.long, device=image.device))
        obstacles: dict[str, str] = {}

        def timed(explainer: Explainer) -> float:
            explainer(copies, asked)
            return min(once(explainer) for _ in range(REPEATS))

        def once(explainer: Explainer) -> float:
            started = clock()
            explainer(copies, asked)
            return (clock() - started) / count

        plain, slope = RandomMap(model, resolution=2, chunk_size=count), Gradient(model, chunk_size=count)
        forward, backward = timed(plain), None
        try:
            backward = max(0.0, timed(slope) - slope.passes(image).forward * forward)
        except (ValueError, NotImplementedError) as error:
            obstacles["gradient"] = str(error)
        try:
            with undisturbed(model):
                target_layers(model, None, None, image)
        except ValueError as error:
            obstacles["layer"] = str(error)
        return cls(forward, backward, obstacles)

    def obstacle(self, explainer: Explainer, image: Float[Tensor, "1 c h w"]) -> str | None:
        """Why a method cannot be used on the model, if that is known before it is run."""
        needs = {need for method in METHODS.values() if type(explainer) is method.explainer for need in method.needs}
        if getattr(explainer, "target_layer", None) is not None:
            needs -= {"layer"}  # it need not be found
        for need in sorted(needs & self.obstacles.keys()):
            return f"does not fit the model: {self.obstacles[need]}"
        try:
            explainer.check(image)
        except (ValueError, ModuleNotFoundError) as error:
            return f"cannot be run: {error}"
        return None

    def seconds(self, passes: Passes) -> float:
        """Of an image that takes so many."""
        return passes.forward * self.forward + passes.backward * (self.backward or 0.0)
