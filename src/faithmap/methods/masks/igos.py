r"""I-GOS: a mask that makes the score fall, found along integrated gradients (Qi, Khorram and Li, AAAI 2020).

The plain gradient of the objective leads into the nearest local optimum. The integrated gradient points at the baseline, where
the score is known to be low (Eqs. 4 and 6):

.. math::
    IG(M) = \frac{1}{S} \sum_{s=1}^{S} \frac{\partial}{\partial M} f_c\bigl(\Phi(I, \tfrac{s}{S} M) + e_s\bigr), \qquad
    TG(M) = IG(M) + \frac{\partial g}{\partial M}, \qquad
    M \leftarrow clip(M - \alpha \, TG(M))

with fresh noise :math:`e_s` at every point, and :math:`\alpha` from the line search of Eq. 8
(:mod:`faithmap.methods.masks.steps`). The noise keeps a mask from becoming an adversarial pattern. Where no step is accepted
the mask stays, and the next gradient has other noise; after ``patience`` such iterations the image has converged and leaves the
batch.

The last mask shows which cells to remove together, and ranks them poorly: many are exactly 0 or exactly 1. The mean of the
masks over all iterations (``average``) shows how early a cell was removed and for how many iterations, at no extra cost. The
paper takes the last mask. The defaults are ours; :meth:`IGOS.paper` gives the paper's settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Unit
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.methods.base import Passes, Progress, rows_and_columns
from faithmap.methods.masks.base import MaskOptimiser, Objective, Regulariser, Trace
from faithmap.methods.masks.steps import FixedStep, LineSearch, Nesterov, StepRule
from faithmap.model import Classifier
from faithmap.probe import MaskProbe


class PathNoise:
    """Gaussian noise on composed images, drawn for one after the other by its image's own generator.

    An image's draws therefore do not depend on the other images of a chunk.

    Args:
        std: of each channel, (c, 1, 1), or one number, in the units of the images; 0 for none.
        generators: one for each image.
    """

    def __init__(self, std: float | Float[Tensor, "c 1 1"], generators: list[torch.Generator]) -> None:
        self.std = std
        self.generators = generators
        self._noise: Tensor | None = None

    def __call__(self, z: Float[Tensor, "m c h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        """The images with noise."""
        if isinstance(self.std, float) and self.std == 0:
            return z
        if self._noise is None or self._noise.shape != z.shape:
            self._noise = torch.empty(z.shape, dtype=torch.float32, device=z.device)
        for row, image in zip(self._noise, index.tolist(), strict=True):
            row.normal_(generator=self.generators[image])
        if isinstance(self.std, Tensor):
            return torch.addcmul(z, self._noise.to(z), self.std)
        return torch.add(z, self._noise, alpha=self.std)


class IGOSObjective(Objective):
    """F(M) and its total gradient TG(M).

    Args:
        probe: runs the model on masked images.
        regulariser: g.
        path_points: S.
        noise: e, at the points of the path; None for none.
    """

    def __init__(self, probe: MaskProbe, regulariser: Regulariser, path_points: int, noise: PathNoise | None) -> None:
        super().__init__(probe, regulariser)
        self.path_points, self.noise = path_points, noise

    def total_gradient(self, masks: Float[Tensor, "n ..."], index: Int[Tensor, " m"]) -> Float[Tensor, "m ..."]:
        """TG (Eq. 6) of the images ``index``, given the masks of all images."""
        return self.integrated_gradient(self.probe, masks, index) + self.penalty_gradient(masks[index], index)

    def integrated_gradient(
        self, probe: MaskProbe, mask: Float[Tensor, "n r c"], index: Int[Tensor, " m"]
    ) -> Float[Tensor, "m r c"]:
        """IG (Eq. 4) of the images ``index``, given one mask of each image."""
        points = torch.arange(1, self.path_points + 1, device=mask.device, dtype=mask.dtype) / self.path_points
        rows, shares = index.repeat_interleave(self.path_points), points.repeat(len(index))
        return probe.gradients(mask, rows, shares, self.noise)[index] / self.path_points


PUBLISHED_LAMBDAS: Mapping[float, tuple[float, float]] = MappingProxyType(
    {28: (1.0, 20.0), 112: (3.0, 60.0), math.inf: (10.0, 20.0)}
)
"""The weights (lambda1, lambda2) of the paper's resolutions, by the largest number of cells per side that they serve here."""


