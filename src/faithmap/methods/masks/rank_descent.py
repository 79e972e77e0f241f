r"""Rank descent: an order of cells, found down the areas under both curves, from where Expected Grad-CAM begins.

Deletion and insertion look at nothing but the order in which a heatmap puts its cells. So what is descended here is what they
measure. Let :math:`u_i` in [0, 1] be the place of cell i, 1 for the highest, and

.. math:: R_i(t) = \sigma\Bigl(\frac{u_i - (1 - t)}{\tau}\Bigr), \qquad
    A(u) = E_{t, t' \sim U(0, 1)} \bigl[ f(\Phi(I, 1 - R(t))) - f(\Phi(I, R(t'))) \bigr]

:math:`R(t)` is about 1 in the first share t of the cells and about 0 in the others, with a soft edge of width :math:`\tau`
between them. A is the deletion area less the insertion area of games with soft edges. Its gradient at one random t and t' an
iteration is an expectation over masks, as expected gradients are one over images, where I-GOS integrates along one path:

.. math::
    g = K_\sigma * \frac{\partial A}{\partial u}, \qquad v \leftarrow \mu v + (1 - \mu) \frac{g}{|g|}, \qquad
    h \leftarrow h - \eta \frac{v}{|v|}, \qquad u = rank(h)

with :math:`|\cdot|` the root of the mean square over an image's cells: a score in any unit gives the same map. No penalty asks
for a small or smooth mask: the areas themselves reward the shortest list of cells, and the Gaussian :math:`K_\sigma` smooths
the step. Cells never tie, since h is a sum of steps and not a mask that ends in 0 and 1.

h begins with the places that a *prior* gives the cells. The areas hardly care in which order the unimportant cells come, but
the path of a descent does: without a prior, other noise in the image gives another map. The prior's few samples are not drawn
but lie on a lattice of positions and blurs, so that another seed moves their noise and the descent's first moment alone.

The moments t follow the golden section, :math:`t_{k + 1} = t_k + 0.618\ldots \bmod 1`, from a random start: any few of them are
spread over the whole curve. t' is half a turn away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.baselines import Baseline, describe_baseline, make_baseline
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request, check_resolution, rows_and_columns
from faithmap.methods.cams import Expected, ExpectedGradCAM
from faithmap.methods.references import GOLDEN, EvenBlurs
from faithmap.probe import MaskProbe
from faithmap.score import Target
from faithmap.warning_types import suppressed

TAIL = 3
"""The map is the mean of h over the iterations k, weighted by k to this power: the last third counts for four fifths."""


@dataclass(eq=False)
class RankDescent(Explainer):
    """Rank descent.

    Args:
        resolution: cells a side, or (rows, columns); up to the image's own size.
        iterations: each takes a forward and backward pass for either game.
        prior: what the descent begins with: Expected Grad-CAM, an explainer of your own, or None for nothing. Where a model has
            no layer that Expected Grad-CAM can look at, there is none, and the diagnostics say why.
        prior_samples: of Expected Grad-CAM.
        step: eta, in places: the prior's lie from 0 to 1. The larger, the better the areas; the smaller, the nearer the map is
            to the prior's, and the less it changes with noise in the image.
        momentum: mu.
        softness: tau, of the edge between the cells that are shown and those that are not, as a part of all places.
        smoothing: sigma, in cells of a grid of 28 a side: an eighth is a pixel of 224. Coarse maps are hardly touched.
        baseline: what a removed cell becomes, unless the call says otherwise.

    The rest is explained at :class:`faithmap.methods.Explainer`. A ``progress`` with a method ``maps(image, heatmap)`` is given
    the map as it stands after each iteration, and the number of its image.
    """

    resolution: int | tuple[int, int] = 28
    iterations: int = 25
    prior: Explainer | Literal["expected_gradcam"] | None = "expected_gradcam"
    prior_samples: int = 10
    step: float = 0.01
    momentum: float = 0.8
    softness: float = 0.05
    smoothing: float = 0.125
    baseline: Baseline = "blur"
    _expected: ExpectedGradCAM | None = field(default=None, init=False, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the map."""
        return rows_and_columns(self.resolution)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data."""
        prior = type(self.prior).__name__ if isinstance(self.prior, Explainer) else self.prior
        return {**super().settings, "prior": prior, "baseline": describe_baseline(self.baseline)}

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean one, those of the prior, and one of each game an iteration."""
        explainer = self._prior()
        prior = Passes(0, 0) if explainer is None else explainer.passes(image) or Passes(0, 0)
        return Passes(1 + prior.forward + 2 * self.iterations, prior.backward + 2 * self.iterations)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        check_resolution(self.shape, self.shape, size)
        if self.iterations < 1 or not 0 <= self.momentum < 1:
            raise ValueError("give at least 1 iteration, and a momentum of at least 0 and below 1")
        if min(self.softness, self.step) <= 0 or self.smoothing < 0:
            raise ValueError("give a softness and a step above 0, and a smoothing of at least 0")
        if self.prior not in (None, "expected_gradcam") and not isinstance(self.prior, Explainer):
            raise ValueError(f"prior is {self.prior!r}; give 'expected_gradcam', an explainer, or None")
        if self.prior_samples < 1:
            raise ValueError(f"prior_samples is {self.prior_samples}; give at least 1")

    def _explain(self, request: Request) -> RawHeatmap:
        """One image after the other, both games in one pass.

        Where two cells are nearly alike, rounding decides which comes first, and later steps magnify it. Beside other images in
        a pass an image's numbers would be rounded otherwise.
        """
        heatmaps, diagnostics = [], []
        for image in range(len(request.images)):
            masked = self._masked(request, image)
            h, told = self._start(request, image)
            heatmaps.append(self._descend(masked, request, image, h))
            told["forward_passes"] += int(masked.forward.sum())
            told["backward_passes"] += int(masked.backward.sum())
            diagnostics.append(told)
        return RawHeatmap(torch.cat(heatmaps), diagnostics)

    def _prior(self) -> Explainer | None:
        """The explainer that the descent begins with; Expected Grad-CAM is kept, since its layers have to be looked for."""
        if self.prior is None or isinstance(self.prior, Explainer):
            return self.prior
        if self._expected is None or self._expected.model is not self.model:
            self._expected = ExpectedGradCAM(self.model, relu=False)
        expected = self._expected
        expected.gradient = Expected(samples=self.prior_samples, references=EvenBlurs(), jitter=False)
        expected.score, expected.chunk_size, expected.autocast = self.score, self.chunk_size, self.autocast
        return expected

    def _start(self, request: Request, image: int) -> tuple[Float[Tensor, "1 r c"], dict[str, Any]]:
        """Places by the prior, and its passes with that of the clean image."""
        explainer, shown = self._prior(), request.images[image : image + 1]
        score = request.score.of(torch.tensor([image], device=shown.device))
        target: Target = score.function if score.classes is None else score.classes
        told: dict[str, Any] = {"forward_passes": 1, "backward_passes": 0, "prior": None}
        h = shown.new_full((1, *self.shape), 0.5)
        if explainer is None:
            return h, told
        try:
            with suppressed():
                why = explainer(shown, target, generator=[request.generators[image]])
        except ValueError as error:
            if isinstance(self.prior, Explainer):
                raise
            return h, {**told, "prior": f"none: {error}"}
        passes = {kind: told[kind] + why.diagnostics[0][kind] for kind in ("forward_passes", "backward_passes")}
        return places(why.at(self.shape)).to(h), {**passes, "prior": why.method}

    def _masked(self, request: Request, image: int) -> MaskProbe:
        """The model and an image over its baseline, twice: for deletion, and for insertion."""
        index = torch.tensor([image], device=request.images.device)
        images = request.images[index]
        baseline = make_baseline(request.baseline_for(index, self.baseline), images)
        images, baseline = (values.repeat(2, 1, 1, 1) for values in (images, baseline))
        score = request.score.of(index.repeat(2))
        return MaskProbe(self.model, score, images, baseline, chunk_size=self.chunk_size, autocast=self.autocast)

    def _descend(self, masked: MaskProbe, request: Request, image: int, h: Float[Tensor, "1 r c"]) -> Float[Tensor, "1 r c"]:
        total, show = self.iterations * len(request.images), getattr(request.progress, "maps", None)
        generator = request.generators[image]
        start = torch.rand(1, generator=generator, device=generator.device).to(h)
        velocity, mean, weight = torch.zeros_like(h), torch.zeros_like(h), 0
        for k in range(self.iterations):
            slope = self.gradient(masked, places(h), (start + k * GOLDEN) % 1, (start + k * GOLDEN + 0.5) % 1)
            velocity = self.momentum * velocity + (1 - self.momentum) * normalised(slope)
            h = h - self.step * normalised(velocity)
            weight += (k + 1) ** TAIL
            mean += (h - mean) * (k + 1) ** TAIL / weight
            request.progress(self.iterations * image + k + 1, total)
            if show is not None:
                show(image, mean.clone())
        return mean

    def gradient(
        self, masked: MaskProbe, u: Float[Tensor, "m r c"], t: Float[Tensor, " m"], other: Float[Tensor, " m"]
    ) -> Float[Tensor, "m r c"]:
        """K * dA/du of each image at one moment of either game.

        Args:
            masked: the images, twice.
            u: the places of their cells.
            t: share of the cells that are deleted.
            other: share of the cells that are inserted.
        """
        went, came = (torch.sigmoid((u - (1 - share.view(-1, 1, 1))) / self.softness) for share in (t, other))
        everyone = torch.arange(2 * len(u), device=u.device)
        slope = masked.gradients(torch.cat([1 - went, came]), everyone, torch.ones_like(torch.cat([t, other])))
        deletion, insertion = slope.chunk(2)
        edges = (went * (1 - went) / self.softness, came * (1 - came) / self.softness)
        return blurred(-deletion * edges[0] - insertion * edges[1], self.smoothing)


