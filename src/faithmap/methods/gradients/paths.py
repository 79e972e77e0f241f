r"""Integrated and Expected Gradients: the contribution of each pixel to the change of the score from a reference to the image.

.. math:: a = E_{x' \sim D, \; t \sim U(0, 1)} \Bigl[ (x - x') \cdot
    \frac{\partial y}{\partial x}\bigl(x' + t (x - x')\bigr) \Bigr]

Integrated Gradients (Sundararajan 2017) has one baseline x', or a few, and a quadrature in t; Expected Gradients (Erion 2021)
draws both. Attributions are *complete*: with more positions their sum approaches :math:`y(x) - E y(x')`. The completeness gap
is the absolute difference of the two, divided by :math:`|y(x) - E y(x')|`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Unit
from jaxtyping import Float
from torch import Tensor

from faithmap.methods.base import Passes, warn_if_recognised
from faithmap.methods.gradients.gradient import Channels, GradientExplainer, ImageChunk
from faithmap.methods.references import ImageSet, RandomBlurs, References, draw_references
from faithmap.methods.sampling import Quadrature, Samples, Stream, noise_of_passes, quadrature
from faithmap.methods.settings import AlsoNamed
from faithmap.score import ScoreKind, at_least_single
from faithmap.seeds import uniform


@dataclass(eq=False)
class PathGradients(GradientExplainer):
    """Base of the methods that average gradients along paths from references to the image.

    Args:
        completeness: report the completeness gap, which takes the scores of the references, too.
    """

    score: ScoreKind = "probability"
    channels: Channels = "sum"
    completeness: bool = True

    def attribute(self, chunk: ImageChunk) -> Float[Tensor, "m c h w"]:
        """The mean over the passes of gradient times difference."""
        return self._mean(chunk, self._stream(chunk))

    def _attributed(self, chunk: ImageChunk) -> tuple[Float[Tensor, "m c h w"], Mapping[str, Float[Tensor, " m"]]]:
        stream = self._stream(chunk)
        attribution = self._mean(chunk, stream)
        if not self.completeness:
            warn_if_recognised(self, chunk.request, chunk.numbers, stream.farthest)
            return attribution, {}
        start = self._start(chunk, stream)
        warn_if_recognised(self, chunk.request, chunk.numbers, stream.farthest, chunk.request.as_probability(start))
        change = chunk.request.clean[chunk.numbers] - start
        return attribution, {"completeness_gap": (attribution.sum(dim=(1, 2, 3)) - change).abs() / change.abs()}

    def _stream(self, chunk: ImageChunk) -> Stream:
        return Stream(chunk.images, [self._samples(chunk, i) for i in range(len(chunk.images))])

    def _mean(self, chunk: ImageChunk, stream: Stream) -> Float[Tensor, "m c h w"]:
        total = torch.zeros_like(at_least_single(chunk.images))
        for passes in torch.arange(len(stream)).split(chunk.probe.chunk_size):
            index = stream.image[passes].to(chunk.images.device)
            share = stream.share[passes].to(chunk.images).view(-1, 1, 1, 1)
            slope = chunk.probe.gradients(stream.perturbed(passes), chunk.numbers[index])
            total.index_add_(0, index, slope.mul_(stream.differences(passes)).mul_(share))
        return total

    def _start(self, chunk: ImageChunk, stream: Stream) -> Float[Tensor, " m"]:
        """The mean score of each image's references, weighted as their paths are."""
        means = []
        for i, samples in enumerate(stream.samples):
            references = samples.references
            assert references is not None  # noqa: S101 - every path has one
            scores = chunk.probe.scores(references, chunk.numbers[i].expand(len(references)))
            weight = samples.share.new_zeros(len(references)).index_add_(0, samples.path, samples.share)
            means.append(scores @ weight.to(scores))
        return torch.stack(means)

    @abstractmethod
    def _samples(self, chunk: ImageChunk, image: int) -> Samples:
        """The passes for one image."""


