r"""Rank descent: optimises the ranking of cells for deletion and insertion, starting from an Expected Fused CAM map.

Deletion and insertion depend only on the order of a heatmap's cells, so the objective here is the area under both curves. Let
:math:`u_i` in [0, 1] be the rank of cell i, 1 for the highest, and

.. math:: R_i(t) = \sigma\Bigl(\frac{u_i - (1 - t)}{\tau}\Bigr), \qquad
    A(u) = E_{t, t' \sim U(0, 1)} \bigl[ f(\Phi(I, 1 - R(t))) - f(\Phi(I, R(t'))) \bigr]

:math:`R(t)` is about 1 in the first fraction t of the cells and about 0 in the others, with a soft edge of width :math:`\tau`
between them. A is the area under the deletion curve less the area under the insertion curve, with soft edges. Its gradient at
one random t and t' per iteration is an expectation over masks, as expected gradients are one over images, where I-GOS
integrates along one path:

.. math::
    g = K_\sigma * \frac{\partial A}{\partial u}, \qquad v \leftarrow \mu v + (1 - \mu) \frac{g}{|g|}, \qquad
    h \leftarrow h - \eta \frac{v}{|v|}, \qquad u = rank(h)

with :math:`|\cdot|` the root of the mean square over an image's cells: a score in any unit gives the same map. There is no
penalty for large or rough masks: the areas are best for the shortest list of cells, and the Gaussian :math:`K_\sigma` smooths
the step. Cells do not tie, since h is a sum of steps and not a mask that ends in 0 and 1.

h starts with the ranks of a *prior*. The areas depend little on the order of the unimportant cells, but the path of a descent
does: without a prior, other noise in the image gives another map. The prior's few samples are not random but form a lattice
of positions and blurs, so that another seed changes only their noise and the first t of the descent.

The fractions t are a low-discrepancy sequence, :math:`t_{k + 1} = t_k + 0.618\ldots \bmod 1` from a random start: a few samples
cover [0, 1] evenly. t' is :math:`t + 0.5 \bmod 1`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float
from torch import Tensor

from faithmap.baselines import STILL_SCORES, Baseline, describe_baseline
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request, check_resolution, rows_and_columns, warn_if_recognised
from faithmap.methods.cams import Expected, ExpectedFusedCAM
from faithmap.methods.masks.base import mask_probe
from faithmap.methods.references import GOLDEN, EvenBlurs
from faithmap.probe import Disturbance, MaskProbe
from faithmap.score import Target
from faithmap.seeds import uniform
from faithmap.warning_types import BaselineWarning, FaithmapWarning, TargetLayerWarning, suppressed

TAIL = 3
"""The map is the mean of h over the iterations k, weighted by k to this power: the last third counts for four fifths."""


@dataclass(eq=False)
class RankDescent(Explainer):
    """Rank descent.

    A ``progress`` callback with a method ``maps(image, heatmap)`` is also given the current map after each iteration, with the
    number of its image.

    Args:
        resolution: cells per side, or (rows, columns), from 1 to the image's own size.
        iterations: at least 1; each takes two forward and two backward passes, one of each for deletion and for insertion.
        prior: the map that the descent starts from: Expected Fused CAM, an explainer of your own, or None for a constant map. A
            model without a layer that Expected Fused CAM can use has no prior; the diagnostics give the reason.
        prior_samples: number of samples of Expected Fused CAM, from whose map the optimisation starts; at least 1.
        step: eta, in ranks, above 0; the prior's ranks go from 0 to 1. A larger step gives better areas; a smaller one keeps
            the map nearer to the prior's and more stable under noise in the image.
        momentum: momentum mu of the optimisation, at least 0 and below 1.
        softness: tau, above 0, the width of the edge between the cells that are removed and the others, as a fraction of all
            ranks.
        smoothing: sigma, at least 0, in cells of a grid of 28 per side: the default is one pixel of 224. Coarse maps hardly
            change.
        baseline: what a removed cell becomes, where the call gives none: a name of :data:`faithmap.BASELINES`, a pixel value, a
            tensor or a callable.

    >>> class Corner(torch.nn.Module):
    ...     def forward(self, images):
    ...         brightness = images[:, :, :8, :8].mean(dim=(1, 2, 3))
    ...         return torch.stack([12 * brightness - 6, 6 - 12 * brightness], dim=1)
    >>> explain = RankDescent(Corner(), resolution=4, prior=None, baseline="black")
    >>> explanation = explain(torch.full((1, 3, 32, 32), 0.9), 0)
    >>> bool(explanation.heatmap[0, 0, 0] == explanation.heatmap.max())
    True
    """

    title: ClassVar[str] = "rank descent"
    reads_removals: ClassVar[bool] = True
    resolution: int | tuple[int, int] = 28
    iterations: Annotated[int, Ge(1)] = 25
    prior: Explainer | Literal["expected_fusedcam"] | None = "expected_fusedcam"
    prior_samples: Annotated[int, Ge(1)] = 10
    step: Annotated[float, Gt(0)] = 0.01
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.8
    softness: Annotated[float, Gt(0)] = 0.05
    smoothing: Annotated[float, Ge(0)] = 0.125
    baseline: Baseline = "blur"
    _expected: ExpectedFusedCAM | None = field(default=None, init=False, repr=False)

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
        """One for the clean image, one for the baseline, those of the prior, and two of each kind in each iteration."""
        explainer = self._prior()
        prior = Passes(0, 0) if explainer is None else explainer.passes(image) or Passes(0, 0)
        return Passes(2 + prior.forward + 2 * self.iterations, prior.backward + 2 * self.iterations)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        check_resolution(self.shape, self.shape, size)

    def _explain(self, request: Request) -> RawHeatmap:
        """Explain one image after the other, its deletion and insertion in one pass.

        Where two cells are nearly equal, rounding decides which has the higher rank, and later steps magnify the difference.
        In a pass with other images the rounding would be another.
        """
        heatmaps, diagnostics = [], []
        for image in range(len(request.images)):
            row = torch.tensor([image], device=request.images.device)
            probe = mask_probe(self, request, row.repeat(2), request.baseline_for(row, self.baseline))
            removed = probe.scores(probe.images.new_zeros(1, 1, 1), torch.zeros(1, dtype=torch.long, device=row.device))
            warn_if_recognised(self, request, row, probe.baseline[:1], request.as_probability(removed))
            h, record = self._start(request, image)
            heatmaps.append(self._descend(probe, request, image, h))
            record["forward_passes"] += int(probe.forward.sum())
            record["backward_passes"] += int(probe.backward.sum())
            diagnostics.append(record)
        return RawHeatmap(torch.cat(heatmaps), diagnostics)

    def _prior(self) -> Explainer | None:
        """The explainer of the prior; Expected Fused CAM is kept, since the search for its layers takes a pass."""
        if self.prior is None or isinstance(self.prior, Explainer):
            return self.prior
        if self._expected is None or self._expected.model is not self.model:
            self._expected = ExpectedFusedCAM(self.model, relu=False)
        expected = self._expected
        expected.gradient = Expected(samples=self.prior_samples, references=EvenBlurs(), jitter=False)
        expected.score, expected.chunk_size, expected.autocast = self.score, self.chunk_size, self.autocast
        return expected

    def _start(self, request: Request, image: int) -> tuple[Float[Tensor, "1 r c"], dict[str, Any]]:
        """The ranks of the prior, and the start of the diagnostics, with the passes of the prior and of the clean image."""
        explainer, clean = self._prior(), request.images[image : image + 1]
        score = request.score.of(torch.tensor([image], device=clean.device))
        target: Target = score.function if score.classes is None else score.classes
        record: dict[str, Any] = {"forward_passes": 1, "backward_passes": 0, "prior": None}
        constant = clean.new_full((1, *self.shape), 0.5)
        if explainer is None:
            return constant, record
        try:
            with suppressed():
                prior = explainer(clean, target, generator=[request.generators[image]])
        except ValueError as error:
            if isinstance(self.prior, Explainer):
                raise
            request.warn(image, f"rank descent starts without its prior, and depends more on noise: {error}", FaithmapWarning)
            return constant, {**record, "prior": f"none: {error}"}
        request.advice_passes[image] += prior.diagnostics[0].get("advice_passes", 0)
        if not any(message.startswith(STILL_SCORES) for message in request.warnings[image]):
            for message in (m for m in prior.diagnostics[0]["warnings"] if m.startswith(STILL_SCORES)):
                request.warn(image, f"in the prior, {message}", BaselineWarning)
        if image == 0 and (doubt := prior.diagnostics[0].get("layer_doubt")):
            request.warn_of_all(f"in the prior, {doubt}", TargetLayerWarning)
        passes = {kind: record[kind] + prior.diagnostics[0][kind] for kind in ("forward_passes", "backward_passes")}
        return ranks(prior.at(self.shape)).to(constant), {**passes, "prior": prior.method}

    def _descend(self, probe: MaskProbe, request: Request, image: int, h: Float[Tensor, "1 r c"]) -> Float[Tensor, "1 r c"]:
        """The mean of h over the iterations, weighted towards the end."""
        total, report_map = self.iterations * len(request.images), getattr(request.progress, "maps", None)
        generator = request.generators[image]
        start = uniform((1,), generator).to(h)
        v, mean, weight = torch.zeros_like(h), torch.zeros_like(h), 0
        for k in range(self.iterations):
            t, t_insertion = (start + k * GOLDEN) % 1, (start + k * GOLDEN + 0.5) % 1
            g = self.gradient(probe, ranks(h), t, t_insertion)
            v = self.momentum * v + (1 - self.momentum) * normalised(g)
            h = h - self.step * normalised(v)
            weight += (k + 1) ** TAIL
            mean += (h - mean) * (k + 1) ** TAIL / weight
            request.progress(self.iterations * image + k + 1, total)
            if report_map is not None:
                report_map(image, mean.clone())
        return mean

    def gradient(
        self,
        probe: MaskProbe,
        u: Float[Tensor, "m r c"],
        t: Float[Tensor, " m"],
        t_insertion: Float[Tensor, " m"],
        disturb: Disturbance | None = None,
    ) -> Float[Tensor, "m r c"]:
        """K * dA/du of m images at one point of their deletion and insertion curves.

        Args:
            probe: of the images, once for deletion and once more for insertion.
            u: the ranks of their cells.
            t: the fraction of the cells that is deleted.
            t_insertion: t', the fraction of the cells that is inserted.
            disturb: changes the composed images, such as by mirroring them; differentiated like the rest.
        """
        deleted, inserted = (torch.sigmoid((u - (1 - share.view(-1, 1, 1))) / self.softness) for share in (t, t_insertion))
        index = torch.arange(2 * len(u), device=u.device)
        shares = torch.ones_like(torch.cat([t, t_insertion]))
        gradient = probe.gradients(torch.cat([1 - deleted, inserted]), index, shares, disturb)
        deletion, insertion = gradient.chunk(2)
        edges = (deleted * (1 - deleted) / self.softness, inserted * (1 - inserted) / self.softness)
        return blurred(-deletion * edges[0] - insertion * edges[1], self.smoothing)


def ranks(h: Float[Tensor, "m r c"]) -> Float[Tensor, "m r c"]:
    """The rank of each cell in its map, from 0 for the lowest to 1 for the highest; a half where all cells are equal.

    >>> ranks(torch.tensor([[[3.0, 5.0, 4.0]], [[2.0, 2.0, 2.0]]]))
    tensor([[[0.0000, 1.0000, 0.5000]],
    <BLANKLINE>
            [[0.5000, 0.5000, 0.5000]]])
    """
    flat = h.flatten(1)
    order = flat.argsort(dim=1, stable=True).argsort(dim=1).to(h.dtype) / max(1, flat.shape[1] - 1)
    return order.where(flat.amin(dim=1, keepdim=True) < flat.amax(dim=1, keepdim=True), 0.5).view(h.shape)


def normalised(values: Float[Tensor, "m r c"]) -> Float[Tensor, "m r c"]:
    """Each map divided by the root of its mean square; zero stays zero."""
    size = values.square().mean(dim=(1, 2), keepdim=True).sqrt()
    return (values / size).where(size > 0, 0)


def blurred(values: Float[Tensor, "m r c"], sigma: float) -> Float[Tensor, "m r c"]:
    """Gaussian blur with sigma in cells of a grid of 28 per side, cut at three sigmas, with repeated borders."""
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
