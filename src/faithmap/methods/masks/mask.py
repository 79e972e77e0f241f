r"""Mask: the objective of I-GOS, descended along its plain gradient (Fong and Vedaldi, ICCV 2017).

.. math:: M \leftarrow clip\bigl(Adam(M, \nabla F_\tau(M))\bigr)

where :math:`F_\tau` looks at the composed image shifted by :math:`\tau` pixels, drawn anew in every iteration: the jitter that
the paper adds against patterns that only fool the model at one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import REFERENCE_SIZE
from faithmap.methods.base import Passes, Progress
from faithmap.methods.masks.base import MaskOptimiser, Trace
from faithmap.probe import MaskedModel


class Jitter:
    """A shift of each composed image by whole pixels, what leaves on one side coming in on the other, drawn as above.

    Args:
        reach: largest shift down and across, in pixels at 224; scales with the shorter side.
        generators: one for each image.
    """

    def __init__(self, reach: int, generators: list[torch.Generator]) -> None:
        self.reach = reach
        self.generators = generators

    def __call__(self, z: Float[Tensor, "m c h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        """The images, shifted."""
        reach = round(self.reach * min(z.shape[-2:]) / REFERENCE_SIZE)
        shifts = [self._draw(image, reach) for image in index.tolist()]
        return torch.stack([row.roll(shift, dims=(1, 2)) for row, shift in zip(z, shifts, strict=True)])

    def _draw(self, image: int, reach: int) -> tuple[int, int]:
        generator = self.generators[image]
        down, across = torch.randint(-reach, reach + 1, (2,), generator=generator, device=generator.device).tolist()
        return down, across


@dataclass(eq=False)
class Mask(MaskOptimiser):
    """Meaningful perturbation.

    Args:
        iterations: all of them are done; the objective is not asked for between them.
        learning_rate: of Adam; the paper's public settings use 0.1.
        jitter: largest shift of the composed image down and across, in pixels at 224; what leaves on one side comes in on
            the other.

    The rest is explained at :class:`MaskOptimiser` and :class:`faithmap.methods.Explainer`. An image takes one forward and
    backward pass an iteration.
    """

    DEFAULT_LAMBDAS: ClassVar[tuple[float, float]] = (0.01, 0.2)
    """What Table 5 of the I-GOS paper, too, found best for Mask."""

    iterations: int = 500
    learning_rate: float = 0.1
    jitter: int = 4

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if self.learning_rate <= 0 or self.jitter < 0:
            raise ValueError("give a learning_rate above 0, and a jitter of at least 0 pixels")

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One an iteration, and the objective at the start and at the end, with the baseline alone."""
        del image
        return Passes(self.iterations + 3, self.iterations)

    def _optimise(
        self, masked: MaskedModel, generators: list[torch.Generator], progress: Progress
    ) -> tuple[Float[Tensor, "n r c"], Trace]:
        count = len(masked.images)
        everyone = torch.arange(count, device=masked.images.device)
        mask = masked.images.new_ones(count, *self.shape)
        optimiser = torch.optim.Adam([mask], lr=self.learning_rate)
        jitter = Jitter(self.jitter, generators)
        trace = Trace(count, self.iterations, masked.images)
        trace.record(0, everyone, mask, self._objective(masked, mask, everyone), self.regulariser)
        for iteration in range(1, self.iterations + 1):
            slope = masked.gradients(mask, everyone, torch.ones_like(mask[:, 0, 0]), jitter)
            mask.grad = slope + self.regulariser.gradient(mask)
            optimiser.step()
            mask.clamp_(0, 1)
            progress(iteration * count, self.iterations * count)
        mask.grad = None
        trace.record(self.iterations, everyone, mask, self._objective(masked, mask, everyone), self.regulariser)
        return mask, trace
