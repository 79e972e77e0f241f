r"""I-GOS+ and I-GOS++: a mask that takes the score away, and brings it back by what it removes.

I-GOS++ optimises two masks, D for deletion and K for insertion, whose product is the answer :math:`M = D K`:

.. math::
    F = \tfrac12 \bigl[ f(\Phi(I, D)) + f(\Phi(I, M)) \bigr] - \tfrac12 \bigl[ f(\Phi'(I, K)) + f(\Phi'(I, M)) \bigr]
        + \lambda_1 \overline{|1 - M|} + \lambda_2 BTV(M)

I-GOS+ has one mask, :math:`F = f(\Phi(I, M)) - f(\Phi'(I, M)) + g(M)`. Every score is followed along its own integrated
gradient (:mod:`faithmap.methods.masks.igos`), with its own noise, and one line search moves both masks (Khorram, Lawson and Li,
CHIL 2021).

The paper adds the four scores; public code halves their gradients, but not the scores in its line search. Here both are halved,
so that one objective is descended, and the weights are those of I-GOS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.masking import upsample
from faithmap.methods.base import Request
from faithmap.methods.masks.base import Regulariser, size_penalty, total_variation
from faithmap.methods.masks.igos import IGOS, PathNoise
from faithmap.methods.masks.steps import LineSearch, Nesterov
from faithmap.probe import MaskedModel


@dataclass
class BilateralModel(MaskedModel):
    """A model that is asked about both perturbations.

    Attributes:
        sigma: a difference of neighbouring pixels that is an edge, in the units of the images; None for no such thing.
        shown: the same images with their baselines in their place, and they in the baselines'; counts its passes here.
    """

    sigma: float | None = None
    shown: MaskedModel = field(init=False)
    _flatness: tuple[Tensor, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        settings: dict[str, Any] = {"chunk_size": self.chunk_size, "autocast": self.autocast}
        self.shown = MaskedModel(self.model, self.score, self.baseline, self.images, **settings)
        self.shown.forward, self.shown.backward = self.forward, self.backward
        if self.sigma is not None:
            down, across = (self.images.diff(dim=dim).square().mean(dim=1) / self.sigma**2 for dim in (2, 3))
            self._flatness = torch.exp(-down), torch.exp(-across)

    def bilateral_total_variation(self, mask: Float[Tensor, "m r c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """BTV of each mask, on the image that ``index`` names; TV where there is no sigma."""
        if self.sigma is None:
            return total_variation(mask)
        up = upsample(mask.unsqueeze(1), self.size).squeeze(1)
        edges = total_variation(mask)
        for dim, flat in enumerate(self._flatness, start=1):
            pixels = (self.size[dim - 1] - 1) / max(1, mask.shape[dim] - 1)
            edges = edges + pixels**2 * (flat[index] * up.diff(dim=dim).square()).mean(dim=(1, 2))
        return edges / 2


@dataclass(frozen=True, eq=False)
class BilateralPenalty:
    """The size of some images' masks and their bilateral total variation, weighted, with its gradient.

    Args:
        weights: of both.
        masked: the images.
        index: whose mask each is.
    """

    weights: Regulariser
    masked: BilateralModel
    index: Int[Tensor, " m"]

    def __call__(self, mask: Float[Tensor, "m r c"]) -> Float[Tensor, " m"]:
        """Of each mask."""
        edges = self.masked.bilateral_total_variation(mask, self.index)
        return self.weights.lambda1 * size_penalty(mask) + self.weights.lambda2 * edges

    def gradient(self, mask: Float[Tensor, "m r c"]) -> Float[Tensor, "m r c"]:
        """Of each mask's own."""
        mask = mask.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self(mask).sum(), mask)[0]