@dataclass(eq=False)
class IntegratedGradients(PathGradients):
    """Integrated Gradients: gradients along the path from a baseline to the image (Sundararajan et al. 2017).

    Args:
        samples: number S of positions on each path, at least 1.
        baseline: x'; a name, pixel value, tensor or callable, or a tensor of several images, each with a path of its own.
        quadrature: positions t / S (``right``), the middles of S equal parts (``midpoint``), or S points with both ends and
            half their weight there (``trapezoid``).

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = torch.nn.init.eye_(model[1].weight)
    >>> image = torch.tensor([[[[0.3, 0.9]]]])
    >>> IntegratedGradients(model, samples=2, score="logit")(image, 1).heatmap
    tensor([[[0.0000, 0.9000]]])
    """

    title: ClassVar[str] = "Integrated Gradients"
    samples: Annotated[int, Ge(1)] = 50
    baseline: References = "black"
    quadrature: Quadrature = "midpoint"

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if self.quadrature == "trapezoid" and self.samples < 2:
            raise ValueError(f"samples is {self.samples}; give at least 2 for the trapezoid rule")

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean pass, and one for each sample of each path; for the completeness gap, one for each baseline."""
        del image
        paths = len(self.baseline) if isinstance(self.baseline, Tensor) and self.baseline.ndim == 4 else 1
        return Passes(1 + paths * (self.samples + self.completeness), paths * self.samples)

    def _samples(self, chunk: ImageChunk, image: int) -> Samples:
        given = chunk.request.references_for(int(chunk.numbers[image]), self.baseline)
        paths = len(given) if isinstance(given, Tensor) and given.ndim == 4 else 1
        several = ImageSet(given) if paths > 1 and isinstance(given, Tensor) else given
        references = draw_references(several, chunk.images[image : image + 1], paths, chunk.generators[image])
        position, share = (values.repeat(paths) for values in quadrature(self.quadrature, self.samples))
        path = torch.arange(paths).repeat_interleave(self.samples)
        return Samples(references, path, position, share / paths, torch.zeros_like(path), torch.zeros_like(position))


@dataclass(eq=False)
class ExpectedGradients(PathGradients):
    """Expected Gradients: gradients at random points of paths from many references (Erion et al. 2021).

    Args:
        samples: passes; t is drawn once from each of as many equal parts of [0, 1], with a reference of its own.
        references: D; a distribution, several images as a tensor, or a baseline. The paper draws from the training images.
        noise_std: standard deviation of noise added in each pass; the paper adds none.
        completeness: report the completeness gap, at a forward pass for each sample.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = torch.nn.init.eye_(model[1].weight)
    >>> image = torch.tensor([[[[0.3, 0.9]]]])
    >>> ExpectedGradients(model, samples=2, references="black", score="logit")(image, 1).heatmap
    tensor([[[0.0000, 0.9000]]])
    """

    title: ClassVar[str] = "Expected Gradients"
    completeness: bool = False
    samples: Annotated[int, Ge(1)] = 50
    references: Annotated[References, AlsoNamed("baseline")] = field(default_factory=RandomBlurs)
    noise_std: Annotated[float, Ge(0), Unit("pixel values")] = 0.0

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean pass, and one for each sample; for the completeness gap, one for each reference."""
        del image
        return Passes(1 + self.samples * (1 + self.completeness), self.samples)

    def _samples(self, chunk: ImageChunk, image: int) -> Samples:
        generator, number = chunk.generators[image], int(chunk.numbers[image])
        given = chunk.request.references_for(number, self.references)
        references = draw_references(given, chunk.images[image : image + 1], self.samples, generator)
        jitter = uniform((self.samples,), generator).cpu()
        share = torch.full_like(jitter, 1 / self.samples)
        seed, noise = noise_of_passes(self.samples, self.noise_std, True, generator)
        path = torch.arange(self.samples)
        return Samples(references, path, (path + jitter) / self.samples, share, seed, noise)
