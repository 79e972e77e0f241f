"""Pace: what a pass of a model takes, measured on one photograph, and what a method will therefore take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.methods.base import Explainer, Passes
from faithmap.methods.cams.watching import watch
from faithmap.methods.controls import RandomMap
from faithmap.methods.gradients import Gradient
from faithmap.methods.registry import METHODS
from faithmap.model import undisturbed
from faithmap.score import Target, target_of

Clock = Callable[[], float]

TIMED = 4
"""Images in a timed pass on a processor, where more together are no faster."""


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
        """By a few passes over copies of one image, after one that is not timed."""
        count = chunk_size if image.device.type == "cuda" else min(TIMED, chunk_size)
        copies = image.expand(count, -1, -1, -1)
        asked = target_of(target, torch.zeros(count, dtype=torch.long, device=image.device))
        obstacles: dict[str, str] = {}

        def timed(explainer: Explainer) -> float:
            started = clock()
            explainer(copies, asked)
            return (clock() - started) / count

        plain, slope = RandomMap(model, resolution=2, chunk_size=count), Gradient(model, chunk_size=count)
        timed(plain)
        forward, backward = timed(plain), None
        try:
            backward = 0.0 * timed(slope)
        except (ValueError, NotImplementedError) as error:
            obstacles["gradient"] = str(error)
        try:
            with undisturbed(model):
                watch(model, None, None, image)
        except ValueError as error:
            obstacles["layer"] = str(error)
        return cls(forward, backward, obstacles)

    def obstacle(self, name: str) -> str | None:
        """Why a method of the registry cannot be used, if it cannot."""
        needs = METHODS[name].needs if name in METHODS else ()
        return next((self.obstacles[need] for need in needs if need in self.obstacles), None)

    def seconds(self, passes: Passes) -> float:
        """Of an image that takes so many."""
        return passes.forward * self.forward + passes.backward * (self.backward or 0.0)
