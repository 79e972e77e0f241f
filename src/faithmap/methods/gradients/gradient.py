r"""The gradient to the pixels: alone, times the image, and averaged over noisy copies of the image.

.. math:: a = \frac{\partial y}{\partial x} \;\text{(Simonyan 2014)}, \qquad
    a = (x - b) \cdot \frac{\partial y}{\partial x} \;\text{(Shrikumar 2016)}

.. math:: \bar a = \frac1S \sum_s a(x + e_s) \;\text{(Smilkov 2017)}, \qquad
    v = \frac1S \sum_s \bigl(a(x + e_s) - \bar a\bigr)^2 \;\text{(Adebayo 2018)}, \qquad e \sim N(0, \sigma^2)

Each method makes an attribution :math:`a` of the image's own shape. The heatmap is one number per pixel, by one of

=============  =========================  ==========================================
largest        :math:`\max_c |a_c|`       Simonyan 2014
sum            :math:`\sum_c a_c`         keeps signs and the sum of a
absolute_sum   :math:`\sum_c |a_c|`
=============  =========================  ==========================================
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from annotated_types import Ge, Unit
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import Baseline, describe_baseline, make_baseline
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request
from faithmap.methods.sampling import Samples, Stream, noise_of_passes
from faithmap.probe import InputProbe
from faithmap.score import ScoreKind, at_least_single

Channels: TypeAlias = Literal["largest", "sum", "absolute_sum"]


@dataclass(eq=False)
class GradientExplainer(Explainer):
    """Base of the methods that take gradients to the pixels. Maps have the image's own resolution.

    A subclass overrides ``attribute``. The images are explained in chunks, and the passes are counted.

    Args:
        score: the explained score of the target class: its logit or its probability.
        channels: one number per pixel out of the attributions of its channels: the ``largest`` absolute value, their ``sum``,
            or the ``absolute_sum``, the sum of their absolute values.

    A method of your own, the gradient times the image:

    >>> class TimesImage(GradientExplainer):
    ...     def attribute(self, chunk):
    ...         return chunk.images * chunk.probe.gradients(chunk.images, chunk.numbers)
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = torch.nn.init.eye_(model[1].weight)
    >>> TimesImage(model)(torch.tensor([[[[0.3, 0.9]]]]), 1).heatmap
    tensor([[[0.0000, 0.9000]]])
    """

    score: ScoreKind = "logit"
    channels: Channels = "largest"

    def _explain(self, request: Request) -> RawHeatmap:
        count, device = len(request.images), request.images.device
        settings: dict[str, Any] = {"chunk_size": self.chunk_size, "autocast": self.autocast}
        probe = InputProbe(self.model, request.score, request.images, **settings)
        maps, found = [], []
        for numbers in torch.arange(count, device=device).split(self.chunk_size):
            generators = [request.generators[i] for i in numbers.tolist()]
            chunk = ImageChunk(request.images[numbers], numbers, probe, generators, request)
            attribution, diagnostics = self._attributed(chunk)
            maps.append(reduced(attribution, self.channels))
            found.append(diagnostics)
            request.progress(int(numbers[-1]) + 1, count)
        per_image = {name: torch.cat([values[name] for values in found]) for name in found[0]}
        passes = {"forward_passes": probe.forward + 1, "backward_passes": probe.backward, **per_image}
        lists = {name: values.tolist() for name, values in passes.items()}
        return RawHeatmap(torch.cat(maps), [{name: values[i] for name, values in lists.items()} for i in range(count)])

    @abstractmethod
    def attribute(self, chunk: ImageChunk) -> Float[Tensor, "m c h w"]:
        """The attribution of each image, one number for every channel of every pixel.

        Args:
            chunk: the images, the probe that runs the model on them, and their generators.
        """

    def _attributed(self, chunk: ImageChunk) -> tuple[Float[Tensor, "m c h w"], Mapping[str, Float[Tensor, " m"]]]:
        """The attribution of each image, and its diagnostics."""
        return self.attribute(chunk), {}


@dataclass(frozen=True, eq=False)
class ImageChunk:
    """The argument of :meth:`GradientExplainer.attribute`: a chunk of images and what belongs to them.

    Attributes:
        images: explained images, or noisy copies of them.
        numbers: index of the explained image that each one was made from.
        probe: runs the model; ``probe.gradients`` and ``probe.scores`` take images and their numbers.
        generators: one random generator for each image.
        request: all images of the call, with target, clean scores and baseline.

    >>> class Doubled(GradientExplainer):
    ...     def attribute(self, chunk: ImageChunk):
    ...         return 2 * chunk.probe.gradients(chunk.images, chunk.numbers)
    """

    images: Float[Tensor, "m c h w"]
    numbers: Int[Tensor, " m"]
    probe: InputProbe
    generators: list[torch.Generator]
    request: Request


def reduced(attribution: Float[Tensor, "n c h w"], channels: Channels) -> Float[Tensor, "n h w"]:
    """One number per pixel.

    >>> reduced(torch.tensor([[[[1.0]], [[-3.0]]]]), "largest")
    tensor([[[3.]]])
    """
    if channels == "largest":
        return attribution.abs().amax(dim=1)
    return attribution.sum(dim=1) if channels == "sum" else attribution.abs().sum(dim=1)


@dataclass(eq=False)
class Gradient(GradientExplainer):
    """The gradient to the pixels (Simonyan et al. 2014); AM in tables of the pointing game.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = torch.nn.init.eye_(model[1].weight)
    >>> image = torch.tensor([[[[0.3, 0.9]]]])
    >>> Gradient(model)(image, 1).heatmap
    tensor([[[0., 1.]]])
    """

    title: ClassVar[str] = "gradient"

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean pass, and one with its gradient."""
        del image
        return Passes(2, 1)

    def attribute(self, chunk: ImageChunk) -> Float[Tensor, "m c h w"]:
        """One pass with gradient."""
        return chunk.probe.gradients(chunk.images, chunk.numbers)


