r"""Infidelity (Yeh et al. 2019): squared error of the score drop that the heatmap predicts for a random perturbation.

A random perturbation I is subtracted from the image x; the heatmap :math:`\Phi` predicts a score drop of :math:`I \cdot \Phi`:

.. math::
    INFD = E_I \left[ (\beta \, I \cdot \Phi - (f(x) - f(x - I)))^2 \right], \qquad
    \beta^* = \frac{E[(I \cdot \Phi) (f(x) - f(x - I))]}{E[(I \cdot \Phi)^2]}

The scale of a heatmap is arbitrary, so each image's map is multiplied by the best one, :math:`\beta^*` ("optimal scaling").

:math:`I \cdot \Phi` depends on what a value of the heatmap means, in the paper as in captum (``multiply_by_inputs``):

:local: the score drop per unit of a pixel, as of a gradient. The sum is over :math:`\Phi (x - x')`, with :math:`x' = x - I`
    the perturbed image. A map with one value per pixel has the same value for all channels:
    :math:`\sum_{yx} \Phi_{yx} \sum_c (x - x')_{cyx}`.
:global: the score drop if that pixel is removed, as of a gradient times :math:`x - b`. The sum is over :math:`\Phi m`, with
    m = 1 for removed pixels. The values of the channels are added.

Perturbations (Section 3 of the paper):

:gaussian: :math:`x - I = clip(b + \sigma \epsilon)`, a noisy baseline, with :math:`\epsilon` standard normal in every channel.
:square: :math:`x - I = x + m (b - x)`, with m = 1 in a random square and 0 elsewhere: the square becomes the baseline.
:region: the same, with m = 1 in each segment of the image, or cell of a grid, with a given probability.

The defaults are those of the authors' public code, in the units of the [0, 1] image: a black baseline, sigma 0.2, and squares
with sides of 1 to 10 of the 28 pixels of a digit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from faithmap.baselines import REFERENCE_SIZE, Baseline, make_baseline
from faithmap.explanation import Explanation
from faithmap.metrics.functional.curves import PreparedInputs, Progress, prepared_inputs
from faithmap.probe import run_model
from faithmap.score import ScoreKind, Target, at_least_single
from faithmap.seeds import Generators, chunked_draws, normal_draws, resolve_generators, uniform_draws

Reading: TypeAlias = Literal["local", "global"]


@dataclass(frozen=True, eq=False)
class PerturbedImages:
    """Random perturbations of one image.

    >>> PerturbedImages(torch.zeros(2, 3, 4, 4)).removed is None
    True

    Attributes:
        images: the perturbed images x - I.
        removed: m, if the perturbation removes whole pixels; otherwise None.
    """

    images: Float[Tensor, "k c h w"]
    removed: Bool[Tensor, "k h w"] | Float[Tensor, "k h w"] | None = None


PerturbationSampler: TypeAlias = Callable[[int, torch.Generator], PerturbedImages]
"""Draws a number of perturbations of one image; the k-th does not depend on how many are drawn by one call."""


class Perturbation(ABC):
    """Base of the perturbations; derive from it for a perturbation of your own, or pass a function (see :class:`Custom`).

    >>> class Darker(Perturbation):
    ...     def prepare(self, images):
    ...         return [lambda count, generator, x=x: PerturbedImages(x.expand(count, -1, -1, -1) / 2) for x in images]
    >>> (sampler,) = Darker().prepare(torch.ones(1, 3, 4, 4))
    >>> tuple(sampler(5, torch.Generator()).images.shape)
    (5, 3, 4, 4)
    """

    @abstractmethod
    def prepare(self, images: Float[Tensor, "n c h w"]) -> list[PerturbationSampler]:
        """One sampler per image.

        Args:
            images: the clean images.
        """


@dataclass(frozen=True, eq=False)
class Gaussian(Perturbation):
    """A noisy baseline replaces the image.

    >>> (sampler,) = Gaussian(std=0.0).prepare(torch.ones(1, 3, 4, 4))
    >>> float(sampler(1, torch.Generator()).images.max())
    0.0

    Args:
        baseline: the mean of the perturbed image.
        std: standard deviation of the noise, in pixel units, at least 0.
        limits: the range to which the perturbed image is clipped; None for images in other units than [0, 1].

    Raises:
        ValueError: for a negative std.
    """

    baseline: Baseline = "black"
    std: float = 0.2
    limits: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not self.std >= 0:
            raise ValueError(f"std is {self.std}; give 0 or more, in pixel units")

    def prepare(self, images: Float[Tensor, "n c h w"]) -> list[PerturbationSampler]:
        """One sampler per image."""
        return [partial(self._draw, baseline) for baseline in make_baseline(self.baseline, images)]

    def _draw(self, baseline: Float[Tensor, "c h w"], count: int, generator: torch.Generator) -> PerturbedImages:
        perturbed = normal_draws(count, baseline.shape, generator).to(baseline).mul_(self.std).add_(baseline)
        return PerturbedImages(perturbed if self.limits is None else perturbed.clamp_(*self.limits))


@dataclass(frozen=True, eq=False)
class Square(Perturbation):
    """A square of random side and position, inside the image, becomes the baseline.

    >>> (sampler,) = Square(sides=(112, 112)).prepare(torch.ones(1, 3, 4, 4))
    >>> int(sampler(1, torch.Generator()).removed.sum())
    4

    Args:
        sides: the smallest and the largest side, in pixels at 224; they scale with the shorter side of the image. All integer
            numbers of pixels from the smallest to the largest are equally likely.
        baseline: what the square becomes.
        squares: number of squares per draw, at least 1; they may overlap.

    Raises:
        ValueError: for sides that are not positive or in descending order, or no square.
    """

    sides: tuple[float, float] = (8, 80)
    baseline: Baseline = "black"
    squares: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.sides[0] <= self.sides[1] or self.squares < 1:
            raise ValueError(
                f"sides is {self.sides} of {self.squares} squares; give (smallest, largest), and at least 1 square"
            )

    def prepare(self, images: Float[Tensor, "n c h w"]) -> list[PerturbationSampler]:
        """One sampler per image."""
        pairs = zip(images, make_baseline(self.baseline, images), strict=True)
        return [partial(self._draw, image, baseline) for image, baseline in pairs]

    def _draw(self, image: Tensor, baseline: Tensor, count: int, generator: torch.Generator) -> PerturbedImages:
        height, width = image.shape[-2:]
        shorter = min(height, width)
        low, high = (min(max(1, round(side * shorter / REFERENCE_SIZE)), shorter) for side in self.sides)
        size, top, left = uniform_draws(count, (3, self.squares), generator, torch.float64).to(image.device).unbind(1)
        side = low + (size * (high - low + 1)).floor()
        rows = _interval((top * (height - side + 1)).floor(), side, height)
        columns = _interval((left * (width - side + 1)).floor(), side, width)
        return _replaced(image, baseline, (rows.unsqueeze(-1) & columns.unsqueeze(-2)).any(dim=1))


@dataclass(frozen=True, eq=False)
class Region(Perturbation):
    """Each segment becomes the baseline with a given probability, independently of the others.

    >>> (sampler,) = Region(segments=2, share=1.0).prepare(torch.ones(1, 3, 4, 4))
    >>> bool(sampler(1, torch.Generator()).removed.all())
    True

    Args:
        segments: number of cells per side of a grid, or (rows, columns); or the segment of each pixel as integers, (n, h, w),
            or (h, w) for all images; or a function that computes these from the images.
        share: probability that a segment is removed, in (0, 1].
        baseline: what removed segments become.

    Raises:
        ValueError: for a share outside (0, 1].
    """

    segments: int | tuple[int, int] | Int[Tensor, "*n h w"] | Callable[[Tensor], Tensor] = 7
    share: float = 0.5
    baseline: Baseline = "black"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; give the probability that a segment is removed, above 0 and up to 1")

    def prepare(self, images: Float[Tensor, "n c h w"]) -> list[PerturbationSampler]:
        """One sampler per image."""
        segmented = [part.unique(return_inverse=True) for part in segment_map(self.segments, images)]
        zipped = zip(images, make_baseline(self.baseline, images), segmented, strict=True)
        return [partial(self._draw, image, baseline, index, len(names)) for image, baseline, (names, index) in zipped]

    def _draw(
        self, image: Tensor, baseline: Tensor, index: Int[Tensor, "h w"], segments: int, count: int, generator: torch.Generator
    ) -> PerturbedImages:
        removed = uniform_draws(count, (segments,), generator).to(image.device) < self.share
        mask = removed.gather(1, index.flatten().expand(count, -1))  # seven times as fast as removed[:, index]
        return _replaced(image, baseline, mask.view(count, *index.shape))


@dataclass(frozen=True, eq=False)
class Custom(Perturbation):
    """A perturbation of your own.

    >>> (sampler,) = Custom(lambda image, generator: image / 2).prepare(torch.ones(1, 3, 4, 4))
    >>> float(sampler(1, torch.Generator()).images.max())
    0.5

    Args:
        function: from an image (1, c, h, w) and its generator to x - I of the same shape, or to a pair of that and m, of shape
            (1, h, w). It is called once per draw.
    """

    function: Callable[[Tensor, torch.Generator], Tensor | tuple[Tensor, Tensor]]

    def prepare(self, images: Float[Tensor, "n c h w"]) -> list[PerturbationSampler]:
        """One sampler per image."""
        return [partial(self._draw, image) for image in images.split(1)]

    def _draw(self, image: Float[Tensor, "1 c h w"], count: int, generator: torch.Generator) -> PerturbedImages:
        results = [self.function(image.clone(), generator) for _ in range(count)]
        pairs = [result if isinstance(result, tuple) else (result, None) for result in results]
        mask = (1, *image.shape[-2:])
        for perturbed, removed in pairs:
            if perturbed.shape != image.shape or (removed is not None and removed.shape != mask):
                given = tuple(perturbed.shape), None if removed is None else tuple(removed.shape)
                raise ValueError(
                    f"the perturbation returned {given[0]} and the mask {given[1]}; return {tuple(image.shape)}, {mask}"
                )
        masks = [removed for _, removed in pairs if removed is not None]
        return PerturbedImages(torch.cat([perturbed for perturbed, _ in pairs]).to(image), torch.cat(masks) if masks else None)


PerturbationName: TypeAlias = Literal["gaussian", "square", "region"]
PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType({"gaussian": Gaussian(), "square": Square(), "region": Region()})
AnyPerturbation: TypeAlias = (
    PerturbationName | Perturbation | Callable[[Tensor, torch.Generator], Tensor | tuple[Tensor, Tensor]]
)


def make_perturbation(perturbation: AnyPerturbation) -> Perturbation:
    """The perturbation of that name, or a function as a perturbation; a perturbation is returned unchanged.

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


