r"""I-GOS+ and I-GOS++: a part of the image that is necessary and sufficient for the score (Khorram, Lawson and Li, CHIL 2021).

The score should fall when the mask removes a part of the image, and remain when only the removed part is visible,

.. math:: \Phi'(I, M) = b \cdot up(M) + I \, (1 - up(M)),

with image and baseline in each other's place. I-GOS+ optimises one mask,

.. math:: F(M) = f(\Phi(I, M)) - f(\Phi'(I, M)) + \lambda_1 \overline{|1 - M|} + \lambda_2 BTV(M)

I-GOS++ optimises two, D for deletion and K for insertion. Their product :math:`M = D K` is the result:

.. math::
    F(D, K) = \tfrac12 \bigl[ f(\Phi(I, D)) + f(\Phi(I, M)) \bigr] - \tfrac12 \bigl[ f(\Phi'(I, K)) + f(\Phi'(I, M)) \bigr]
        + \lambda_1 \overline{|1 - M|} + \lambda_2 BTV(M)

The gradient of every score is its own integrated gradient, with its own noise, and one step moves both masks: the algorithm is
that of :mod:`faithmap.methods.masks.igos`. The bilateral total variation makes edges of the mask cheap where the image has
edges:

.. math::
    BTV(M) = \tfrac12 TV(M) + \tfrac12 \sum_{d \in y, x} s_d^2 \;
        \overline{e^{-(\partial_d I / \sigma)^2} \, (\partial_d \, up(M))^2}

with :math:`(\partial I)^2` the mean over the channels of the squared difference of neighbouring pixels, and s pixels per cell:
the step from one cell to the next is spread over s pixels, and both halves weigh the same at every resolution.

*Diverse starts.* The objective has several local minima, and a mask of ones reaches one of them. With ``starts`` above 1 it is
descended from several masks, and the one whose last objective is lowest is the result of an image. This follows an idea of the
authors' later work, whose text we do not have; the choice of the masks is ours. The first is ones. Every other has a value in
[0, 1] at each of :data:`START_CELLS` x :data:`START_CELLS` points, drawn from the image's random numbers, with bilinear values
between them: smooth, so that no start begins with a large total variation. D and K start equal.

The paper adds the four scores; public code halves their gradients, but not the scores in its line search. Here both are halved,
so that the gradient is that of the objective, and the weights keep the meaning that they have in I-GOS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Unit
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import upsample
from faithmap.methods.base import Passes, Progress
from faithmap.methods.masks.base import Regulariser, Trace, size_penalty, total_variation
from faithmap.methods.masks.igos import IGOS, IGOSObjective, PathNoise
from faithmap.methods.masks.steps import LineSearch, Nesterov, StepRule
from faithmap.probe import MaskProbe
from faithmap.seeds import uniform

START_CELLS = 4
"""Points per side that the values of a drawn initial mask are interpolated from."""


class BilateralVariation:
    """BTV of masks of some images.

    Args:
        images: whose edges count.
        sigma: a difference of neighbouring pixels that is an edge, in the units of the images; None for the plain TV.
    """

    def __init__(self, images: Float[Tensor, "n c h w"], sigma: float | None) -> None:
        self.size = (images.shape[-2], images.shape[-1])
        self._flatness = None if sigma is None else [_flatness(images, dim, sigma) for dim in (2, 3)]

    def __call__(self, mask: Float[Tensor, "m r c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """BTV of each mask, on the image ``index``."""
        if self._flatness is None:
            return total_variation(mask)
        up = upsample(mask.unsqueeze(1), self.size).squeeze(1)
        variation = total_variation(mask)
        for dim, flatness in enumerate(self._flatness, start=1):
            pixels = (self.size[dim - 1] - 1) / max(1, mask.shape[dim] - 1)
            variation = variation + pixels**2 * (flatness[index] * up.diff(dim=dim).square()).mean(dim=(1, 2))
        return variation / 2


def _flatness(images: Float[Tensor, "n c h w"], dim: int, sigma: float) -> Float[Tensor, "n i j"]:
    return torch.exp(-(images.diff(dim=dim).square().mean(dim=1) / sigma**2))


class IGOSPlusObjective(IGOSObjective):
    """F(M) of I-GOS+.

    Args:
        probe: runs the model on what the masks keep.
        regulariser: the weights lambda1 and lambda2.
        path_points: S.
        noise: at the points of the path; None for none.
        sigma: of the bilateral total variation; None for the plain one.
    """

    def __init__(
        self, probe: MaskProbe, regulariser: Regulariser, path_points: int, noise: PathNoise | None, sigma: float | None
    ) -> None:
        super().__init__(probe, regulariser, path_points, noise)
        self.kept, self.removed = probe, _swapped(probe)
        self.variation = BilateralVariation(probe.images, sigma)

    def score(self, masks: Float[Tensor, "m ..."], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The score of what the mask keeps, less that of what it removes."""
        return self.kept.scores(masks, index) - self.removed.scores(masks, index)

    def penalty(self, mask: Float[Tensor, "m r c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The weighted size and bilateral total variation of final masks."""
        variation = self.variation(mask, index)
        return self.regulariser.lambda1 * size_penalty(mask) + self.regulariser.lambda2 * variation

    def total_gradient(self, masks: Float[Tensor, "n ..."], index: Int[Tensor, " m"]) -> Float[Tensor, "m ..."]:
        """TG of the images ``index``, given the masks of all images."""
        kept = self.integrated_gradient(self.kept, masks, index)
        removed = self.integrated_gradient(self.removed, masks, index)
        return kept - removed + self.penalty_gradient(masks[index], index)


def _swapped(probe: MaskProbe) -> MaskProbe:
    """The probe with image and baseline in each other's place; its passes are counted with those of the original."""
    other = MaskProbe(
        probe.model, probe.score, probe.baseline, probe.images, chunk_size=probe.chunk_size, autocast=probe.autocast
    )
    other.forward, other.backward = probe.forward, probe.backward
    return other


class IGOSPlusPlusObjective(IGOSPlusObjective):
    """F(D, K) of I-GOS++; the masks have the shape (n, 2, r, c), D and K of each image."""

    def initial_masks(self, shape: tuple[int, int]) -> Float[Tensor, "n 2 r c"]:
        """Both masks are ones."""
        return self.probe.images.new_ones(len(self.probe.images), 2, *shape)

    def final_mask(self, masks: Float[Tensor, "m 2 r c"]) -> Float[Tensor, "m r c"]:
        """M = D K."""
        deletion, insertion = masks.unbind(dim=1)
        return deletion * insertion

    def score(self, masks: Float[Tensor, "m 2 r c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The mean score of what D and M keep, less that of what K and M remove."""
        (deletion, insertion), product, twice = masks.unbind(dim=1), self.final_mask(masks), torch.cat([index, index])
        kept = self.kept.scores(torch.cat([deletion, product]), twice).view(2, -1).mean(dim=0)
        removed = self.removed.scores(torch.cat([insertion, product]), twice).view(2, -1).mean(dim=0)
        return kept - removed

    def total_gradient(self, masks: Float[Tensor, "n 2 r c"], index: Int[Tensor, " m"]) -> Float[Tensor, "m 2 r c"]:
        """TG of D and K of the images ``index``, given the masks of all images."""
        (deletion, insertion), product = masks.unbind(dim=1), self.final_mask(masks)
        of_deletion = self.integrated_gradient(self.kept, deletion, index) / 2
        of_insertion = self.integrated_gradient(self.removed, insertion, index) / 2
        kept = self.integrated_gradient(self.kept, product, index)
        removed = self.integrated_gradient(self.removed, product, index)
        of_product = (kept - removed) / 2 + self.penalty_gradient(product[index], index)
        return torch.stack([of_deletion + of_product * insertion[index], of_product * deletion[index] - of_insertion], dim=1)


@dataclass(eq=False)
class IGOSPlus(IGOS):
    """I-GOS+: one mask for deletion and insertion.

    Args:
        sigma: a difference of neighbouring pixels, above 0, in the units of the images, across which the mask may change
            cheaply; None for the plain total variation. The 0.1 of public code is in normalised units: of pixels, that is 0.1
            times the model's std, 0.022 to 0.05 for common ones. Ours is 2 to 4.4 times as wide.
        starts: number of initial masks, at least 1: ones, and drawn ones. Passes and time are multiplied by it.

    An image takes 2 S forward and backward passes in each iteration, and two forward passes for each step that is tried.

    >>> class Corner(torch.nn.Module):
    ...     def forward(self, images):
    ...         brightness = images[:, :, :8, :8].mean(dim=(1, 2, 3))
    ...         return torch.stack([12 * brightness - 6, 6 - 12 * brightness], dim=1)
    >>> explanation = IGOSPlus(Corner(), resolution=4, iterations=5, baseline="black")(torch.full((1, 3, 32, 32), 0.9), 0)
    >>> bool(explanation.heatmap[0, 0, 0] == explanation.heatmap.max())
    True
    """

    title: ClassVar[str] = "I-GOS+"
    sigma: Annotated[float, Gt(0), Unit("pixel values")] | None = 0.1
    starts: Annotated[int, Ge(1)] = 1

    def objective(self, probe: MaskProbe, noise: PathNoise) -> IGOSPlusObjective:
        """The objective that the masks of these images descend."""
        return IGOSPlusObjective(probe, self.regulariser, self.path_points, noise, self.sigma)

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """An estimate for an image that does not converge before the last iteration."""
        del image
        return self._passes(scores=2)

    def _passes(self, scores: int) -> Passes:
        once = super()._passes(scores)
        return Passes(2 + self.starts * (once.forward - 2), self.starts * once.backward)

    def _optimise(
        self, probe: MaskProbe, generators: list[torch.Generator], progress: Progress
    ) -> tuple[Float[Tensor, "n r c"], Trace]:
        """Descend from every start; the lowest last objective decides for each image."""
        objective = self.objective(probe, PathNoise(self._channel_noise(probe), generators))
        ones = objective.initial_masks(self.shape)
        best, trace = self._descend(objective, ones, _share_of(progress, 0, self.starts))
        for start in range(1, self.starts):
            masks = ones * _drawn_masks(ones, generators)
            found, other = self._descend(objective, masks, _share_of(progress, start, self.starts))
            lower = other.last_objective < trace.last_objective
            trace.replace(lower, other)
            best = torch.where(lower.view(-1, 1, 1), found, best)
        return best, trace


def _drawn_masks(ones: Float[Tensor, "n ..."], generators: list[torch.Generator]) -> Float[Tensor, "n ..."]:
    """One smooth random mask for each image, with a dimension of 1 for each that ``ones`` has between images and cells."""
    points = torch.stack([uniform((1, START_CELLS, START_CELLS), generator) for generator in generators]).to(ones)
    masks = upsample(points, (ones.shape[-2], ones.shape[-1]))
    return masks.squeeze(1) if ones.ndim == 3 else masks


def _share_of(progress: Progress, start: int, starts: int) -> Progress:
    """The progress of one of several descents, as that of all: an image's iterations count 1 / starts each."""
    return lambda done, total: progress((start * total + done) // starts, total)


@dataclass(eq=False)
class IGOSPlusPlus(IGOSPlus):
    """I-GOS++: a mask for deletion, a mask for insertion, and their product for both.

    Args:
        step: the step rule; Nesterov's by default, as in later versions of the method: with the line search, maps are worse
            (``benchmarks/tune_igos_plus.py``).

    An image takes 4 S forward and backward passes in each iteration, and four forward passes for each step that is tried;
    Nesterov's rule tries one.

    >>> class Corner(torch.nn.Module):
    ...     def forward(self, images):
    ...         brightness = images[:, :, :8, :8].mean(dim=(1, 2, 3))
    ...         return torch.stack([12 * brightness - 6, 6 - 12 * brightness], dim=1)
    >>> explanation = IGOSPlusPlus(Corner(), resolution=4, iterations=5, baseline="black")(torch.full((1, 3, 32, 32), 0.9), 0)
    >>> bool(explanation.heatmap[0, 0, 0] == explanation.heatmap.max())
    True
    """

    title: ClassVar[str] = "I-GOS++"
    step: LineSearch | Nesterov | StepRule | Annotated[float, Gt(0)] = field(default_factory=Nesterov)

    def objective(self, probe: MaskProbe, noise: PathNoise) -> IGOSPlusPlusObjective:
        """The objective that the masks of these images descend."""
        return IGOSPlusPlusObjective(probe, self.regulariser, self.path_points, noise, self.sigma)

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """An estimate for an image that does not converge before the last iteration."""
        del image
        return self._passes(scores=4)
