r"""References: the distributions D of the images that paths start from.

A distribution is called with an image and draws references for it with the image's own generator, so that the rest of the batch
does not matter. A finite set is drawn without replacement, and again from the start when it is used up.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import torch
from annotated_types import Ge, Gt, Unit
from jaxtyping import Float
from torch import Tensor

from faithmap.baselines import REFERENCE_SIZE, Baseline, make_baseline
from faithmap.seeds import normal_draws, uniform

GOLDEN = (5**0.5 - 1) / 2


class Distribution(ABC):
    """Base of reference distributions. Derive from it for one of your own.

    >>> class Flipped(Distribution):
    ...     def __call__(self, image: Tensor, count: int, generator: torch.Generator) -> Tensor:
    ...         return image.flip(-1).expand(count, -1, -1, -1)
    >>> draw_references(Flipped(), torch.tensor([[[[0.0, 1.0]]]]), 1, torch.Generator())
    tensor([[[[1., 0.]]]])
    """

    @abstractmethod
    def __call__(self, image: Float[Tensor, "1 c h w"], count: int, generator: torch.Generator) -> Float[Tensor, "k c h w"]:
        """``count`` references for an image, in random order.

        Args:
            image: the explained image.
            count: number of references, at least 1.
            generator: of this image; the only source of random numbers.
        """


References: TypeAlias = Distribution | Baseline
"""A distribution; a baseline, which is a distribution of one image; or a tensor of several images to draw from."""


@dataclass(frozen=True, eq=False)
class ImageSet(Distribution):
    """Images to draw from, without replacement.

    Args:
        images: preprocessed like the explained ones.

    >>> ImageSet(torch.ones(2, 1, 1, 1))(torch.zeros(1, 1, 1, 1), 2, torch.Generator()).flatten()
    tensor([1., 1.])
    """

    images: Float[Tensor, "m c h w"]

    def __call__(self, image: Float[Tensor, "1 c h w"], count: int, generator: torch.Generator) -> Float[Tensor, "k c h w"]:
        """Some of the images, each used equally often, plus or minus once."""
        if self.images.ndim != 4 or self.images.shape[1:] != image.shape[1:]:
            shape, wanted = tuple(self.images.shape), tuple(image.shape[1:])
            raise ValueError(f"the reference images have shape {shape}; give (images, {', '.join(map(str, wanted))})")
        rounds = -(-count // len(self.images))
        order = [torch.randperm(len(self.images), generator=generator, device=generator.device) for _ in range(rounds)]
        return self.images.to(image)[torch.cat(order)[:count].to(image.device)]

    @classmethod
    def of_loader(cls, loader: Iterable[Any], count: int, generator: torch.Generator) -> ImageSet:
        """A uniform sample of a data loader's images, without loading all at once (reservoir sampling, Vitter 1985).

        Args:
            loader: yields batches of images, or tuples with a batch of images first.
            count: number of images in the sample.
            generator: on the CPU.

        Raises:
            ValueError: for a loader without images.
        """
        batches = (batch if isinstance(batch, Tensor) else batch[0] for batch in loader)
        kept: list[Tensor] = []
        for number, image in enumerate(itertools.chain.from_iterable(batches)):
            place = number if number < count else int(torch.randint(number + 1, (), generator=generator))
            if place < count:
                kept[place : place + 1] = [image.detach().clone()]
        if not kept:
            raise ValueError("the loader of reference images yields none")
        return cls(torch.stack(kept))

    @classmethod
    def of_folder(cls, folder: str | Path, read: Callable[[Path], Tensor], count: int, generator: torch.Generator) -> ImageSet:
        """A uniform sample of a folder's images. The others are not read.

        Args:
            folder: with image files, also in subfolders.
            read: from a path to a preprocessed image (1, c, h, w), such as ``model.read``.
            count: number of images in the sample.
            generator: on the CPU.

        Raises:
            faithmap.ImageError: for a folder without images, or an image that cannot be read.
        """
        from faithmap.data import image_files  # noqa: PLC0415 - only this method reads files

        files = image_files([folder])
        chosen = torch.randperm(len(files), generator=generator)[:count].tolist()
        return cls(torch.cat([read(files[i]) for i in chosen]))


@dataclass(frozen=True)
class RandomBlurs(Distribution):
    r"""The image itself, blurred with random strengths, uniform in their logarithm.

    A Gaussian over mirrored borders multiplies an image's k-th cosine along an axis of n pixels by
    :math:`e^{-(\pi k \sigma / n)^2 / 2}`. Few cosines remain after a strong blur, so that many blurs of one image are cheap.

    Args:
        weakest: smallest sigma of a Gaussian, in pixels at 224.
        strongest: largest sigma of a Gaussian, in pixels at 224.

    >>> blurs = RandomBlurs()(torch.rand(1, 3, 8, 8), 4, torch.Generator())
    >>> blurs.shape
    torch.Size([4, 3, 8, 8])
    """

    weakest: Annotated[float, Gt(0), Unit("pixels at 224")] = 5.0
    strongest: Annotated[float, Gt(0), Unit("pixels at 224")] = 50.0

    def __call__(self, image: Float[Tensor, "1 c h w"], count: int, generator: torch.Generator) -> Float[Tensor, "k c h w"]:
        """Blurs of the image, stratified: a few of them cover the range evenly."""
        sigmas = self.weakest * (self.strongest / self.weakest) ** self._shares(count, generator)
        sigmas = sigmas * (min(image.shape[-2:]) / REFERENCE_SIZE)
        rows, columns = (_cosines(n, float(sigmas.min()), image) for n in image.shape[-2:])
        spectrum = rows @ image[0] @ columns.mT
        blurs = image.new_empty(count, *image.shape[1:])
        for blur, sigma in zip(blurs, sigmas.tolist(), strict=True):
            r, c = (_damped(cosines, sigma) for cosines in (rows, columns))
            torch.matmul(r.mT @ spectrum[:, : len(r), : len(c)], c, out=blur)
        return blurs

    def _shares(self, count: int, generator: torch.Generator) -> Float[Tensor, " k"]:
        """Positions from the weakest (0) to the strongest (1), on a logarithmic scale."""
        within = uniform((count,), generator).cpu()
        return (torch.randperm(count, generator=generator, device=generator.device).cpu() + within) / count


@dataclass(frozen=True)
class EvenBlurs(RandomBlurs):
    """Blurs of the image with fixed strengths, in the middles of equal parts of the range on a logarithmic scale.

    Their order is that of the multiples of the golden section, a low-discrepancy sequence: together with rising positions on a
    path, strengths and positions cover their plane evenly.

    Args:
        weakest: smallest sigma of a Gaussian, in pixels at 224.
        strongest: largest sigma of a Gaussian, in pixels at 224.

    >>> image = torch.rand(1, 3, 8, 8)
    >>> torch.equal(EvenBlurs()(image, 4, torch.Generator()), EvenBlurs()(image, 4, torch.Generator()))
    True
    """

    def _shares(self, count: int, generator: torch.Generator) -> Float[Tensor, " k"]:
        del generator
        turns = (torch.arange(count, dtype=torch.float64) + 0.5) * GOLDEN % 1
        return (turns.argsort().argsort() + 0.5).float() / count


FADED = 5.0
"""Cosines that are damped by more than exp(-FADED^2 / 2), four parts in a million, are left out."""


def _cosines(n: int, sigma: float, like: Tensor) -> Float[Tensor, "k n"]:
    """The orthonormal cosines of n pixels (DCT-II) that a Gaussian does not remove."""
    count = min(n, int(FADED * n / (math.pi * sigma)) + 1)
    k, at = (torch.arange(m, device=like.device, dtype=torch.float64) for m in (count, n))
    waves = torch.cos(math.pi / n * k.unsqueeze(1) * (at + 0.5)) * math.sqrt(2 / n)
    waves[0] *= math.sqrt(0.5)
    return waves.to(like.dtype)


def _damped(cosines: Float[Tensor, "k n"], sigma: float) -> Float[Tensor, "l n"]:
    """The cosines that this Gaussian does not remove, damped by it."""
    n = cosines.shape[1]
    k = torch.arange(min(len(cosines), int(FADED * n / (math.pi * sigma)) + 1), device=cosines.device)
    return cosines[: len(k)] * torch.exp(-0.5 * (math.pi * sigma / n * k).square()).to(cosines).unsqueeze(1)


@dataclass(frozen=True)
class RandomNoise(Distribution):
    """Independent Gaussian pixels, clamped to [0, 1].

    Args:
        mean: mean of the pixels, in pixel values.
        std: standard deviation of the pixels, in pixel values, at least 0.

    >>> RandomNoise()(torch.rand(1, 3, 8, 8), 4, torch.Generator()).shape
    torch.Size([4, 3, 8, 8])
    """

    mean: Annotated[float, Unit("pixel values")] = 0.5
    std: Annotated[float, Ge(0), Unit("pixel values")] = 0.25

    def __call__(self, image: Float[Tensor, "1 c h w"], count: int, generator: torch.Generator) -> Float[Tensor, "k c h w"]:
        """Independent noise for each reference."""
        noise = normal_draws(1, (count, *image.shape[1:]), generator)[0]
        return noise.mul_(self.std).add_(self.mean).clamp_(0, 1).to(image)


@dataclass(frozen=True)
class RandomConstants(Distribution):
    """One random colour per reference, uniform between two values in each channel.

    Args:
        low: lowest colour, in pixel values.
        high: highest colour, in pixel values.

    >>> RandomConstants()(torch.rand(1, 3, 8, 8), 4, torch.Generator()).shape
    torch.Size([4, 3, 8, 8])
    """

    low: Annotated[float, Unit("pixel values")] = 0.0
    high: Annotated[float, Unit("pixel values")] = 1.0

    def __call__(self, image: Float[Tensor, "1 c h w"], count: int, generator: torch.Generator) -> Float[Tensor, "k c h w"]:
        """An independent colour for each reference."""
        colours = uniform((count, image.shape[1], 1, 1), generator)
        return (self.low + (self.high - self.low) * colours).to(image).expand(-1, -1, *image.shape[2:])


@dataclass(frozen=True, eq=False)
class Mixture(Distribution):
    """Several distributions, each drawn from equally often, plus or minus once.

    Args:
        parts: distributions, or baselines by name, value or tensor.

    >>> Mixture([0.0, 1.0])(torch.zeros(1, 1, 1, 1), 4, torch.Generator()).sum()
    tensor(2.)
    """

    parts: Sequence[References]

    def __call__(self, image: Float[Tensor, "1 c h w"], count: int, generator: torch.Generator) -> Float[Tensor, "k c h w"]:
        """References of each, in random order."""
        if not self.parts:
            raise ValueError("the mixture has no parts; give at least one distribution or baseline")
        shares = [len(range(i, count, len(self.parts))) for i in range(len(self.parts))]
        drawn = [
            draw_references(part, image, share, generator) for part, share in zip(self.parts, shares, strict=True) if share
        ]
        order = torch.randperm(count, generator=generator, device=generator.device).to(image.device)
        return torch.cat(drawn)[order]


def draw_references(
    references: References, image: Float[Tensor, "1 c h w"], count: int, generator: torch.Generator
) -> Float[Tensor, "k c h w"]:
    """References for one image, of a distribution in any form.

    Args:
        references: a distribution, a baseline, or several images as a tensor.
        image: the one.
        count: number of references.
        generator: of the image.

    Raises:
        ValueError: for references that do not fit the image, or are not finite.

    >>> draw_references("black", torch.ones(1, 1, 1, 1), 2, torch.Generator()).flatten()
    tensor([0., 0.])
    """
    if isinstance(references, Tensor) and references.ndim == 4 and len(references) > 1:
        references = ImageSet(references)
    if not isinstance(references, Distribution):
        return make_baseline(references, image).expand(count, -1, -1, -1)
    drawn = references(image, count, generator).detach().to(image)
    if drawn.shape != (count, *image.shape[1:]) or not bool(drawn.sum().isfinite()):
        name, wanted = type(references).__name__, (count, *image.shape[1:])
        raise ValueError(f"{name} drew {tuple(drawn.shape)}; a distribution returns finite {wanted}")
    return drawn
