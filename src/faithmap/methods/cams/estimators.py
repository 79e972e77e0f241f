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

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.methods.cams.weightings import FIRST_ORDER, Evidence, Weighting
from faithmap.methods.references import RandomBlurs, References, draw_references
from faithmap.methods.sampling import Quadrature, Samples, Stream, noise_of_passes, quadrature
from faithmap.probe import LayerProbe, Layers, Pass, joined

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


@dataclass(frozen=True, eq=False)
class Rows:
    """Passes, or steps between them, to be summed by image with their shares.

    Attributes:
        blocks: images, and which rows are theirs.
        share: each row's weight in the mean.
        gradient: g at each layer.
        difference: what it is multiplied by, at each layer; nothing where that is A(x).
    """

    blocks: list[tuple[int, slice]]
    share: Float[Tensor, " m"]
    gradient: Layers
    difference: Layers


class Expectation:
    """The passes of a few images, in one stream of full chunks.

    Args:
        probe: of the model, at the layers.
        estimator: whose samples they are.
        images: the few.
        numbers: what the model counts them as.
        activation: A(x) at each layer.
        samples: of each image.

    Attributes:
        start: mean score of each image's references, complete when all rows are out; 0 where none are asked.
    """

    def __init__(
        self,
        probe: LayerProbe,
        estimator: Estimator,
        images: Float[Tensor, "n c h w"],
        numbers: Int[Tensor, " n"],
        activation: Layers,
        samples: list[Samples],
    ) -> None:
        self.probe, self.estimator, self.images, self.numbers = probe, estimator, images, numbers
        self.activation = activation
        self.start = images.new_zeros(len(images), dtype=torch.float32)
        self._stream = Stream(images, samples)
        self._image, self._share = self._stream.image, self._stream.share
        self._passes = torch.arange(len(self._image))
        self._first = self._passes.where(self._share == 0, 0).cummax(dim=0).values

    def rows(self) -> Iterator[Rows]:
        """All of them, a chunk at a time."""
        carried: tuple[Tensor, Pass] | None = None
        for passes in self._passes.split(self.probe.chunk_size):
            index = self._image[passes].to(self.images.device)
            compared = self.estimator.difference != "none"
            answer = self.probe.observe(self._stream.perturbed(passes), self.numbers[index], keep=compared)
            if not compared:
                yield Rows(blocks(self._image[passes]), self._share[passes].to(index.device), answer.gradient, {})
                continue
            self._note_start(passes, answer)
            seen = passes
            if carried is not None:
                seen, answer = torch.cat([carried[0], passes]), joined([carried[1], answer])
            yield self._compared(passes, seen, answer)
            kept = torch.stack([self._first[passes[-1]], passes[-1]])
            carried = kept, answer.at(torch.searchsorted(seen, kept))

    def _note_start(self, passes: Int[Tensor, " m"], answer: Pass) -> None:
        """Add the scores of references to their image's mean."""
        first = self._share[passes] == 0
        image = self._image[passes][first]
        paths = self._image[self._share == 0].bincount(minlength=len(self.images))
        scores = answer.score[first.to(answer.score.device)] / paths[image].to(answer.score)
        self.start.index_add_(0, image.to(self.start.device), scores.to(self.start))

    def _compared(self, passes: Int[Tensor, " m"], seen: Int[Tensor, " l"], answer: Pass) -> Rows:
        """The differences of the chunk's passes, of which ``answer`` has those in ``seen``, in ascending order."""
        counted = passes[self._share[passes] > 0]
        index = self._image[counted].to(self.images.device)
        here, before, origin = (torch.searchsorted(seen, which) for which in (counted, counted - 1, self._first[counted]))
        now, other = answer.at(here), answer.at(before if self.estimator.difference == "increment" else origin)
        gradient, end = now.gradient, now.activation
        if self.estimator.difference == "increment":
            gradient = {name: (g + other.gradient[name]) / 2 for name, g in gradient.items()}
        elif self.estimator.difference == "reference":
            end = {name: a[index] for name, a in self.activation.items()}
        difference = {name: a - other.activation[name] for name, a in end.items()}
        return Rows(blocks(self._image[counted]), self._share[counted].to(index.device), gradient, difference)


