r"""Gradient estimators: at which images a layer's gradient is taken, and how the gradients become one map.

All estimators take gradients at points of one perturbation:

.. math:: z = x' + a \, (x - x') + e, \qquad x' \sim D, \quad a \in [0, 1], \quad e \sim N(0, \sigma^2)

==========  ==============  ===================  ======================  =================
estimator   x'              a                    e                       source
==========  ==============  ===================  ======================  =================
Plain       \-              1                    0                       Selvaraju 2017
Smooth      \-              1                    :math:`N(0, \sigma^2)`  Omeiza 2019
Integrated  one baseline    a quadrature's       0                       Sattarzadeh 2021
Expected    drawn from D    stratified uniform   :math:`N(0, \sigma^2)`  Buono 2024
==========  ==============  ===================  ======================  =================

A gradient :math:`g = \partial y / \partial A(z)` is multiplied by the estimator's ``difference``

==========  ==========================================================================================
none        :math:`\Delta = A(x)`
reference   :math:`\Delta = A(x) - A(x')`
path        :math:`\Delta = A(z) - A(x')`
increment   :math:`\Delta = A(z_t) - A(z_{t-1})`, with :math:`(g_t + g_{t-1}) / 2` in the place of g
==========  ==========================================================================================

and a map is made of them by its ``pool``. With E the mean over the passes, :math:`\overline{\,\cdot\,}` and :math:`\sum` over a
channel's cells, and w the weighting,

============  ==========================================  ==============================================================
pool          gradient that w is given                    factor of w
============  ==========================================  ==============================================================
gradient      :math:`E[g]` (and the means of its powers)  :math:`E[\Delta]`
contribution  :math:`\overline{E[g \Delta]}`              :math:`A(x)`
slope         :math:`\sum E[g \Delta] / \sum E[\Delta]`   :math:`A(x)`
map           g of every pass                             :math:`\Delta` of every pass; the maps are averaged
============  ==========================================  ==============================================================

Contributions are complete if those of a path sum to the change of the score along it,

.. math:: \sum_t \sum_{k,ij} g^k_t \, \Delta^k_t \approx y(x) - y(x')

as increments do in the limit of dense positions (here by the trapezoid rule), and :math:`A(x) - A(x')` only if A is linear on
the path. The completeness gap is :math:`|sum - (y(x) - E y(x'))| / |y(x) - E y(x')|`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import torch
from annotated_types import Ge, Unit
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.methods.cams.weightings import FIRST_ORDER, Evidence, Weighting, needs_changes
from faithmap.methods.references import RandomBlurs, References, draw_references
from faithmap.methods.sampling import Quadrature, Samples, Stream, noise_of_passes, quadrature
from faithmap.methods.settings import check_settings, complete_docstring
from faithmap.probe import LayerProbe, Layers, Pass, joined
from faithmap.seeds import uniform

Difference: TypeAlias = Literal["none", "reference", "path", "increment"]
"""The factor of a gradient, see above."""

Pool: TypeAlias = Literal["gradient", "contribution", "slope", "map"]
"""The quantity that is averaged over the passes, see above."""


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Base of the four estimators.

    Args:
        difference: factor of each gradient: ``none`` for A(x), ``reference`` for A(x) - A(x'), ``path`` for A(z) - A(x'),
            ``increment`` for the step of A from one z of a path to the next, with which contributions are complete.
        pool: mean over the passes: of the ``gradient``; of each channel's ``contribution`` g * difference; of the ``slope``, a
            channel's contribution divided by its difference; or of the ``map`` of each pass.
        relu_each: with ``pool="map"``, set negative values of each map to 0 before the mean.

    A subclass is a frozen dataclass that overrides ``draw``. An estimator of your own, the gradient at two darker images:

    >>> class Darker(Estimator):
    ...     def draw(self, image, generator):
    ...         zeros, half = torch.zeros(2, dtype=torch.long), torch.full((2,), 0.5)
    ...         return Samples(torch.zeros_like(image), zeros, torch.tensor([0.5, 0.8]), half, zeros, zeros.float())
    >>> Darker().draw(torch.ones(1, 1, 1, 1), torch.Generator()).position
    tensor([0.5000, 0.8000])
    """

    difference: Difference = "none"
    pool: Pool = "gradient"
    relu_each: bool = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        complete_docstring(cls)

    @property
    def is_plain(self) -> bool:
        """Whether the pass over the clean images is the only one."""
        return False

    @property
    def origin(self) -> References | None:
        """Where its paths start; None without paths."""
        return None

    def check(self) -> None:
        """Raise ValueError for settings out of range, or that contradict each other."""
        check_settings(self)
        if self.difference == "increment" and self.pool == "gradient":
            raise ValueError("increments are factors of single gradients; give pool='contribution', 'slope' or 'map'")
        if self.difference == "none" and self.pool != "gradient":
            raise ValueError(
                f"pool={self.pool!r} multiplies by a difference; give difference='reference', 'path' or 'increment'"
            )

    def starting_from(self, baseline: References) -> Estimator:
        """The same estimator with other references; itself if it has none.

        Args:
            baseline: the references given to the call.
        """
        del baseline
        return self

    def draw(self, image: Float[Tensor, "1 c h w"], generator: torch.Generator) -> Samples:
        """The passes for one image.

        Args:
            image: the explained image.
            generator: of this image; the only source of random numbers.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Plain(Estimator):
    """The gradient at the image itself.

    >>> Plain().is_plain
    True
    """

    @property
    def is_plain(self) -> bool:
        """Whether the pass over the clean images is the only one."""
        return True


@dataclass(frozen=True, kw_only=True)
class Smooth(Estimator):
    """The mean gradient over noisy copies of the image.

    Args:
        samples: number of noisy copies, at least 1.
        noise_std: standard deviation of the noise. Omeiza gives no value; SmoothGrad's 10 to 20 % of the range is 0.1 to 0.2.
        antithetic: every second copy has the noise of the one before with the other sign.

    >>> Smooth(samples=4).draw(torch.zeros(1, 3, 8, 8), torch.Generator()).noise
    tensor([ 0.1000, -0.1000,  0.1000, -0.1000])
    """

    samples: Annotated[int, Ge(1)] = 24
    noise_std: Annotated[float, Ge(0), Unit("pixel values")] = 0.1
    antithetic: bool = True

    def check(self) -> None:
        """Raise ValueError for settings out of range, or a difference."""
        super().check()
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
    r"""Gradients along the path from one baseline, as in Integrated Grad-CAM.

    .. math:: L = \frac{1}{S} \sum_t relu\Bigl(\sum_k w_k(g_t) \, \bigl(A^k(z_t) - A^k(x')\bigr)\Bigr)

    Args:
        samples: number S of positions on the path, at least 1.
        baseline: x'; a name, pixel value, tensor or callable. The paper's is black, in whatever space the image is.
        quadrature: positions :math:`t / S` (``right``, the paper's sum), the middles of S equal parts (``midpoint``), or S
            points with both ends and half their weight there (``trapezoid``).

    >>> Integrated(samples=2).draw(torch.ones(1, 3, 8, 8), torch.Generator()).position
    tensor([0.0000, 0.5000, 1.0000])
    """

    difference: Difference = "path"
    pool: Pool = "map"
    relu_each: bool = True
    samples: Annotated[int, Ge(1)] = 24
    baseline: References = "black"
    quadrature: Quadrature = "right"

    @property
    def origin(self) -> References:
        """The baseline."""
        return self.baseline

    def check(self) -> None:
        """Raise ValueError for settings out of range."""
        super().check()
        if self.quadrature == "trapezoid" and self.samples < 2:
            raise ValueError(f"samples is {self.samples}; give at least 2 for the trapezoid rule")

    def starting_from(self, baseline: References) -> Estimator:
        """The same estimator with another baseline."""
        return replace(self, baseline=baseline)

    def draw(self, image: Float[Tensor, "1 c h w"], generator: torch.Generator) -> Samples:
        """The baseline, and the quadrature's positions."""
        position, share = quadrature(self.quadrature, self.samples)
        position, share = (torch.cat([torch.zeros(1), values]) for values in (position, share))
        zeros = torch.zeros(len(position), dtype=torch.long)
        return Samples(draw_references(self.baseline, image, 1, generator), zeros, position, share, zeros, zeros.float())


@dataclass(frozen=True, kw_only=True)
class Expected(Estimator):
    r"""The smoothed expectation over paths from a distribution of references, as in Expected Grad-CAM.

    .. math:: G = E_{x' \sim D, \; a \sim U(0, 1), \; e \sim N(0, \sigma^2)} \bigl[ g(z) \bigr]

    The authors published no code, and how the expectation enters a weighting is our reading: ``difference`` and ``pool`` are
    its settings, their defaults chosen by ``benchmarks/tune_expected.py``.

    Args:
        samples: passes; a is drawn once from each of as many equal parts of a path.
        references: D; a distribution, several images as a tensor, or a baseline.
        paths: number of different references; None for one per sample, or with increments one for every four samples.
        noise_std: standard deviation sigma of the noise, in pixel values, at least 0.
        antithetic: every second pass has the noise of the one before with the other sign.
        jitter: draw a from each part; False takes the middle of each part.

    >>> Expected(samples=2, jitter=False).draw(torch.ones(1, 3, 8, 8), torch.Generator()).position
    tensor([0.2500, 0.7500])
    """

    samples: Annotated[int, Ge(1)] = 24
    references: References = field(default_factory=RandomBlurs)
    paths: Annotated[int, Ge(1)] | None = None
    noise_std: Annotated[float, Ge(0), Unit("pixel values")] = 0.01
    antithetic: bool = True
    jitter: bool = True

    @property
    def origin(self) -> References:
        """The references."""
        return self.references

    def check(self) -> None:
        """Raise ValueError for settings out of range."""
        super().check()
        if self.paths is not None and self.paths > self.samples:
            raise ValueError(f"paths is {self.paths}; give at most as many paths as samples, {self.samples}")

    def starting_from(self, baseline: References) -> Estimator:
        """The same estimator with another distribution."""
        return replace(self, references=baseline)

    def draw(self, image: Float[Tensor, "1 c h w"], generator: torch.Generator) -> Samples:
        """Positions dealt to the paths in turn. A difference adds each reference, increments the image too, without noise."""
        paths = self.paths or max(1, self.samples // (4 if self.difference == "increment" else 1))
        references = draw_references(self.references, image, paths, generator)
        jitter = uniform((self.samples,), generator).cpu() if self.jitter else 0.5
        position, path = (torch.arange(self.samples) + jitter) / self.samples, torch.arange(self.samples) % paths
        seed, noise = noise_of_passes(self.samples, self.noise_std, self.antithetic, generator)
        increments = self.difference == "increment"
        share = torch.full_like(position, 1 / (paths if increments else self.samples))
        ends = [0.0] * (self.difference != "none") + [1.0] * increments
        path = torch.cat([path, *(torch.arange(paths) for _ in ends)])
        position = torch.cat([position, *(torch.full((paths,), end) for end in ends)])
        share = torch.cat([share, *(torch.full((paths,), end / paths) for end in ends)])
        seed, noise = (torch.cat([values, values.new_zeros(len(ends) * paths)]) for values in (seed, noise))
        order = (path + position.double().clamp(max=1 - 1e-9)).argsort()
        return Samples(references, path[order], position[order], share[order], seed[order], noise[order])


@dataclass(frozen=True, eq=False)
class Terms:
    """Terms of a mean at each layer: one for each pass, or for each step between two passes of a path.

    Attributes:
        blocks: number of each image among the few, and its slice of the terms.
        share: weight of each term in its image's mean.
        gradient: g of each term at each layer.
        difference: its factor Delta at each layer; empty where that is A(x).
        activation: A(z) of each term at each layer; empty if it is not needed.
        score: y(z) of each term.
    """

    blocks: list[tuple[int, slice]]
    share: Float[Tensor, " m"]
    gradient: Layers
    difference: Layers
    activation: Layers
    score: Float[Tensor, " m"]


class Expectation:
    """The passes of a few images, in full chunks, and the terms that they make.

    The passes of an image follow each other path by path, from the reference (share 0) to the image::

        pass      0   1    2    3   4    5    ...
        z         x'  z_1  z_2  x'  z_1  z_2
        start     0   0    0    3   3    3

    Args:
        probe: of the model at the layers.
        estimator: which made the passes.
        numbers: of the images, among those of the probe.
        activation: A(x) at each layer.
        stream: the passes.
        keep: whether terms have A(z).

    Attributes:
        start_score: mean score of each image's references, complete after the last term; 0 without differences.
        near_start: score of each image's pass that is nearest to its reference, complete after the last term.
    """

    def __init__(
        self,
        probe: LayerProbe,
        estimator: Estimator,
        numbers: Int[Tensor, " n"],
        activation: Layers,
        stream: Stream,
        *,
        keep: bool = False,
    ) -> None:
        self.probe, self.estimator, self.numbers, self.activation, self.stream = probe, estimator, numbers, activation, stream
        self.keep = keep or estimator.difference != "none"
        self.start_score = torch.zeros(len(numbers), device=numbers.device)
        self.near_start = torch.zeros(len(numbers), device=numbers.device)

    def terms(self) -> Iterator[Terms]:
        """All terms, a chunk of passes at a time."""
        earlier: Pass | None = None
        for passes in torch.arange(len(self.stream)).split(self.probe.chunk_size):
            index = self.stream.image[passes].to(self.numbers.device)
            z = self.stream.perturbed(passes)
            results = self.probe.observe(z, self.numbers[index], keep=self.keep)
            near = torch.isin(passes, self.stream.nearest).nonzero().flatten()
            self.near_start[index[near.to(index.device)]] = results.score[near.to(index.device)].to(self.near_start)
            if self.estimator.difference == "none":
                share = self.stream.share[passes].to(index.device)
                yield Terms(blocks(self.stream.image[passes]), share, results.gradient, {}, results.activation, results.score)
                continue
            window = _PassWindow.of(passes, results, earlier)
            self._add_start_scores(passes[self.stream.share[passes] == 0], window)
            compared = passes[self.stream.share[passes] > 0]
            if len(compared) > 0:  # a small chunk can have a reference alone
                yield self._differences(compared, window)
            last = passes[-1]
            earlier = window.at(torch.stack([self.stream.start[last], last]))

    def _differences(self, passes: Int[Tensor, " m"], window: _PassWindow) -> Terms:
        """The terms of the passes, with g and Delta of each."""
        index = self.stream.image[passes].to(self.numbers.device)
        current = window.at(passes)
        if self.estimator.difference == "increment":
            previous = window.at(passes - 1)
            gradient: Layers = {name: (g + previous.gradient[name]) / 2 for name, g in current.gradient.items()}
            difference = {name: a - previous.activation[name] for name, a in current.activation.items()}
        else:
            start, gradient = window.at(self.stream.start[passes]), current.gradient
            end = current.activation
            if self.estimator.difference == "reference":
                end = {name: a[index] for name, a in self.activation.items()}
            difference = {name: a - start.activation[name] for name, a in end.items()}
        share = self.stream.share[passes].to(index.device)
        return Terms(blocks(self.stream.image[passes]), share, gradient, difference, current.activation, current.score)

    def _add_start_scores(self, passes: Int[Tensor, " k"], window: _PassWindow) -> None:
        """Add the scores of references to the mean of their image."""
        image = self.stream.image[passes]
        paths = self.stream.image[self.stream.share == 0].bincount(minlength=len(self.numbers))
        scores = window.at(passes).score
        self.start_score.index_add_(0, image.to(scores.device), (scores / paths[image].to(scores)).to(self.start_score))


@dataclass(frozen=True, eq=False)
class _PassWindow:
    """The results of a chunk of passes and of two passes before it: the start of the last path, and the last pass.

    With both, every pass of the chunk finds the start of its path and the pass before it.

    Attributes:
        results: of all these passes; row r is pass ``first + r``, but for row 0, the start of the last path.
        first: see above.
    """

    results: Pass
    first: int

    @classmethod
    def of(cls, passes: Int[Tensor, " m"], results: Pass, earlier: Pass | None) -> _PassWindow:
        """The window of a chunk; ``earlier`` has the two passes before it, None for the first chunk."""
        if earlier is None:
            return cls(results, int(passes[0]))
        return cls(joined([earlier, results]), int(passes[0]) - 2)

    def at(self, passes: Int[Tensor, " k"]) -> Pass:
        """The results of some of the passes."""
        return self.results.at((passes - self.first).clamp(min=0))


def blocks(image: Int[Tensor, " m"]) -> list[tuple[int, slice]]:
    """Each image in a list of rows that is ordered by image, and the slice of its rows.

    >>> blocks(torch.tensor([3, 3, 4]))
    [(3, slice(0, 2, None)), (4, slice(2, 3, None))]
    """
    images, counts = image.unique_consecutive(return_counts=True)
    ends = counts.cumsum(dim=0).tolist()
    return [(i, slice(end - count, end)) for i, count, end in zip(images.tolist(), counts.tolist(), ends, strict=True)]


class LayerPool:
    """Weighted sums over the terms of a few images at one layer, and the map that they make.

    Args:
        name: of the layer.
        estimator: its ``pool`` and ``relu_each``.
        weighting: of the channels or cells.
        activation: A(x) of the images.
        score: y(x) of the images.
    """

    def __init__(
        self,
        name: str,
        estimator: Estimator,
        weighting: Weighting,
        activation: Float[Tensor, "n k h w"],
        score: Float[Tensor, " n"],
    ) -> None:
        self.name, self.estimator, self.weighting, self.activation, self.score = name, estimator, weighting, activation, score
        self.needs_changes = needs_changes(weighting)
        first_order = weighting in FIRST_ORDER or self.needs_changes
        self._powers = ("gradient",) if first_order else ("gradient", "square", "cube")
        self._sums: dict[str, Tensor] = {}
        self._changes: list[list[Tensor]] = [[] for _ in activation]

    def add(self, terms: Terms) -> None:
        """Add some terms to the sums."""
        g, difference, pool = terms.gradient[self.name], terms.difference.get(self.name), self.estimator.pool
        if pool == "gradient":
            for power, name in enumerate(self._powers, start=1):
                self._add(name, terms, g if power == 1 else g.pow(power))
        if self.needs_changes:
            self._add_changes(terms)
        if difference is None:  # the factor is A(x), the same for all terms
            return
        channel = (g * difference).sum(dim=(2, 3), keepdim=True)
        self._add("contributions", terms, channel.sum(dim=(1, 2, 3)))
        if pool == "map":
            one = weighted(self.weighting(Evidence(difference, g)), difference)
            self._add("map", terms, one.heatmap.relu() if self.estimator.relu_each else one.heatmap)
            self._add("channel", terms, one.channel)
            return
        self._add("difference", terms, difference)
        if pool != "gradient":
            self._add("contribution", terms, channel)

    def result(self) -> Weighted:
        """The map of each image; signed, but for ``relu_each``."""
        sums, pool = self._sums, self.estimator.pool
        if pool == "map":
            return Weighted(sums["map"], sums["channel"])
        if pool == "gradient":
            moments = [sums[name] for name in self._powers]
            changes = self._all_changes()
            evidence = Evidence(sums.get("difference", self.activation), *moments, **changes)
        else:
            change = sums["difference"].sum(dim=(2, 3), keepdim=True)
            below = change if pool == "slope" else torch.full_like(change, self.activation[0, 0].numel())
            channel = (sums["contribution"] / below).where(below != 0, 0)
            evidence = Evidence(self.activation, channel.expand_as(self.activation))
        return weighted(self.weighting(evidence), evidence.activation)

    def contributions(self) -> Float[Tensor, " n"] | None:
        """The sum of all contributions; None without a difference."""
        return self._sums.get("contributions")

    def _add_changes(self, terms: Terms) -> None:
        """Keep the change of each channel, and of the score, of each pass."""
        root = terms.share.to(terms.score).sqrt()
        for image, block in terms.blocks:
            channels = (self.activation[image] - terms.activation[self.name][block]).sum(dim=(2, 3))
            change = (self.score[image] - terms.score[block]).to(channels)
            self._changes[image].append(
                root[block].to(channels).unsqueeze(1) * torch.cat([channels, change.unsqueeze(1)], dim=1)
            )

    def _all_changes(self) -> dict[str, Tensor]:
        """The changes of all passes of each image, as `Evidence` has them."""
        if not self.needs_changes:
            return {}
        changes = torch.stack([torch.cat(rows) for rows in self._changes])
        return {"channel_changes": changes[:, :, :-1], "score_changes": changes[:, :, -1]}

    def _add(self, name: str, terms: Terms, values: Tensor) -> None:
        if name not in self._sums:
            self._sums[name] = values.new_zeros(len(self.activation), *values.shape[1:])
        share, flat = terms.share.to(values), values.reshape(len(values), -1)
        for image, block in terms.blocks:
            self._sums[name][image].view(-1).addmv_(flat[block].mT, share[block])


class Weighted(NamedTuple):
    """Weights times activation, summed over the channels and over the cells.

    Attributes:
        heatmap: the sum over the channels, a map.
        channel: the sum over the cells, the contribution of each channel.

    >>> activation = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    >>> weighted(torch.tensor([[[[1.0]], [[0.0]]]]), activation).channel
    tensor([[3., 0.]])
    """

    heatmap: Float[Tensor, "n h w"]
    channel: Float[Tensor, "n k"]


def weighted(weights: Float[Tensor, "n k #h #w"], activation: Float[Tensor, "n k h w"]) -> Weighted:
    """The map of these weights, and the contribution of each channel to it.

    Args:
        weights: one for each channel, (n, k, 1, 1), or one for each of its cells.
        activation: of the layer.

    >>> activation = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    >>> weighted(torch.tensor([[[[1.0]], [[0.0]]]]), activation).heatmap
    tensor([[[1., 2.]]])
    """
    parts = weights * activation
    return Weighted(parts.sum(dim=1), parts.sum(dim=(2, 3)))
