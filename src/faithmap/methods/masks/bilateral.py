r"""Bilateral perturbations: what I-GOS+ and I-GOS++ ask of a mask (Khorram, Lawson and Li, CHIL 2021).

A mask is to take the score away where it removes, and to keep it where what it removes is all that is shown,

.. math:: \Phi'(I, M) = b \cdot up(M) + I \, (1 - up(M)),

the image and its baseline changing places. Edges of the mask are cheap where the image has edges (bilateral total variation):

.. math::
    BTV(M) = \tfrac12 TV(M) + \tfrac12 \sum_{d \in y, x} s_d^2 \;
        \overline{e^{-(\partial_d I / \sigma)^2} \, (\partial_d \, up(M))^2}

with :math:`(\partial I)^2` the mean over the channels of the squared difference of neighbouring pixels, and s pixels a cell:
the step from one cell to the next is spread over so many pixels, and both halves weigh the same at every resolution.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.masking import MaskedModel, upsample
from faithmap.methods.masks.objective import Regulariser, size_penalty, total_variation


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
        self.shown = MaskedModel(self.model, self.score, self.baseline, self.images, self.chunk_size, self.autocast)
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