def blocks(image: Int[Tensor, " m"]) -> list[tuple[int, slice]]:
    """Where the rows of each image lie, which follow each other.

    >>> blocks(torch.tensor([3, 3, 4]))
    [(3, slice(0, 2, None)), (4, slice(2, 3, None))]
    """
    images, counts = image.unique_consecutive(return_counts=True)
    ends = counts.cumsum(dim=0).tolist()
    return [(i, slice(end - count, end)) for i, count, end in zip(images.tolist(), counts.tolist(), ends, strict=True)]


class LayerPool:
    """Sums over the passes of a few images at one layer.

    Args:
        name: of the layer.
        pool: what is averaged.
        weighting: of the channels or cells.
        relu_each: whether the maps of ``pool="map"`` lose what is negative before they are averaged.
        activation: A(x) of the images.
    """

    def __init__(
        self, name: str, pool: Pool, weighting: Weighting, relu_each: bool, activation: Float[Tensor, "n k h w"]
    ) -> None:
        self.name, self.pool, self.weighting, self.relu_each, self.activation = name, pool, weighting, relu_each, activation
        self._powers = ("gradient",) if weighting in FIRST_ORDER else ("gradient", "square", "cube")
        self._sums: dict[str, Tensor] = {}

    def add(self, rows: Rows) -> None:
        """Count some passes in."""
        g, difference = rows.gradient[self.name], rows.difference.get(self.name)
        if self.pool == "gradient":
            for power, name in enumerate(self._powers, start=1):
                self._add(name, rows, g if power == 1 else g.pow(power))
        if difference is None:  # the activation of the image itself, whatever the pass
            return
        channel = (g * difference).sum(dim=(2, 3), keepdim=True)
        self._add("complete", rows, channel.sum(dim=(1, 2, 3)))
        if self.pool == "map":
            one = weighted(self.weighting(Evidence(difference, g)), difference)
            self._add("map", rows, one.heatmap.relu() if self.relu_each else one.heatmap)
            self._add("channel", rows, one.channel)
            return
        self._add("difference", rows, difference)
        if self.pool != "gradient":
            self._add("contribution", rows, channel)

    def result(self) -> Weighted:
        """The map of each image, signed unless its parts were not."""
        sums = self._sums
        if self.pool == "map":
            return Weighted(sums["map"], sums["channel"])
        if self.pool == "gradient":
            moments = [sums[name] for name in self._powers]
            evidence = Evidence(sums.get("difference", self.activation), *moments)
        else:
            whole = sums["difference"].sum(dim=(2, 3), keepdim=True)
            below = whole if self.pool == "slope" else torch.full_like(whole, self.activation[0, 0].numel())
            channel = (sums["contribution"] / below).where(below != 0, 0)
            evidence = Evidence(self.activation, channel.expand_as(self.activation))
        return weighted(self.weighting(evidence), evidence.activation)

    def completeness(self) -> Float[Tensor, " n"] | None:
        """The sum of all contributions; None where gradients multiply no difference."""
        return self._sums.get("complete")

    def _add(self, name: str, rows: Rows, values: Tensor) -> None:
        if name not in self._sums:
            self._sums[name] = values.new_zeros(len(self.activation), *values.shape[1:])
        share, flat = rows.share.to(values), values.reshape(len(values), -1)
        for image, block in rows.blocks:
            self._sums[name][image].view(-1).addmv_(flat[block].mT, share[block])


class Weighted(NamedTuple):
    """Weights times activation, summed over the channels, and over the cells."""

    heatmap: Float[Tensor, "n h w"]
    channel: Float[Tensor, "n k"]


def weighted(weights: Float[Tensor, "n k #h #w"], activation: Float[Tensor, "n k h w"]) -> Weighted:
    """The map, and what each channel contributes to it."""
    parts = weights * activation
    return Weighted(parts.sum(dim=1), parts.sum(dim=(2, 3)))
