r"""I-GOS: a mask that makes the score fall, found along integrated gradients (Qi, Khorram and Li, AAAI 2020).

The plain gradient of the objective leads into the nearest local optimum. The integrated gradient points at the baseline,
where the score is known to be gone (Eqs. 4 and 6):

.. math::
    IG(M) = \frac{1}{S} \sum_{s=1}^{S} \frac{\partial}{\partial M} f_c\bigl(\Phi(I, \tfrac{s}{S} M) + e_s\bigr), \qquad
    TG(M) = IG(M) + \frac{\partial g}{\partial M}, \qquad
    M \leftarrow clip(M - \alpha \, TG(M))

with fresh noise :math:`e_s` at every point, and :math:`\alpha` from the line search of Eq. 8. Where no step is accepted the
mask stays, and the next direction comes from other noise; after ``patience`` such iterations the image has converged and
leaves the batch.

The last mask says which cells to remove together, and ranks them badly: many are exactly 0 or exactly 1. The mean of the masks
over all iterations (``average``) says how early a cell went and how long it stayed away, at no cost. The paper takes the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.methods.base import Passes, Progress
from faithmap.methods.masks.base import MaskOptimiser, Penalty, Trace
from faithmap.methods.masks.steps import LineSearch, Nesterov, Step, take_step
from faithmap.probe import MaskedModel


class PathNoise:
    """Gaussian noise, drawn for one composed image after the other from its image's own generator.

    An image's draws therefore come in the order of its questions, whatever else is in the chunk.

    Args:
        std: in the units of the images.
        generators: one for each image.
    """

    def __init__(self, std: float, generators: list[torch.Generator]) -> None:
        self.std = std
        self.generators = generators
        self._noise: Tensor | None = None

    def __call__(self, z: Float[Tensor, "m c h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        """The images with noise."""
        if self.std == 0:
            return z
        if self._noise is None or self._noise.shape != z.shape or self._noise.dtype != z.dtype:
            self._noise = torch.empty_like(z, requires_grad=False)
        for row, image in zip(self._noise, index.tolist(), strict=True):
            row.normal_(generator=self.generators[image])
        return torch.add(z, self._noise, alpha=self.std)


@dataclass(eq=False)
class IGOS(MaskOptimiser):
    """Integrated-gradients optimised saliency.

    Args:
        path_points: S. One point is the mask itself: with no noise, the plain gradient.
        noise_std: of the noise at the path's points, in the units of the images, [0, 1] pixels for a Classifier; 0 for none.
            The paper's 0.2 is in normalised units: 0.045 in pixels for the usual ImageNet std of 0.225.
        step: the line search, a number for a fixed step size, or :class:`Nesterov`.
        patience: iterations in a row without an accepted step, after which an image has converged.
        average: answer with the mean of the masks over the iterations, not with the last.

    The rest is explained at :class:`MaskOptimiser` and :class:`faithmap.methods.Explainer`. An image takes S forward and
    backward passes an iteration, and one forward pass for each step that is tried.
    """

    DEFAULT_LAMBDAS: ClassVar[tuple[float, float]] = (0.1, 2.0)
    """Three times lambda1 either way, or five times lambda2, and the scores hardly change. The paper's (1, 20) weigh the area
    as heavily as the whole score: under the plain objective most first steps are then refused, and the mask stays as it is.
    """

    path_points: int = 20
    noise_std: float = 0.02
    step: LineSearch | Nesterov | float = field(default_factory=LineSearch)
    patience: int = 3
    average: bool = True

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if self.path_points < 1 or self.patience < 1 or self.noise_std < 0:
            raise ValueError("give path_points and patience of at least 1, and a noise_std of at least 0")
        if not isinstance(self.step, (LineSearch, Nesterov)) and not self.step > 0:
            raise ValueError(f"step is {self.step}; give a LineSearch, Nesterov, or a step size above 0")

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """If no image converges before the last iteration, and a search takes two waves of steps, as most do."""
        del image
        tried = 2 * self.step.wave if isinstance(self.step, LineSearch) else 1
        asked = self.scores * self.path_points
        return Passes(2 + self.scores + self.iterations * (asked + self.scores * tried), self.iterations * asked)

    def _optimise(
        self, masked: MaskedModel, generators: list[torch.Generator], progress: Progress
    ) -> tuple[Float[Tensor, "n r c"], Trace]:
        count = len(masked.images)
        noise = PathNoise(self.noise_std, generators)
        active = torch.arange(count, device=masked.images.device)
        before = mask = masked.images.new_ones(count, self.shape[0] * self.masks, self.shape[1])
        objective = self._objective(masked, mask, active)
        failures = torch.zeros_like(active)
        trace = Trace(count, self.iterations, objective)
        trace.record(0, active, self._answer(mask), objective, self._penalty(masked, active))
        total = torch.zeros_like(self._answer(mask))
        for iteration in range(1, self.iterations + 1):
            start = self.step.ahead(mask, before, iteration - 1) if isinstance(self.step, Nesterov) else mask
            step = self._iterate(masked, start, objective, active, noise)
            before = mask.clone()
            mask[active], objective[active] = step.mask, step.objective
            failures[active] = torch.where(step.accepted, 0, failures[active] + 1)
            penalty = self._penalty(masked, active)
            trace.record(iteration, active, self._answer(step.mask), step.objective, penalty, step.size)
            total += self._answer(mask)
            active = active[failures[active] < self.patience]
            progress(iteration * len(active) + self.iterations * (count - len(active)), self.iterations * count)
            if len(active) == 0:
                total += self._answer(mask) * (self.iterations - iteration)
                break
        return (total / self.iterations if self.average else self._answer(mask)), trace

    masks: ClassVar[int] = 1
    """That are optimised together, one below the other."""

    scores: ClassVar[int] = 1
    """That the objective adds up."""

    def _answer(self, masks: Float[Tensor, "n k c"]) -> Float[Tensor, "n r c"]:
        """The mask that the optimised ones stand for."""
        return masks

    def _penalty(self, masked: MaskedModel, index: Int[Tensor, " m"]) -> Penalty:
        """G(M) of some of the images."""
        del masked, index
        return self.regulariser

    def _iterate(
        self, masked: MaskedModel, mask: Tensor, objective: Tensor, active: Int[Tensor, " m"], noise: PathNoise
    ) -> Step:
        direction = self.total_gradient(masked, mask, active, noise)[active]

        def evaluate(candidates: Tensor, index: Tensor) -> Tensor:
            return self._objective(masked, candidates, active[index])

        if isinstance(self.step, LineSearch):
            return self.step(evaluate, mask[active], direction, objective[active])
        alpha = self.step.size_for(math.prod(self.shape)) if isinstance(self.step, Nesterov) else self.step
        moved = take_step(mask[active], direction, alpha)
        everyone = torch.arange(len(active), device=active.device)
        size = torch.full_like(objective[active], alpha)
        return Step(torch.ones_like(everyone, dtype=torch.bool), size, moved, evaluate(moved, everyone))

    def total_gradient(
        self, masked: MaskedModel, mask: Float[Tensor, "n r c"], active: Int[Tensor, " m"], noise: PathNoise | None
    ) -> Float[Tensor, "n r c"]:
        """TG(M) of the active images; zero for the others but for the regulariser's part."""
        points = torch.arange(1, self.path_points + 1, device=mask.device, dtype=mask.dtype) / self.path_points
        index, shares = active.repeat_interleave(self.path_points), points.repeat(len(active))
        integrated = masked.gradients(mask, index, shares, noise) / self.path_points
        return integrated + self.regulariser.gradient(mask)
