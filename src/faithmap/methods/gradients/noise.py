r"""SmoothGrad and VarGrad: the mean and the variance of an attribution over noisy copies of the image.

.. math:: \bar a = \frac1S \sum_s a(x + e_s), \qquad v = \frac1S \sum_s \bigl(a(x + e_s) - \bar a\bigr)^2,
    \qquad e \sim N(0, \sigma^2)

(Smilkov et al. 2017; Adebayo et al. 2018), where a is any gradient method's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.methods.base import Passes
from faithmap.methods.gradients.base import GradientExplainer, Part
from faithmap.methods.gradients.plain import Gradient
from faithmap.methods.sampling import Samples, Stream, noise_of_passes
from faithmap.score import at_least_single


@dataclass(eq=False)
class SmoothGrad(GradientExplainer):
    """The mean over noisy copies.

    Args:
        method: whose attributions are averaged, with its own settings; None for the plain gradient. Of its settings those that
            every explainer has, such as ``score`` and ``chunk_size``, are this one's.
        samples: copies.
        noise_std: in [0, 1] pixels. The paper's 10 to 20 % of the range is 0.1 to 0.2.
        antithetic: every second copy has the noise of the one before it with the other sign.
    """

    method: GradientExplainer | None = None
    samples: int = 50
    noise_std: float = 0.15
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
        if self.samples < 1 or self.noise_std < 0:
            raise ValueError("give at least 1 sample and a noise_std of at least 0")

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes | None:
        """The clean one, and the method's own for each copy."""
        inner = self._method.passes(image)
        return None if inner is None else Passes(1 + self.samples * (inner.forward - 1), self.samples * inner.backward)

    def attribute(self, part: Part) -> Float[Tensor, "m c h w"]:
        """As many attributions as there are samples."""
        mean, _ = self._moments(part)
        return mean

    def _moments(self, part: Part) -> tuple[Float[Tensor, "m c h w"], Float[Tensor, "m c h w"]]:
        """Mean, and mean square of the distance to the first copy's attribution, which keeps the variance from cancelling."""
        stream = Stream(part.images, [self._samples(generator) for generator in part.generators])
        total, square, first = (torch.zeros_like(at_least_single(part.images)) for _ in range(3))
        seen = torch.zeros(len(part.images), dtype=torch.bool)
        for passes in torch.arange(len(stream)).split(part.probe.chunk_size):
            of = stream.image[passes]
            index = of.to(part.images.device)
            generators = [part.generators[i] for i in of.tolist()]
            copies = replace(part, images=stream.perturbed(passes), numbers=part.numbers[index], generators=generators)
            values = self._method.attribute(copies)
            for row, i in enumerate(of.tolist()):
                if not seen[i]:
                    first[i], seen[i] = values[row], True
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
    """The variance over noisy copies (Adebayo et al. 2018): where the attribution is not to be relied on."""

    def attribute(self, part: Part) -> Float[Tensor, "m c h w"]:
        """As many attributions as there are samples."""
        _, variance = self._moments(part)
        return variance