@dataclass(eq=False)
class GradientTimesInput(GradientExplainer):
    """The gradient times the image minus a baseline (Shrikumar et al. 2016).

    Args:
        baseline: b; a name, pixel value, tensor or callable. "zero" is 0 in the model's normalised space, as in the paper.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = torch.nn.init.eye_(model[1].weight)
    >>> image = torch.tensor([[[[0.3, 0.9]]]])
    >>> GradientTimesInput(model)(image, 1).heatmap
    tensor([[[0.0000, 0.9000]]])
    """

    title: ClassVar[str] = "gradient times input"
    channels: Channels = "sum"
    baseline: Baseline = "zero"

    @property
    def settings(self) -> dict[str, object]:
        """All settings as plain data."""
        return {**super().settings, "baseline": describe_baseline(self.baseline)}

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean pass, and one with its gradient."""
        del image
        return Passes(2, 1)

    def attribute(self, chunk: ImageChunk) -> Float[Tensor, "m c h w"]:
        """One pass with gradient."""
        chosen = chunk.request.baseline_for(chunk.numbers, self.baseline)
        return (chunk.images - make_baseline(chosen, chunk.images)) * chunk.probe.gradients(chunk.images, chunk.numbers)


@dataclass(eq=False)
class SmoothGrad(GradientExplainer):
    """SmoothGrad: the mean attribution of noisy copies of the image (Smilkov et al. 2017).

    Args:
        method: the method whose attributions are averaged, with its own settings; None for the plain gradient. Settings that
            all methods have, such as ``score`` and ``chunk_size``, are taken from SmoothGrad.
        samples: number of noisy copies, at least 1.
        noise_std: standard deviation of the noise. The paper's 10 to 20 % of the range is 0.1 to 0.2.
        antithetic: every second copy has the noise of the one before with the other sign.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = torch.nn.init.eye_(model[1].weight)
    >>> image = torch.tensor([[[[0.3, 0.9]]]])
    >>> SmoothGrad(model, samples=4)(image, 1).heatmap
    tensor([[[0., 1.]]])
    """

    title: ClassVar[str] = "SmoothGrad"
    method: GradientExplainer | None = None
    samples: Annotated[int, Ge(1)] = 50
    noise_std: Annotated[float, Ge(0), Unit("pixel values")] = 0.15
    antithetic: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data, those of the method among them."""
        method = self._method
        return {**super().settings, "method": {"name": type(method).__name__, **method.settings}}

    @property
    def _method(self) -> GradientExplainer:
        return Gradient(self.model) if self.method is None else self.method

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        self._method._check(size)

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes | None:
        """The clean pass, and those of the method for each copy."""
        inner = self._method.passes(image)
        return None if inner is None else Passes(1 + self.samples * (inner.forward - 1), self.samples * inner.backward)

    def attribute(self, chunk: ImageChunk) -> Float[Tensor, "m c h w"]:
        """The mean attribution of the copies."""
        mean, _ = self._moments(chunk)
        return mean

    def _moments(self, chunk: ImageChunk) -> tuple[Float[Tensor, "m c h w"], Float[Tensor, "m c h w"]]:
        """Mean and variance of the attributions, by sums of differences from the first: their squares do not cancel."""
        stream = Stream(chunk.images, [self._samples(generator) for generator in chunk.generators])
        total, square, first = (torch.zeros_like(at_least_single(chunk.images)) for _ in range(3))
        filled = torch.zeros(len(chunk.images), dtype=torch.bool)
        for passes in torch.arange(len(stream)).split(chunk.probe.chunk_size):
            of = stream.image[passes]
            index = of.to(chunk.images.device)
            generators = [chunk.generators[i] for i in of.tolist()]
            copies = replace(chunk, images=stream.perturbed(passes), numbers=chunk.numbers[index], generators=generators)
            values = self._method.attribute(copies)
            for row, i in enumerate(of.tolist()):
                if not filled[i]:
                    first[i], filled[i] = values[row], True
            apart = values - first[index]
            total.index_add_(0, index, apart)
            square.index_add_(0, index, apart.square())
        apart = total / self.samples
        return first + apart, (square / self.samples - apart.square()).clamp(min=0)

    def _samples(self, generator: torch.Generator) -> Samples:
        ones, zeros = torch.ones(self.samples), torch.zeros(self.samples, dtype=torch.long)
        seed, noise = noise_of_passes(self.samples, self.noise_std, self.antithetic, generator)
        return Samples(None, zeros, ones, ones / self.samples, seed, noise)


@dataclass(eq=False)
class VarGrad(SmoothGrad):
    """VarGrad: the variance of the attribution over noisy copies, high where it is unreliable (Adebayo et al. 2018).

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = torch.nn.init.eye_(model[1].weight)
    >>> image = torch.tensor([[[[0.3, 0.9]]]])
    >>> bool(VarGrad(model, samples=4, score="probability")(image, 1).heatmap.min() > 0)
    True
    """

    title: ClassVar[str] = "VarGrad"

    def attribute(self, chunk: ImageChunk) -> Float[Tensor, "m c h w"]:
        """The variance of the attributions of the copies."""
        _, variance = self._moments(chunk)
        return variance