def places(h: Float[Tensor, "m r c"]) -> Float[Tensor, "m r c"]:
    """Of each cell in its map's order, 0 for the lowest and 1 for the highest; a half where all are equal.

    >>> places(torch.tensor([[[3.0, 5.0, 4.0]], [[2.0, 2.0, 2.0]]]))
    tensor([[[0.0000, 1.0000, 0.5000]],
    <BLANKLINE>
            [[0.5000, 0.5000, 0.5000]]])
    """
    flat = h.flatten(1)
    order = flat.argsort(dim=1, stable=True).argsort(dim=1).to(h.dtype) / max(1, flat.shape[1] - 1)
    return order.where(flat.amin(dim=1, keepdim=True) < flat.amax(dim=1, keepdim=True), 0.5).view(h.shape)


def normalised(values: Float[Tensor, "m r c"]) -> Float[Tensor, "m r c"]:
    """Over the root of the mean square of each map; zero stays zero."""
    size = values.square().mean(dim=(1, 2), keepdim=True).sqrt()
    return (values / size).where(size > 0, 0)


def blurred(values: Float[Tensor, "m r c"], sigma: float) -> Float[Tensor, "m r c"]:
    """By a Gaussian of so many cells of a grid of 28 a side, cut at three sigmas, the border repeated."""
    for dim in (1, 2):
        width = sigma * values.shape[dim] / 28
        reach = math.ceil(3 * width)
        if reach == 0 or values.shape[dim] == 1:
            continue
        distance = torch.arange(-reach, reach + 1, device=values.device, dtype=values.dtype)
        kernel = torch.softmax(-distance.square() / (2 * width**2), dim=0)
        index = (torch.arange(values.shape[dim], device=values.device).unsqueeze(1) + distance.long()).clamp(
            0, values.shape[dim] - 1
        )
        values = (values.movedim(dim, -1)[..., index] @ kernel).movedim(-1, dim)
    return values
