r"""Samples: the perturbed images at which gradients are taken, their positions on paths, weights and noise.

.. math:: z = x' + a \, (x - x') + e

with a reference x', a position a on the path from it to the image x, and noise e.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

Quadrature: TypeAlias = Literal["right", "midpoint", "trapezoid"]


@dataclass(frozen=True, eq=False)
class Samples:
    """The passes of one image, path by path, with rising positions on each.

    Attributes:
        references: x', each once; None if there are no paths.
        path: index of the reference of each pass.
        position: position a of each pass on its path, in [0, 1].
        share: weight of each pass in the mean. 0 marks the reference itself, at the start of a path whose activations are
            compared with it. The weight of a step along a path is that of the pass at its end.
        seed: seed of the noise of each pass.
        noise: standard deviation of each pass's noise, with a sign.

    Two images on the path from black, without noise:

    >>> zeros, half = torch.zeros(2, dtype=torch.long), torch.full((2,), 0.5)
    >>> samples = Samples(torch.zeros(1, 1, 1, 1), zeros, torch.tensor([0.5, 1.0]), half, zeros, zeros.float())
    >>> perturbed(torch.ones(1, 1, 1, 1), samples, torch.arange(2)).flatten()
    tensor([0.5000, 1.0000])
    """

    references: Float[Tensor, "r c h w"] | None
    path: Int[Tensor, " s"]
    position: Float[Tensor, " s"]
    share: Float[Tensor, " s"]
    seed: Int[Tensor, " s"]
    noise: Float[Tensor, " s"]


class Stream:
    """The passes of a few images behind each other, numbered from 0.

    Args:
        images: the few.
        samples: of each.

    Attributes:
        image: number of each pass's image.
        share: weight of each pass in its image's mean.
        start: number of the pass at the start of each pass's path, where paths start with their references.
        nearest: number of the pass of each image that is nearest to its reference.
    """

    def __init__(self, images: Float[Tensor, "n c h w"], samples: Sequence[Samples]) -> None:
        self.images, self.samples = images, samples
        counts = torch.tensor([len(s.position) for s in samples])
        self.image: Int[Tensor, " s"] = torch.arange(len(images)).repeat_interleave(counts)
        self.share: Float[Tensor, " s"] = torch.cat([s.share for s in samples])
        self.start: Int[Tensor, " s"] = torch.arange(len(self.image)).where(self.share == 0, 0).cummax(dim=0).values
        self._first = counts.cumsum(dim=0) - counts
        self.nearest: Int[Tensor, " n"] = self._first + torch.stack([s.position.argmin() for s in samples])

    def __len__(self) -> int:
        return len(self.image)

    @property
    def farthest(self) -> Float[Tensor, "n c h w"]:
        """Of the references of each image, that which is farthest from it."""
        return torch.cat(
            [farthest(s.references, self.images[i]) for i, s in enumerate(self.samples) if s.references is not None]
        )

    def perturbed(self, passes: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        """The images z of some of the passes, in ascending order."""
        parts = [perturbed(self.images[i : i + 1], self.samples[i], rows) for i, rows in self._by_image(passes)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def differences(self, passes: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        """The differences x - x' of some of the passes, in ascending order, all with references."""
        parts = []
        for i, rows in self._by_image(passes):
            references = self.samples[i].references
            assert references is not None  # noqa: S101 - see above
            parts.append(self.images[i] - references[self.samples[i].path[rows].to(references.device)])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _by_image(self, passes: Int[Tensor, " m"]) -> Iterator[tuple[int, Int[Tensor, " k"]]]:
        image = self.image[passes]
        return ((i, passes[image == i] - self._first[i]) for i in image.unique().tolist())


def farthest(references: Float[Tensor, "r c h w"], image: Float[Tensor, "c h w"]) -> Float[Tensor, "1 c h w"]:
    """The reference that differs most from the image: if the model recognises the class in it, no other one removes it."""
    return references[(references - image).flatten(1).square().sum(dim=1).argmax().reshape(1)]


def quadrature(rule: Quadrature, points: int) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Positions in [0, 1] and their weights.

    >>> quadrature("trapezoid", 3)
    (tensor([0.0000, 0.5000, 1.0000]), tensor([0.2500, 0.5000, 0.2500]))

    Raises:
        ValueError: for another rule.
    """
    even = torch.full((points,), 1 / points)
    if rule == "right":
        return torch.arange(1, points + 1) / points, even
    if rule == "midpoint":
        return (torch.arange(points) + 0.5) / points, even
    if rule == "trapezoid":
        inner = torch.full((points,), 1 / (points - 1))
        inner[[0, -1]] /= 2
        return torch.linspace(0, 1, points), inner
    raise ValueError(f"quadrature {rule!r} is unknown; give 'right', 'midpoint' or 'trapezoid'")


def noise_of_passes(count: int, std: float, antithetic: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Seed and standard deviation of each pass's noise; antithetic pairs share the seed, and differ in the sign."""
    seed = torch.randint(2**62, (count,), generator=generator, device=generator.device).cpu()
    noise = torch.full((count,), std)
    if antithetic:
        seed[1::2] = seed[0::2][: count // 2]
        noise[1::2] *= -1
    return seed, noise


def perturbed(image: Float[Tensor, "1 c h w"], samples: Samples, rows: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
    """The images z of some of an image's passes."""
    if samples.references is None:
        z = image.repeat(len(rows), 1, 1, 1)
    else:
        z = samples.references[samples.path[rows].to(image.device)]
        z.lerp_(image.expand_as(z), samples.position[rows].to(image).view(-1, 1, 1, 1))
    std, seeds = samples.noise[rows].tolist(), samples.seed[rows]
    for seed in seeds[samples.noise[rows] != 0].unique().tolist():
        noise = _normal(image, seed)
        for row in (seeds == seed).nonzero().flatten().tolist():
            z[row].add_(noise, alpha=std[row])
    return z


def _normal(image: Float[Tensor, "1 c h w"], seed: int) -> Float[Tensor, "c h w"]:
    """Noise that depends on its seed alone: not on chunks and their order, nor on the image's memory layout and precision."""
    generator = torch.Generator(image.device).manual_seed(seed)
    return torch.empty(image.shape[1:], dtype=torch.float32, device=image.device).normal_(generator=generator)
