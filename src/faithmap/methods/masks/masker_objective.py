r"""What a masker is trained for (Dabkowski and Gal, NeurIPS 2017).

The mean of

.. math::
    L(M) = \lambda_1 TV(M) + \lambda_2 \overline{M} - \log f_c(\Phi(I, M)) + \lambda_3 f_c(\Phi(I, 1 - M))^{\lambda_4}

of the images that have the class, the first two terms of the others, and of all of them the log-loss with which the masker
says whether the class is there: without it masks soon ignore what they are asked for.

What is removed becomes a blurred image, or a random colour with noise, drawn anew for each image and step, so that the masker
cannot draw by what it removes. The weights are for means over the mask: the paper's belong to sums over its pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from faithmap.baselines import Blur
from faithmap.methods.masks.objective import total_variation


@dataclass(frozen=True)
class MaskerSettings:
    """How a masker is trained; one that goes on has the same.

    Args:
        channels: of the network's finest level.
        batch: images in a step.
        learning_rate: of Adam.
        variation: lambda1, of the mean squared difference of neighbouring cells.
        area: lambda2, of the mean of the mask.
        removed: lambda3, of what is left of the class without what the mask shows.
        exponent: lambda4; below 1, to have the probability very small.
        presence: weight of the log-loss with which the masker says whether the class is there.
        absent: share of the images that are asked about a class that is not there.
        seed: of all that is drawn.
    """

    channels: int = 16
    batch: int = 8
    learning_rate: float = 1e-3
    variation: float = 10.0
    area: float = 3.0
    removed: float = 5.0
    exponent: float = 0.3
    presence: float = 1.0
    absent: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "variation", "area", "removed", "exponent", "presence", "absent"):
            object.__setattr__(self, name, float(getattr(self, name)))
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; give a finite number")
        if self.channels < 4 or self.channels % 4:
            raise ValueError(f"channels is {self.channels}; give a multiple of 4")
        if self.batch < 1 or not self.learning_rate > 0:
            raise ValueError("give a batch of at least 1 image, and a learning_rate above 0")
        if min(self.variation, self.area, self.removed, self.presence) < 0 or not self.exponent > 0 or not 0 <= self.absent < 1:
            raise ValueError("give weights of at least 0, an exponent above 0, and a share of absent classes below 1")

    def loss(
        self,
        masks: Float[Tensor, "n r c"],
        odds: Float[Tensor, " n"],
        there: Bool[Tensor, " n"],
        shown: Float[Tensor, " m"],
        hidden: Float[Tensor, " m"],
    ) -> Float[Tensor, ""]:
        """The mean over the images.

        Args:
            masks: of all images.
            odds: the masker's log-odds that the class is there.
            there: whether it is.
            shown: log-probabilities of the class with what the masks show, of the images that have it.
            hidden: with the rest.
        """
        form = self.variation * total_variation(masks) + self.area * masks.mean(dim=(1, 2))
        said = F.binary_cross_entropy_with_logits(odds, there.to(odds), reduction="sum")
        score = self.removed * (self.exponent * hidden).exp() - shown
        return (form.sum() + score.sum() + self.presence * said) / len(masks)


def random_baselines(images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """For each image, as likely as not, its own blur of a random width, or a random colour with noise."""
    made = []
    for image in images:
        kind, width, spread = torch.rand(3, generator=generator).tolist()
        colour = torch.rand(len(image), 1, 1, generator=generator)
        noise = torch.randn(image.shape, generator=generator) * 0.2 * spread
        blur = kind < 0.5
        made.append(Blur(None, 10 + 20 * width)(image[None])[0] if blur else (colour + noise).clamp(0, 1).to(image))
    return torch.stack(made)