@dataclass(eq=False)
class IGOS(MaskOptimiser):
    """I-GOS, integrated-gradients optimised saliency.

    Args:
        path_points: S, the points of the path that a gradient is averaged over, at least 1. One point is the mask itself:
            without noise, the plain gradient.
        noise_std: standard deviation of the noise at the path's points, at least 0; 0 for none.
        noise_units: ``pixels``, those of the images, [0, 1] for a Classifier; or ``normalised``, those behind a Classifier's
            normalisation (for other models those of the images).
        noise_channels: whether ``all`` channels have noise, or the ``first`` alone.
        step: the step rule: a :class:`LineSearch`, as in the paper, :class:`Nesterov`, or a number above 0 for a fixed step
            size.
        patience: iterations in a row without an accepted step after which an image has converged, at least 1.
        average: whether the result is the mean of the masks over the iterations; False for the last mask, as in the paper.

    An image takes S forward and backward passes in each iteration, and one forward pass for each step that is tried.

    >>> class Corner(torch.nn.Module):
    ...     def forward(self, images):
    ...         brightness = images[:, :, :8, :8].mean(dim=(1, 2, 3))
    ...         return torch.stack([12 * brightness - 6, 6 - 12 * brightness], dim=1)
    >>> explanation = IGOS(Corner(), resolution=4, baseline="black")(torch.full((1, 3, 32, 32), 0.9), 0)
    >>> bool(explanation.heatmap[0, 0, 0] == explanation.heatmap.max())
    True

    With the paper's settings:

    >>> IGOS(Corner(), **IGOS.paper(resolution=7)).average
    False
    """

    title: ClassVar[str] = "I-GOS"
    DEFAULT_LAMBDAS: ClassVar[tuple[float, float]] = (0.1, 2.0)
    """A third or three times lambda1, or five times lambda2, has little effect on the scores."""

    path_points: Annotated[int, Ge(1)] = 20
    noise_std: Annotated[float, Ge(0), Unit("pixel values")] = 0.02
    noise_units: Literal["pixels", "normalised"] = "pixels"
    noise_channels: Literal["all", "first"] = "all"
    step: LineSearch | Nesterov | StepRule | Annotated[float, Gt(0)] = field(default_factory=LineSearch)
    patience: Annotated[int, Ge(1)] = 3
    average: bool = True

    @classmethod
    def paper(cls, resolution: int | tuple[int, int] = 28) -> dict[str, Any]:
        """The settings of the paper, and of its public code where the paper is silent.

        Weights (1, 20) up to 28 cells per side, (3, 60) up to 112, (10, 20) beyond: those published for 28, 112 and 224. Noise
        of 0.2 in normalised units on one channel, as the public code draws it, but not doubled. 15 iterations, none left out;
        where no step is accepted, the lower bound is taken. The result is the last mask. What no text tells, the upper bound
        of the steps, is ours.

        Args:
            resolution: cells per side, or (rows, columns).

        Raises:
            ValueError: for a class that derives from I-GOS, which is another paper's method.
        """
        if cls is not IGOS:
            raise ValueError(f"{cls.title} has no preset 'paper'; IGOS has one")
        cells = max(rows_and_columns(resolution))
        lambda1, lambda2 = next(weights for limit, weights in PUBLISHED_LAMBDAS.items() if cells <= limit)
        return {
            "resolution": resolution,
            "lambda1": lambda1,
            "lambda2": lambda2,
            "iterations": 15,
            "path_points": 20,
            "noise_std": 0.2,
            "noise_units": "normalised",
            "noise_channels": "first",
            "step": LineSearch(take_lowest=True),
            "patience": 15,
            "average": False,
        }

    @property
    def step_rule(self) -> StepRule:
        """The step rule, a number as a fixed step."""
        return self.step if isinstance(self.step, StepRule) else FixedStep(self.step)

    def objective(self, probe: MaskProbe, noise: PathNoise) -> IGOSObjective:
        """The objective whose minimum the masks of these images approach.

        Args:
            probe: runs the model on masked versions of a chunk of images.
            noise: the points of the path and the noise of the gradient.
        """
        return IGOSObjective(probe, self.regulariser, self.path_points, noise)

    def _channel_noise(self, probe: MaskProbe) -> float | Float[Tensor, "c 1 1"]:
        """The noise in the units of the images: of each channel, or one number for all."""
        if self.noise_units == "pixels" and self.noise_channels == "all":
            return float(self.noise_std)
        std = torch.full_like(probe.images[0, :, :1, :1], self.noise_std)
        if self.noise_units == "normalised" and isinstance(probe.model, Classifier):
            std *= probe.model.std.to(std).view_as(std)
        if self.noise_channels == "first":
            std[1:] = 0
        return std

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """An estimate for an image that does not converge before the last iteration."""
        del image
        return self._passes(scores=1)

    def _passes(self, scores: int) -> Passes:
        """The passes of an objective with that number of scores; two for the clean image and the baseline."""
        backward = self.iterations * scores * self.path_points
        evaluations = 1 + self.iterations * self.step_rule.passes
        return Passes(2 + scores * evaluations + backward, backward)

    def _optimise(
        self, probe: MaskProbe, generators: list[torch.Generator], progress: Progress
    ) -> tuple[Float[Tensor, "n r c"], Trace]:
        objective = self.objective(probe, PathNoise(self._channel_noise(probe), generators))
        return self._descend(objective, objective.initial_masks(self.shape), progress)

    def _descend(
        self, objective: IGOSObjective, masks: Float[Tensor, "n ..."], progress: Progress
    ) -> tuple[Float[Tensor, "n r c"], Trace]:
        """Algorithm 1, for several images together; ``active`` are those that have not converged."""
        rule, previous, count = self.step_rule, masks, len(masks)
        active = torch.arange(count, device=masks.device)
        values = objective(masks, active)
        trace = Trace(objective, self.iterations, masks, values)
        refused = torch.zeros_like(active)
        total = torch.zeros_like(objective.final_mask(masks))
        for iteration in range(1, self.iterations + 1):
            ahead = rule.ahead(masks, previous, iteration - 1)
            gradient = objective.total_gradient(ahead, active)
            step = rule.take(objective, ahead[active], gradient, values[active], active)
            previous, masks = masks, masks.index_copy(0, active, step.masks)
            values = values.index_copy(0, active, step.objective)
            trace.record(iteration, active, step.masks, step.objective, step.size)
            total += objective.final_mask(masks)
            refused[active] = torch.where(step.accepted, 0, refused[active] + 1)
            active = active[refused[active] < self.patience]
            progress(iteration * len(active) + self.iterations * (count - len(active)), self.iterations * count)
            if len(active) == 0:
                total += objective.final_mask(masks) * (self.iterations - iteration)
                break
        return (total / self.iterations if self.average else objective.final_mask(masks)), trace
