r"""Gradient estimators: at which images a layer's gradient is asked for.

The known methods are points of one perturbation:

.. math:: z = x' + a \, (x - x') + e, \qquad x' \sim D, \quad a \in [0, 1], \quad e \sim N(0, \sigma^2)

==========  ==============  ===================  ======================  =================
estimator   x'              a                    e                       source
==========  ==============  ===================  ======================  =================
Plain       \-              1                    0                       Selvaraju 2017
Smooth      \-              1                    :math:`N(0, \sigma^2)`  Omeiza 2019
Integrated  one baseline    a quadrature's       0                       Sattarzadeh 2021
Expected    drawn from D    stratified uniform   :math:`N(0, \sigma^2)`  Buono 2024
==========  ==============  ===================  ======================  =================

What a gradient is multiplied by is the estimator's ``difference``, and what is averaged over the passes its ``pool``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.methods.references import RandomBlurs, References, draw_references
from faithmap.methods.sampling import Quadrature, Samples, noise_of_passes, quadrature

Difference: TypeAlias = Literal["none", "reference", "path", "increment"]
r"""What the gradient at z is multiplied by: :math:`A(x)`, :math:`A(x) - A(x')`, :math:`A(z) - A(x')`, or the step from one z of
a path to the next, with which contributions are complete: they sum to :math:`y(x) - y(x')`."""

Pool: TypeAlias = Literal["gradient", "contribution", "slope", "map"]
r"""With :math:`\Delta` the difference and E the mean over the passes, a weighting is given

- ``gradient``: :math:`E[g]`, and weighs :math:`E[\Delta]`;
- ``contribution``: each channel's mean of :math:`E[g \Delta]` as its gradient, and weighs A(x);
- ``slope``: each channel's sum of :math:`E[g \Delta]` over its sum of :math:`E[\Delta]`, and weighs A(x);
- ``map``: g and :math:`\Delta` of every pass, and the maps are averaged.
"""


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """What all estimators can say of themselves; used as one of the four below."""

    difference: Difference = "none"
    pool: Pool = "gradient"
    relu_each: bool = False
    """Whether, with ``pool="map"``, a map loses what is negative in it before it is averaged with the others."""

    @property
    def is_plain(self) -> bool:
        """Whether the pass of the clean image is all that is asked for."""
        return False

    def check(self) -> None:
        """Raise ValueError for settings that contradict each other."""
        if self.difference == "increment" and self.pool == "gradient":
            raise ValueError("steps along a path weigh its gradients one by one; give pool='contribution', 'slope' or 'map'")
        if self.difference == "none" and self.pool != "gradient":
            raise ValueError(
                f"pool={self.pool!r} multiplies by a difference; give difference='reference', 'path' or 'increment'"
            )

    def starting_from(self, baseline: References) -> Estimator:
        """The same with paths that start elsewhere; itself where there are none."""
        del baseline
        return self

    def draw(self, image: Float[Tensor, "1 c h w"], generator: torch.Generator) -> Samples:
        """The passes for one image."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Plain(Estimator):
    """The gradient at the image itself."""

    @property
    def is_plain(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, kw_only=True)
class Smooth(Estimator):
    """The mean over noisy copies of the image.

    Args:
        samples: copies.
        noise_std: in the units of the images. Omeiza gives no value; SmoothGrad's 10 to 20 % of the range is 0.1 to 0.2.
        antithetic: every second copy has the noise of the one before it with the other sign.
    """

    samples: int = 24
    noise_std: float = 0.1
    antithetic: bool = True

    def check(self) -> None:
        """Raise ValueError for settings that make no mean."""
        super().check()
        if self.samples < 1 or self.noise_std < 0:
            raise ValueError("give at least 1 sample and a noise_std of at least 0")
        if self.difference != "none":
            raise ValueError(f"difference={self.difference!r} needs a reference; give Integrated() or Expected()")

    def draw(self, image: Float[Tensor, "1 c h w"], generator: torch.Generator) -> Samples:
        """All at the image."""
        del image
        ones = torch.ones(self.samples)
        seed, noise = noise_of_passes(self.samples, self.noise_std, self.antithetic, generator)
        return Samples(None, torch.zeros(self.samples, dtype=torch.long), ones, ones / self.samples, seed, noise)


