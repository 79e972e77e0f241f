r"""GradientSHAP: gradients at random points between random references and noisy images (Lundberg and Lee 2017).

.. math:: a = E_{x' \sim D, \; t \sim U(0, 1), \; e \sim N(0, \sigma^2)} \Bigl[ (x + e - x') \cdot
    \frac{\partial y}{\partial x}\bigl(x' + t (x + e - x')\bigr) \Bigr]

It estimates the same expectation as Expected Gradients from independent samples: references with replacement, and t without
strata. With the same number of samples its estimate has more noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Unit
from jaxtyping import Float
from torch import Tensor

from faithmap.methods.base import Passes, warn_if_recognised
from faithmap.methods.captum_methods.base import captum, drawing
from faithmap.methods.gradients.gradient import Channels, GradientExplainer, ImageChunk
from faithmap.methods.references import RandomBlurs, References, draw_references
from faithmap.methods.sampling import farthest
from faithmap.methods.settings import AlsoNamed
from faithmap.score import ScoreKind


@dataclass(eq=False)
class GradientSHAP(GradientExplainer):
    """GradientSHAP.

    Args:
        channels: how an attribution of every channel becomes one number per pixel; ``"sum"`` keeps signs.
        samples: number of gradients, at least 1.
        references: D: a distribution, from which one reference is drawn for each sample; several images as a tensor; or a
            baseline.
        noise_std: standard deviation of the noise that is added to the image.
        completeness: compute the scores of samples and references too, and report the completeness gap; takes two more
            forward passes for each sample.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 1, bias=False))
    >>> _ = torch.nn.init.constant_(model[1].weight, 0.5)
    >>> GradientSHAP(model, references="black")(torch.tensor([[[[0.2, 0.8]]]]), 0).heatmap
    tensor([[[0.1000, 0.4000]]])
    """

    title: ClassVar[str] = "GradientSHAP"
    score: ScoreKind = "logit"
    channels: Channels = "sum"
    samples: Annotated[int, Ge(1)] = 50
    references: Annotated[References, AlsoNamed("baseline")] = field(default_factory=RandomBlurs)
    noise_std: Annotated[float, Ge(0), Unit("pixel values")] = 0.0
    completeness: bool = False

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One for the target, and one for each sample; three for each with ``completeness``."""
        del image
        return Passes(1 + self.samples * (3 if self.completeness else 1), self.samples)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        captum()

    def attribute(self, chunk: ImageChunk) -> Float[Tensor, "m c h w"]:
        """The attribution of each pixel's every channel."""
        return torch.cat([self._one(chunk, i)[0] for i in range(len(chunk.images))])

    def _attributed(self, chunk: ImageChunk) -> tuple[Float[Tensor, "m c h w"], Mapping[str, Float[Tensor, " m"]]]:
        found = (self._one(chunk, i) for i in range(len(chunk.images)))
        attribution, gap, references = (torch.cat(values) for values in zip(*found, strict=True))
        warn_if_recognised(self, chunk.request, chunk.numbers, references)
        return attribution, {"completeness_gap": gap} if self.completeness else {}

    def _one(self, chunk: ImageChunk, image: int) -> tuple[Float[Tensor, "1 c h w"], Float[Tensor, " 1"], Tensor]:
        """One image: captum draws all its samples at once, and the gradients are computed in chunks.

        Returns:
            The attribution, the completeness gap, and the reference that is farthest from the image.
        """
        index, x = chunk.numbers[image : image + 1], chunk.images[image : image + 1]

        def scores(z: Tensor) -> Tensor:
            return chunk.probe.scores(z, index.expand(len(z)))

        def gradients(forward: Any, inputs: tuple[Tensor], target: Any = None, more: Any = None) -> tuple[Tensor]:
            del forward, target, more
            with torch.enable_grad():  # captum calls this inside no_grad
                return (chunk.probe.gradients(inputs[0], index.expand(len(inputs[0]))),)

        shap = captum().GradientShap(scores)
        shap.gradient_func = gradients
        references = self._references(chunk, image)
        settings = {"n_samples": self.samples, "stdevs": float(self.noise_std), "return_convergence_delta": self.completeness}
        with drawing(chunk.generators[image]):
            found = shap.attribute(x.detach().clone().requires_grad_(), references, **settings)
        attribution, delta = found if self.completeness else (found, x.new_zeros(1))
        attribution, gap = attribution.detach(), delta.detach().mean().reshape(1)
        return attribution, gap.abs() / (attribution.sum().reshape(1) - gap).abs(), farthest(references, x[0])

    def _references(self, chunk: ImageChunk, image: int) -> Float[Tensor, "k c h w"]:
        x = chunk.images[image : image + 1]
        given = chunk.request.references_for(int(chunk.numbers[image]), self.references)
        several = isinstance(given, Tensor) and given.ndim == 4
        count = len(given) if isinstance(given, Tensor) and several else self.samples
        return draw_references(given, x, count, chunk.generators[image]).contiguous()
