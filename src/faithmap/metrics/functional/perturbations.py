r"""Perturbations I of infidelity (Yeh et al. 2019, Section 3): an image x is shown as x - I, for a random I.

:gaussian: :math:`x - I = clip(b + \sigma \epsilon)`, a noisy baseline, with :math:`\epsilon` standard normal in every channel.
:square: :math:`x - I = x + m (b - x)`, with m = 1 in a random square and 0 elsewhere: the square becomes the baseline.
:region: the same, with m = 1 in each segment of the image, or cell of a grid, that a coin picks.

The defaults are those of the authors' public code, in the units of the [0, 1] image: a black baseline, sigma 0.2, and squares
whose sides are 1 to 10 pixels of the 28 that a digit has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from faithmap.baselines import REFERENCE_SIZE, Baseline, make_baseline
from faithmap.metrics.functional.draws import normal, uniform


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Draws for one image.

    Attributes:
        shown: x - I.
        removed: m, where the perturbation takes whole pixels away; else None.
    """

    shown: Float[Tensor, "k c h w"]
    removed: Bool[Tensor, "k h w"] | Float[Tensor, "k h w"] | None = None


Draw: TypeAlias = Callable[[int, torch.Generator], Perturbed]
"""Draws so many perturbations of one image; the k-th is the same however many are drawn at once."""


class Perturbation(ABC):
    """Base of the perturbations; a user's own derives from it, or is a function (see :class:`Custom`)."""

    @abstractmethod
    def prepare(self, images: Float[Tensor, "n c h w"]) -> list[Draw]:
        """What draws for each image."""


@dataclass(frozen=True, eq=False)
class Gaussian(Perturbation):
    """A noisy baseline instead of the image.

    Args:
        baseline: the mean of what is shown.
        std: of the noise, in pixel units.
        limits: what is shown is cut to these; None for a model whose images have other units than [0, 1].
    """

    baseline: Baseline = "black"
    std: float = 0.2
    limits: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not self.std >= 0:
            raise ValueError(f"std is {self.std}; give 0 or more, in pixel units")

    def prepare(self, images: Float[Tensor, "n c h w"]) -> list[Draw]:
        """What draws for each image."""
        return [partial(self._draw, baseline) for baseline in make_baseline(self.baseline, images)]

    def _draw(self, baseline: Float[Tensor, "c h w"], count: int, generator: torch.Generator) -> Perturbed:
        shown = normal(count, baseline.shape, generator).to(baseline).mul_(self.std).add_(baseline)
        return Perturbed(shown if self.limits is None else shown.clamp_(*self.limits))


@dataclass(frozen=True, eq=False)
class Square(Perturbation):
    """A square of random side and place becomes the baseline; it lies wholly inside the image.

    Args:
        sides: the smallest and the largest side, in pixels at 224; they scale with the shorter side of the image. All whole
            numbers of pixels between them, both included, are as likely.
        baseline: what is shown there.
        squares: in one draw; they may overlap.
    """

    sides: tuple[float, float] = (8, 80)
    baseline: Baseline = "black"
    squares: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.sides[0] <= self.sides[1] or self.squares < 1:
            raise ValueError(
                f"sides is {self.sides} of {self.squares} squares; give (smallest, largest), and at least 1 square"
            )

    def prepare(self, images: Float[Tensor, "n c h w"]) -> list[Draw]:
        """What draws for each image."""
        pairs = zip(images, make_baseline(self.baseline, images), strict=True)
        return [partial(self._draw, image, baseline) for image, baseline in pairs]

    def _draw(self, image: Tensor, baseline: Tensor, count: int, generator: torch.Generator) -> Perturbed:
        height, width = image.shape[-2:]
        shorter = min(height, width)
        low, high = (min(max(1, round(side * shorter / REFERENCE_SIZE)), shorter) for side in self.sides)
        size, down, right = uniform(count, (3, self.squares), generator, torch.float64).to(image.device).unbind(1)
        side = low + (size * (high - low + 1)).floor()
        rows = _between((down * (height - side + 1)).floor(), side, height)
        columns = _between((right * (width - side + 1)).floor(), side, width)
        return _without(image, baseline, (rows.unsqueeze(-1) & columns.unsqueeze(-2)).any(dim=1))