def _interval(start: Float[Tensor, "k s"], length: Float[Tensor, "k s"], size: int) -> Bool[Tensor, "k s p"]:
    """The pixels from start to start + length along one axis."""
    at = torch.arange(size, device=start.device)
    return (at >= start.unsqueeze(-1)) & (at < (start + length).unsqueeze(-1))


def _replaced(image: Float[Tensor, "c h w"], baseline: Float[Tensor, "c h w"], mask: Bool[Tensor, "k h w"]) -> PerturbedImages:
    return PerturbedImages(torch.where(mask.unsqueeze(1), baseline, image), mask)


@dataclass(frozen=True, eq=False)
class InfidelityResult:
    """Predicted and observed score drops of n images, in double precision.

    Both numbers of each draw are kept: sums of their squares would cancel for a nearly perfect map.

    >>> predicted, observed = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[0.1, 0.2]]).double()
    >>> result = InfidelityResult(predicted, observed, scaled=True, perturbation=Square(), reading="global")
    >>> result.scale, result.value
    (tensor([0.1000], dtype=torch.float64), tensor([0.], dtype=torch.float64))

    Attributes:
        predicted: I . Phi of every draw, before scaling.
        observed: f(x) - f(x - I) of every draw.
        scaled: whether the value is that of the scaled map.
        perturbation: distribution of I.
        reading: how I . Phi was computed.
    """

    predicted: Float[Tensor, "n k"]
    observed: Float[Tensor, "n k"]
    scaled: bool
    perturbation: Perturbation
    reading: Reading

    @property
    def scale(self) -> Float[Tensor, " n"]:
        """The best factor, beta*; negative if the negated map is better, 0 if the map predicts 0 in every draw."""
        squares = self.predicted.square().mean(dim=1)
        return torch.where(squares > 0, (self.predicted * self.observed).mean(dim=1) / squares, 0.0)

    @property
    def value(self) -> Float[Tensor, " n"]:
        """Infidelity of each image, in units of the squared score: 0 is perfect."""
        return self._errors.mean(dim=1)

    @property
    def standard_error(self) -> Float[Tensor, " n"]:
        """Standard error of each value, over the draws; NaN for a single draw."""
        draws = self.observed.shape[1]
        return self._errors.std(dim=1) / draws**0.5 if draws > 1 else torch.full_like(self.value, torch.nan)

    @property
    def unexplained(self) -> Float[Tensor, " n"]:
        """The value divided by that of a map of zeros, E[(f(x) - f(x - I))^2]: at most 1 if scaled; 0 if no score changed."""
        squares = self.observed.square().mean(dim=1)
        return torch.where(squares > 0, self.value / squares, 0.0)

    @property
    def _errors(self) -> Float[Tensor, "n k"]:
        factor = self.scale.unsqueeze(1) if self.scaled else 1.0
        return (factor * self.predicted - self.observed).square()

    def __len__(self) -> int:
        return len(self.observed)

    def __getitem__(self, image: int) -> InfidelityResult:
        """The result of one image, still with a leading dimension of 1."""
        return replace(self, predicted=self.predicted[image].unsqueeze(0), observed=self.observed[image].unsqueeze(0))


