r"""GradientSHAP: gradients at random places between noisy images and random references (Lundberg and Lee 2017).

.. math:: a = E_{x' \sim D, \; t \sim U(0, 1), \; e \sim N(0, \sigma^2)} \Bigl[ (x + e - x') \cdot
    \frac{\partial y}{\partial x}\bigl(x' + t (x + e - x')\bigr) \Bigr]

It is what Expected Gradients are, drawn plainly: references with replacement, and t without strata. Of as many samples it is
the noisier estimate of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.methods.base import Passes
from faithmap.methods.captum_methods.library import captum, drawing, silent
from faithmap.methods.gradients.base import Channels, GradientExplainer, Part
from faithmap.methods.references import RandomBlurs, References, draw_references
from faithmap.score import ScoreKind


@dataclass(eq=False)
class GradientSHAP(GradientExplainer):
    """GradientSHAP.

    Args:
        samples: gradients.
        references: D; a distribution, from which as many are drawn as there are samples, several images as a tensor, or a
            baseline.
        noise_std: of the noise that the image gets, in [0, 1] pixels.
        completeness: ask for the scores of samples and references, too, and say how far the attributions are from complete;
            two forward passes a sample more.
    """

    score: ScoreKind = "logit"
    channels: Channels = "sum"
    samples: int = 50
    references: References = field(default_factory=RandomBlurs)
    noise_std: float = 0.0
    completeness: bool = False

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean one, and one a sample; of completeness two more a sample."""
        del image
        return Passes(1 + self.samples * (3 if self.completeness else 1), self.samples)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        captum()
        if self.samples < 1 or self.noise_std < 0:
            raise ValueError("give at least 1 sample and a noise_std of at least 0")

    def attribute(self, part: Part) -> Float[Tensor, "m c h w"]:
        """As many gradients as there are samples."""
        return self._attributed(part)[0]

    def _attributed(self, part: Part) -> tuple[Float[Tensor, "m c h w"], Mapping[str, Float[Tensor, " m"]]]:
        attributions, gaps = zip(*(self._one(part, i) for i in range(len(part.images))), strict=True)
        return torch.cat(attributions), {"completeness_gap": torch.cat(gaps)} if self.completeness else {}

    def _one(self, part: Part, image: int) -> tuple[Float[Tensor, "1 c h w"], Float[Tensor, " 1"]]:
        """One image: captum draws all its samples at once, and asks for the gradients, which are taken in chunks."""
        index, x = part.numbers[image : image + 1], part.images[image : image + 1]

        def scores(z: Tensor) -> Tensor:
            return part.probe.scores(z, index.expand(len(z)))

        def gradients(forward: Any, inputs: tuple[Tensor], target: Any = None, more: Any = None) -> tuple[Tensor]:
            del forward, target, more
            with torch.enable_grad():  # captum is inside no_grad
                return (part.probe.gradients(inputs[0], index.expand(len(inputs[0]))),)

        shap = captum().GradientShap(scores)
        shap.gradient_func = gradients
        references = self._references(part, image)
        settings = {"n_samples": self.samples, "stdevs": float(self.noise_std), "return_convergence_delta": self.completeness}
        with silent(), drawing(part.generators[image]):
            found = shap.attribute(x.detach().clone().requires_grad_(), references, **settings)
        attribution, delta = found if self.completeness else (found, x.new_zeros(1))
        attribution, miss = attribution.detach(), delta.detach().mean().reshape(1)
        return attribution, miss.abs() / (attribution.sum().reshape(1) - miss).abs()

    def _references(self, part: Part, image: int) -> Float[Tensor, "k c h w"]:
        x, given = part.images[image : image + 1], self.references
        if part.request.baseline is not None:
            number = int(part.numbers[image])
            given = part.request.baseline_for(slice(number, number + 1), part.request.baseline)
        several = isinstance(given, Tensor) and given.ndim == 4
        count = len(given) if isinstance(given, Tensor) and several else self.samples
        return draw_references(given, x, count, part.generators[image]).contiguous()
