r"""A perturbation whose strength the mask sets: the less it shows, the wider the blur (Fong, Patrick and Vedaldi, ICCV 2019).

.. math:: \Phi(I, M)(u) = (g_{\sigma(u)} * I)(u), \qquad \sigma(u) = \sigma_{max} \, (1 - up(M)(u))

by interpolation between L + 1 images that are blurred once, with sigmas evenly from 0 to :math:`\sigma_{max}`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import Blur
from faithmap.masking import MaskedModel, rows_of


@dataclass(frozen=True)
class Pyramid:
    """A blur pyramid; as a plain baseline it is its widest blur.

    Args:
        sigma: of the widest, in pixels at 224.
        levels: L.
    """

    sigma: float = 20.0
    levels: int = 8

    def __post_init__(self) -> None:
        if not self.sigma > 0 or self.levels < 1:
            raise ValueError(f"the pyramid has sigma {self.sigma} and {self.levels} levels; give a sigma above 0, and a level")

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images, blurred as widely as it goes."""
        return Blur(None, self.sigma)(images)

    def blurred(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n l c h w"]:
        """The images from the widest blur to none."""
        sigmas = [self.sigma * level / self.levels for level in range(self.levels, 0, -1)]
        return torch.stack([*(Blur(None, sigma)(images) for sigma in sigmas), images], dim=1)


@dataclass
class PyramidModel(MaskedModel):
    """Asks a model about images that are blurred as much as masks say.

    Attributes:
        pyramid: whose widest blur is the baseline.
    """

    pyramid: Pyramid = Pyramid()
    _blurred: Float[Tensor, "n l c h w"] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._blurred = self.pyramid.blurred(self.images)

    def _composed(self, up: Float[Tensor, "m 1 h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        low, high, share = self._between(up, index)
        return torch.lerp(low, high, share.to(low))

    def _change(self, up: Float[Tensor, "m 1 h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        low, high, _ = self._between(up, index)
        return (high - low) * self.pyramid.levels

    def _between(self, up: Tensor, index: Int[Tensor, " m"]) -> tuple[Tensor, Tensor, Tensor]:
        """The levels on either side of each pixel's, and how far it is from the wider to the narrower."""
        place = up * self.pyramid.levels
        level = place.detach().floor().clamp(0, self.pyramid.levels - 1)
        chosen = level.long().unsqueeze(1).expand(-1, -1, self.images.shape[1], -1, -1)
        blurred = rows_of(self._blurred, index)
        blurred = blurred.expand(len(up), *blurred.shape[1:])
        low, high = blurred.gather(1, chosen).squeeze(1), blurred.gather(1, chosen + 1).squeeze(1)
        return low, high, place - level