@dataclass(frozen=True, eq=False)
class Region(Perturbation):
    """Each segment becomes the baseline or not, independently of the others.

    Args:
        segments: cells a side of a grid, or (rows, columns); or whole numbers that name each pixel's segment, (n, h, w), or
            (h, w) for all images; or a function that makes these from the images.
        share: probability of each segment to go.
        baseline: what is shown there.
    """

    segments: int | tuple[int, int] | Int[Tensor, "*n h w"] | Callable[[Tensor], Tensor] = 7
    share: float = 0.5
    baseline: Baseline = "black"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; give the probability of a segment to go, above 0 and up to 1")

    def prepare(self, images: Float[Tensor, "n c h w"]) -> list[Draw]:
        """What draws for each image."""
        named = [part.unique(return_inverse=True) for part in segment_map(self.segments, images)]
        trios = zip(images, make_baseline(self.baseline, images), named, strict=True)
        return [partial(self._draw, image, baseline, place, len(names)) for image, baseline, (names, place) in trios]

    def _draw(
        self, image: Tensor, baseline: Tensor, place: Int[Tensor, "h w"], segments: int, count: int, generator: torch.Generator
    ) -> Perturbed:
        gone = uniform(count, (segments,), generator).to(image.device) < self.share
        mask = gone.gather(1, place.flatten().expand(count, -1))  # seven times as fast as gone[:, place]
        return _without(image, baseline, mask.view(count, *place.shape))


@dataclass(frozen=True, eq=False)
class Custom(Perturbation):
    """A user's own.

    Args:
        function: from an image (1, c, h, w) and its generator to x - I of the same shape, or to a pair of that and m, of shape
            (1, h, w). It is asked for one draw at a time.
    """

    function: Callable[[Tensor, torch.Generator], Tensor | tuple[Tensor, Tensor]]

    def prepare(self, images: Float[Tensor, "n c h w"]) -> list[Draw]:
        """What draws for each image."""
        return [partial(self._draw, image) for image in images.split(1)]

    def _draw(self, image: Float[Tensor, "1 c h w"], count: int, generator: torch.Generator) -> Perturbed:
        answers = [self.function(image.clone(), generator) for _ in range(count)]
        pairs = [answer if isinstance(answer, tuple) else (answer, None) for answer in answers]
        mask = (1, *image.shape[-2:])
        for shown, removed in pairs:
            if shown.shape != image.shape or (removed is not None and removed.shape != mask):
                given = tuple(shown.shape), None if removed is None else tuple(removed.shape)
                raise ValueError(f"the perturbation made {given[0]} and the mask {given[1]}; give {tuple(image.shape)}, {mask}")
        masks = [removed for _, removed in pairs if removed is not None]
        return Perturbed(torch.cat([shown for shown, _ in pairs]).to(image), torch.cat(masks) if masks else None)


PerturbationName: TypeAlias = Literal["gaussian", "square", "region"]
PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType({"gaussian": Gaussian(), "square": Square(), "region": Region()})
AnyPerturbation: TypeAlias = (
    PerturbationName | Perturbation | Callable[[Tensor, torch.Generator], Tensor | tuple[Tensor, Tensor]]
)


def make_perturbation(perturbation: AnyPerturbation) -> Perturbation:
    """A name, a perturbation or a function, as a perturbation.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(perturbation, str):
        if perturbation not in PERTURBATIONS:
            raise ValueError(f"perturbation {perturbation!r} is unknown; give one of {', '.join(PERTURBATIONS)}, or your own")
        return PERTURBATIONS[perturbation]
    return perturbation if isinstance(perturbation, Perturbation) else Custom(perturbation)


def segment_map(
    segments: int | tuple[int, int] | Tensor | Callable[[Tensor], Tensor], images: Float[Tensor, "n c h w"]
) -> Int[Tensor, "n h w"]:
    """The segment of each pixel.

    >>> segment_map((1, 2), torch.zeros(1, 3, 2, 5)).tolist()
    [[[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]]
    """
    height, width = images.shape[-2:]
    if isinstance(segments, (int, tuple)):
        rows, columns = (segments, segments) if isinstance(segments, int) else segments
        if not (1 <= rows <= height and 1 <= columns <= width):
            raise ValueError(f"a grid of {rows} x {columns} cells does not fit images of {height} x {width} pixels")
        row, column = (torch.arange(n) * cells // n for n, cells in ((height, rows), (width, columns)))
        made = row.unsqueeze(1) * columns + column
    else:
        made = segments if isinstance(segments, Tensor) else segments(images)
    if made.is_floating_point() or made.shape not in (images[:, 0].shape, (height, width)):
        shape = tuple(images[:, 0].shape)
        raise ValueError(
            f"segments have shape {tuple(made.shape)} and {made.dtype}; give whole numbers, {shape} or {shape[1:]}"
        )
    return made.to(images.device).expand(len(images), height, width)


def _between(start: Float[Tensor, "k s"], length: Float[Tensor, "k s"], size: int) -> Bool[Tensor, "k s p"]:
    at = torch.arange(size, device=start.device)
    return (at >= start.unsqueeze(-1)) & (at < (start + length).unsqueeze(-1))


def _without(image: Float[Tensor, "c h w"], baseline: Float[Tensor, "c h w"], mask: Bool[Tensor, "k h w"]) -> Perturbed:
    return Perturbed(torch.where(mask.unsqueeze(1), baseline, image), mask)