def infidelity(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"] | Float[Tensor, "n c h w"],
    target: Target = None,
    *,
    perturbation: AnyPerturbation = "square",
    draws: int = 1000,
    reading: Reading | None = None,
    scaled: bool = True,
    score: ScoreKind = "probability",
    seed: int = 0,
    generator: Generators = None,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> InfidelityResult:
    """Perturb each image many times, and compare the score drops that its heatmap predicts with the observed ones.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> result = infidelity(model, torch.rand(2, 3, 4, 4), torch.rand(2, 4, 4), draws=20)
    >>> tuple(result.predicted.shape), result.reading
    ((2, 20), 'global')

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: one value per pixel after resampling to the image's size; or attributions of every channel, (n, c, h, w).
        target: the class whose score is observed, or a callable; None for the Explanation's target, or else the predicted
            class.
        perturbation: "square"; "gaussian", the paper's first, which removes the whole score of a natural image in every draw
            and so hardly distinguishes maps; "region"; one of these classes with other settings; or a function of an image
            (1, c, h, w) and its generator that returns x - I, or a pair of that and the mask (1, h, w) of the removed pixels.
        draws: number of perturbations per image, at least 1.
        reading: what a value of the heatmap means; None as in the authors' code: global if the perturbation removes whole
            pixels, as "square" and "region" do, or else local.
        scaled: multiply each map by its best factor.
        score: of the target class: probability or logit.
        seed: of the run; the seed of each image is derived from it and the image's index.
        generator: one for the run, or one per image; None for ``seed``.
        chunk_size: maximum number of images per pass; it changes no draw, and values only by rounding.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (draws done, number of draws), over all images.

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, invalid settings, a global reading of a perturbation
            that removes no pixels, or a score that is not finite.
    """
    made = make_perturbation(perturbation)
    if draws < 1 or reading not in ("local", "global", None):
        raise ValueError(f"draws is {draws} and reading {reading!r}; give at least 1 draw, and 'local', 'global' or None")
    channels = None if isinstance(heatmaps, Explanation) or heatmaps.ndim != 4 else _all_channels(heatmaps, images)
    maps = heatmaps if channels is None else channels.sum(dim=1)
    with (
        prepared_inputs(model, images, maps, target, kind=score, chunk_size=chunk_size, autocast=autocast) as inputs,
        torch.no_grad(),
    ):
        values = inputs.explanation.at(inputs.size).unsqueeze(1) if channels is None else channels
        generators = resolve_generators(generator, seed, len(images), images.device)
        evaluation = _DropEvaluation(model, inputs, at_least_single(values.to(images.device)), reading, autocast)
        samplers = made.prepare(inputs.images)
        for chunk in chunked_draws(len(images), draws, chunk_size):
            evaluation.add([(i, samplers[i](count, generators[i])) for i, count in chunk])
            if progress is not None:
                progress(evaluation.done, len(images) * draws)
    return evaluation.result(scaled, made)


class _DropEvaluation:
    """Collects the predicted and the observed score drop of every draw."""

    def __init__(
        self, model: nn.Module, inputs: PreparedInputs, values: Tensor, reading: Reading | None, autocast: torch.dtype | None
    ) -> None:
        self.model, self.inputs, self.values, self.reading, self.autocast = model, inputs, values, reading, autocast
        self.predicted: list[Tensor] = []
        self.observed: list[Tensor] = []
        self.done = 0

    def add(self, chunk: list[tuple[int, PerturbedImages]]) -> None:
        """One pass of the model over the perturbed images of a chunk."""
        self.reading = self.reading or ("local" if chunk[0][1].removed is None else "global")
        self.predicted += [predicted_drop(self.inputs.images[i], p, self.values[i], self.reading) for i, p in chunk]
        images = chunk[0][1].images if len(chunk) == 1 else torch.cat([p.images for _, p in chunk])
        index = torch.cat([torch.full((len(p.images),), i, device=images.device) for i, p in chunk])
        output = run_model(self.model, images, self.autocast)
        self.observed.append(self.inputs.clean[index].double() - self.inputs.score(output, index).double())
        self.done += len(images)

    def result(self, scaled: bool, perturbation: Perturbation) -> InfidelityResult:
        predicted, observed = (torch.cat(parts).view(len(self.inputs.images), -1) for parts in (self.predicted, self.observed))
        invalid = ~(predicted.isfinite() & observed.isfinite())
        if bool(invalid.any()):
            image = int(invalid.any(dim=1).nonzero()[0])
            count, draws = int(invalid[image].sum()), observed.shape[1]
            raise ValueError(f"image {image}: the score or I . Phi is NaN or infinite in {count} of {draws} draws")
        assert self.reading is not None  # noqa: S101 - the first pass sets it
        return InfidelityResult(predicted, observed, scaled, perturbation, self.reading)


def predicted_drop(
    image: Float[Tensor, "c h w"], perturbed: PerturbedImages, values: Float[Tensor, "v h w"], reading: Reading
) -> Float[Tensor, " k"]:
    r"""I . Phi of every draw; ``values`` has one channel for all channels of the image, or as many as the image.

    >>> perturbed = PerturbedImages(torch.zeros(1, 3, 1, 2), torch.tensor([[[True, False]]]))
    >>> [predicted_drop(torch.ones(3, 1, 2), perturbed, torch.ones(1, 1, 2), kind).item() for kind in ("local", "global")]
    [6.0, 1.0]
    """
    if reading == "global":
        if perturbed.removed is None:
            raise ValueError(
                "a global reading needs the removed pixels, and this perturbation removes none; read it as 'local'"
            )
        products = perturbed.removed.to(values) * values.sum(dim=0)
    elif len(values) == 1:  # channels first: a third of the work
        products = (at_least_single(image).sum(dim=0) - at_least_single(perturbed.images).sum(dim=1)).mul(values)
    else:
        products = (at_least_single(image) - at_least_single(perturbed.images)).mul_(values)
    return products.sum(dim=-1).flatten(1).double().sum(dim=1)


def _all_channels(attributions: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    if attributions.shape != images.shape:
        raise ValueError(
            f"attributions have shape {tuple(attributions.shape)} for images of {tuple(images.shape)}; give the same"
        )
    return attributions.detach()
