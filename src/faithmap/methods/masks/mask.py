r"""Mask: the objective of I-GOS, optimised along its plain gradient (Fong and Vedaldi, ICCV 2017).

.. math:: M \leftarrow clip\bigl(Adam(M, \nabla F_\tau(M))\bigr)

where :math:`F_\tau` sees the composed image shifted by :math:`\tau` pixels, drawn anew in every iteration: the jitter that the
paper adds against patterns that only mislead the model at one position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Unit
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import REFERENCE_SIZE
from faithmap.methods.base import Passes, Progress
from faithmap.methods.masks.base import MaskOptimiser, Objective, Trace
from faithmap.probe import MaskProbe


class Jitter:
    """A shift of each composed image by whole pixels, cyclic, drawn for one after the other by its image's own generator.

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
    """Mask, also known as meaningful perturbation.

    Args:
        iterations: at least 1; all of them are done. The objective is evaluated at the start and at the end.
        learning_rate: of Adam, above 0; the paper's public settings use 0.1.
        jitter: largest shift of the composed image down and across, in pixels at 224, at least 0; cyclic.

    An image takes one forward and one backward pass in each iteration.

    >>> class Corner(torch.nn.Module):
    ...     def forward(self, images):
    ...         brightness = images[:, :, :8, :8].mean(dim=(1, 2, 3))
    ...         return torch.stack([12 * brightness - 6, 6 - 12 * brightness], dim=1)
    >>> explanation = Mask(Corner(), resolution=4, iterations=20, baseline="black")(torch.full((1, 3, 32, 32), 0.9), 0)
    >>> bool(explanation.heatmap[0, 0, 0] == explanation.heatmap.max())
    True
    """

    title: ClassVar[str] = "Mask"
    DEFAULT_LAMBDAS: ClassVar[tuple[float, float]] = (0.01, 0.2)
    """Table 5 of the I-GOS paper names these as best for Mask, too."""

    iterations: Annotated[int, Ge(1)] = 500
    learning_rate: Annotated[float, Gt(0)] = 0.1
    jitter: Annotated[int, Ge(0), Unit("pixels at 224")] = 4

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One of each kind in each iteration; forward passes for the clean image, the baseline, and the objective twice."""
        del image
        return Passes(self.iterations + 4, self.iterations)

    def _optimise(
        self, probe: MaskProbe, generators: list[torch.Generator], progress: Progress
    ) -> tuple[Float[Tensor, "n r c"], Trace]:
        objective, jitter = Objective(probe, self.regulariser), Jitter(self.jitter, generators)
        count = len(generators)
        index = torch.arange(count, device=probe.images.device)
        mask = objective.initial_masks(self.shape)
        adam = torch.optim.Adam([mask], lr=self.learning_rate)
        trace = Trace(objective, self.iterations, mask, objective(mask, index))
        for iteration in range(1, self.iterations + 1):
            gradient = probe.gradients(mask, index, torch.ones_like(mask[:, 0, 0]), jitter)
            mask.grad = gradient + objective.penalty_gradient(mask, index)
            adam.step()
            mask.clamp_(0, 1)
            progress(iteration * count, self.iterations * count)
        mask.grad = None
        trace.record(self.iterations, index, mask, objective(mask, index))
        return mask, trace