@dataclass(frozen=True, kw_only=True)
class Integrated(Estimator):
    r"""The path from one baseline: Integrated Grad-CAM.

    .. math:: L = \frac{1}{S} \sum_t relu\Bigl(\sum_k w_k(g_t) \, \bigl(A^k(z_t) - A^k(x')\bigr)\Bigr)

    Args:
        samples: S, positions on the path.
        baseline: as for every method; the paper's is black, in whatever space it is given.
        quadrature: positions :math:`t / S` (``right``, as the paper's sum), the middles of S parts, or S points with both ends
            in and half weight there.
    """

    difference: Difference = "path"
    pool: Pool = "map"
    relu_each: bool = True
    samples: int = 24
    baseline: References = "black"
    quadrature: Quadrature = "right"

    def check(self) -> None:
        """Raise ValueError for settings that make no quadrature."""
        super().check()
        if self.samples < 1 + (self.quadrature == "trapezoid"):
            raise ValueError(f"samples is {self.samples}; give at least 1, for the trapezoid rule 2")

    def starting_from(self, baseline: References) -> Estimator:
        """The same with another baseline."""
        return replace(self, baseline=baseline)

    def draw(self, image: Float[Tensor, "1 c h w"], generator: torch.Generator) -> Samples:
        """The quadrature's positions."""
        position, share = quadrature(self.quadrature, self.samples)
        position, share = (torch.cat([torch.zeros(1), values]) for values in (position, share))
        zeros = torch.zeros(len(position), dtype=torch.long)
        return Samples(draw_references(self.baseline, image, 1, generator), zeros, position, share, zeros, zeros.float())


@dataclass(frozen=True, kw_only=True)
class Expected(Estimator):
    r"""The smoothed expectation over paths from a distribution of references: Expected Grad-CAM.

    .. math:: G = E_{x' \sim D, \; a \sim U(0, 1), \; e \sim N(0, \sigma^2)} \bigl[ g(z) \bigr]

    The authors published no code, and how the expectation enters a weighting is our reading: ``difference`` and ``pool`` are
    its settings, their defaults chosen by ``benchmarks/tune_expected.py``.

    Args:
        samples: passes; a is drawn once from each of so many equal parts of a path.
        references: D; a distribution, several images as a tensor, or a baseline.
        paths: different references; None takes one for each sample.
        noise_std: sigma, in the units of the images.
        antithetic: every second pass has the noise of the one before it with the other sign.
        jitter: without it, a is in the middle of each part, not drawn from it.
    """

    samples: int = 24
    references: References = field(default_factory=RandomBlurs)
    paths: int | None = None
    noise_std: float = 0.01
    antithetic: bool = True
    jitter: bool = True

    def check(self) -> None:
        """Raise ValueError for settings that make no expectation."""
        super().check()
        if self.samples < 1 or self.noise_std < 0 or not 1 <= (self.paths or 1) <= self.samples:
            raise ValueError("give at least 1 sample, a noise_std of at least 0, and 1 to as many paths as samples")

    def starting_from(self, baseline: References) -> Estimator:
        """The same with another distribution."""
        return replace(self, references=baseline)

    def draw(self, image: Float[Tensor, "1 c h w"], generator: torch.Generator) -> Samples:
        """Strata dealt out to the paths like cards, and the ends that a difference needs, which stay without noise."""
        paths = self.paths or self.samples
        references = draw_references(self.references, image, paths, generator)
        jitter = torch.rand(self.samples, generator=generator, device=generator.device).cpu() if self.jitter else 0.5
        position, path = (torch.arange(self.samples) + jitter) / self.samples, torch.arange(self.samples) % paths
        seed, noise = noise_of_passes(self.samples, self.noise_std, self.antithetic, generator)
        steps = self.difference == "increment"
        share = torch.full_like(position, 1 / (paths if steps else self.samples))
        ends = [0.0] * (self.difference != "none") + [1.0] * steps
        path = torch.cat([path, *(torch.arange(paths) for _ in ends)])
        position = torch.cat([position, *(torch.full((paths,), end) for end in ends)])
        share = torch.cat([share, *(torch.full((paths,), end / paths) for end in ends)])
        seed, noise = (torch.cat([values, values.new_zeros(len(ends) * paths)]) for values in (seed, noise))
        order = (path + position.double().clamp(max=1 - 1e-9)).argsort()
        return Samples(references, path[order], position[order], share[order], seed[order], noise[order])