@dataclass(eq=False)
class IGOSPlus(IGOS):
    """I-GOS+: one mask for both games.

    Args:
        sigma: a difference of neighbouring pixels, in the units of the images, across which the mask may change cheaply; None
            for the plain total variation.

    The rest is explained at :class:`IGOS`. An image takes 2 S forward and backward passes an iteration.
    """

    scores: ClassVar[int] = 2

    sigma: float | None = 0.1

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if self.sigma is not None and not self.sigma > 0:
            raise ValueError(f"sigma is {self.sigma}; give a pixel difference above 0, or None")

    def _masked(self, request: Request, index: Int[Tensor, " m"]) -> MaskedModel:
        plain = super()._masked(request, index)
        settings: dict[str, Any] = {"chunk_size": plain.chunk_size, "autocast": plain.autocast}
        masked = BilateralModel(plain.model, plain.score, plain.images, plain.baseline, self.sigma, **settings)
        masked.forward += plain.forward
        return masked

    def _penalty(self, masked: MaskedModel, index: Int[Tensor, " m"]) -> BilateralPenalty:
        return BilateralPenalty(self.regulariser, _bilateral(masked), index)

    def _objective(self, masked: MaskedModel, mask: Float[Tensor, "m k c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        scores = masked.scores(mask, index) - _bilateral(masked).shown.scores(mask, index)
        return scores + self._penalty(masked, index)(mask)

    def total_gradient(
        self, masked: MaskedModel, mask: Float[Tensor, "n k c"], active: Int[Tensor, " m"], noise: PathNoise | None
    ) -> Float[Tensor, "n k c"]:
        """TG(M) of the active images; zero for the others."""
        shown = _bilateral(masked).shown
        slope = self._integrated(masked, mask, active, noise) - self._integrated(shown, mask, active, noise)
        slope[active] += self._penalty(masked, active).gradient(mask[active])
        return slope

    def _integrated(
        self, masked: MaskedModel, mask: Float[Tensor, "n r c"], active: Int[Tensor, " m"], noise: PathNoise | None
    ) -> Float[Tensor, "n r c"]:
        """IG(M) of one of the scores."""
        points = torch.arange(1, self.path_points + 1, device=mask.device, dtype=mask.dtype) / self.path_points
        index, shares = active.repeat_interleave(self.path_points), points.repeat(len(active))
        return masked.gradients(mask, index, shares, noise) / self.path_points


@dataclass(eq=False)
class IGOSPlusPlus(IGOSPlus):
    """I-GOS++: a mask for each game, and their product for both.

    The rest is explained at :class:`IGOSPlus`. The default step is Nesterov's, as in later versions of the method: with the
    line search maps are worse (``benchmarks/tune_igos_plus.py``). An image takes 4 S forward and backward passes an
    iteration, and four forward passes for each step that is tried; Nesterov's tries one.
    """

    masks: ClassVar[int] = 2
    scores: ClassVar[int] = 4

    step: LineSearch | Nesterov | float = field(default_factory=Nesterov)

    def _answer(self, masks: Float[Tensor, "n k c"]) -> Float[Tensor, "n r c"]:
        deletion, insertion = masks.chunk(2, dim=1)
        return deletion * insertion

    def _objective(self, masked: MaskedModel, mask: Float[Tensor, "m k c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        deletion, insertion = mask.chunk(2, dim=1)
        both, twice = deletion * insertion, torch.cat([index, index])
        away = masked.scores(torch.cat([deletion, both]), twice).view(2, -1).mean(dim=0)
        kept = _bilateral(masked).shown.scores(torch.cat([insertion, both]), twice).view(2, -1).mean(dim=0)
        return away - kept + self._penalty(masked, index)(both)

    def total_gradient(
        self, masked: MaskedModel, mask: Float[Tensor, "n k c"], active: Int[Tensor, " m"], noise: PathNoise | None
    ) -> Float[Tensor, "n k c"]:
        """TG of both masks of the active images; zero for the others."""
        deletion, insertion = mask.chunk(2, dim=1)
        both, shown = deletion * insertion, _bilateral(masked).shown
        of_deletion = self._integrated(masked, deletion, active, noise) / 2
        of_insertion = self._integrated(shown, insertion, active, noise) / 2
        of_both = (self._integrated(masked, both, active, noise) - self._integrated(shown, both, active, noise)) / 2
        of_both[active] += self._penalty(masked, active).gradient(both[active])
        return torch.cat([of_deletion + of_both * insertion, of_both * deletion - of_insertion], dim=1)


def _bilateral(masked: MaskedModel) -> BilateralModel:
    assert isinstance(masked, BilateralModel)  # noqa: S101 - IGOSPlus._masked makes no other
    return masked
