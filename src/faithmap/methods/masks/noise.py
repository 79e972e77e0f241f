"""What is done to a composed image before the model sees it, so that a mask cannot become an adversarial pattern.

I-GOS adds noise at the points of its path, which matters the more, the finer the mask (its Table 4). Mask shifts the image.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import REFERENCE_SIZE


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
