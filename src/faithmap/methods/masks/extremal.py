r"""Extremal perturbations: of all smooth masks of an area, the one that changes the score most (Fong et al., ICCV 2019).

.. math::
    m_a = argmax_m \; F(m) - \lambda R_a(m), \qquad
    F(m) = \begin{cases} f(\Phi(I, m)) & \text{preserve} \\ -f(\Phi(I, 1 - m)) & \text{delete} \\
        f(\Phi(I, m)) - f(\Phi(I, 1 - m)) & \text{dual} \end{cases}

A mask is smooth by a max-convolution of few numbers (:class:`SmoothMasks`); its area is enforced through its sorted cells
(:func:`area_penalty`). The baseline is any, or a blur whose width depends on the mask (:class:`Pyramid`). The numbers are
found by gradient ascent with momentum; :math:`\lambda` is doubled after each third of the iterations. The extremal area is
the smallest whose mask keeps enough of the score:

.. math:: a^* = \min \{ a : f(\Phi(I, m_a)) \ge \tau f(I) \}

Masks of several areas together rank the cells: the map is their mean, or the mask of the extremal area alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from annotated_types import Ge, Gt, Le, Lt, Unit
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from faithmap.baselines import REFERENCE_SIZE, Baseline, Blur, describe_baseline
from faithmap.methods.base import (
    Clean,
    Explainer,
    Passes,
    RawHeatmap,
    Request,
    check_resolution,
    rows_and_columns,
    warn_if_recognised,
)
from faithmap.methods.masks.base import mask_probe
from faithmap.probe import MaskProbe, rows_of
from faithmap.score import ScoreKind, Target

EQUAL = 1e-6
"""Cells whose values differ by at most this are equal."""


def area_penalty(masks: Float[Tensor, "n r c"], areas: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    r"""The distance of each mask from its area, measured on its sorted cells.

    .. math:: R_a(m) = \frac{1}{|\Omega|} \, | vecsort(m) - r_a |^2, \qquad r_a = (0, \dots, 0, 1, \dots, 1)

    with :math:`a |\Omega|` ones: 0 for a mask of zeros and ones with exactly that area. The paper has the sum; with the mean, a
    weight keeps its meaning when the resolution changes.

    Args:
        masks: in [0, 1].
        areas: a of each mask, in (0, 1).

    >>> area_penalty(torch.tensor([[[1.0, 0.0, 0.0, 0.5]]]), torch.tensor([0.5]))
    tensor([0.0625])
    """
    ordered = masks.flatten(1).sort(dim=1).values
    ranks = torch.arange(ordered.shape[1], device=masks.device)
    return (ordered - (ranks >= _zeros(masks, areas)).to(masks)).square().mean(dim=1)


def area_gradient(masks: Float[Tensor, "n r c"], areas: Float[Tensor, " n"]) -> Float[Tensor, "n r c"]:
    r"""The gradient of :func:`area_penalty`, :math:`2 (m - r) / |\Omega|` with r the entry of r_a at a cell's rank.

    Equal cells have no rank of their own: they share the mean of their entries, so that neither the memory layout nor rounding
    decides which of them grows.

    >>> area_gradient(torch.tensor([[[1.0, 0.5], [0.5, 0.0]]]), torch.tensor([0.5]))
    tensor([[[0., 0.],
             [0., 0.]]])
    """
    cells = masks.flatten(1)
    ordered = cells.sort(dim=1).values
    low = torch.searchsorted(ordered, cells - EQUAL)
    high = torch.searchsorted(ordered, cells + EQUAL, right=True)
    entries = (high - low.maximum(_zeros(masks, areas))).clamp(min=0).to(masks) / (high - low)
    return (2 * (cells - entries) / cells.shape[1]).view_as(masks)


def _zeros(masks: Float[Tensor, "n r c"], areas: Float[Tensor, " n"]) -> Float[Tensor, "n 1"]:
    """The number of zeros in r_a."""
    cells = masks[0].numel()
    return cells - (areas * cells).round().long().clamp(min=1).unsqueeze(1)


REACH = 5.0
"""Sigmas from the centre of a bump to its end."""

_AT_ONCE = 2**23
"""Products of a cell and a number near it that are in memory together."""


class SmoothMasks:
    r"""Makes smooth masks from grids of numbers, by a max-convolution.

    A convolution cannot make a mask that is both smooth and nearly 0 or 1 everywhere, a maximum of bumps can:

    .. math::
        m(u) = smax_v \; k(u - v) \, \bar m(v), \qquad
        smax_v f(v) = \frac{\sum_v f(v) e^{f(v) / T}}{\sum_v e^{f(v) / T}}

    with :math:`\bar m` the numbers, on a coarse grid whose border is repeated beyond the image: with zeros outside, even a
    uniform grid would give a mask whose border ranks differently from its middle. The bump is :math:`k(u) = e^{-\max(0, |u| /
    \sigma - 1)^2 / 4}`: 1 up to a distance of :math:`\sigma`, a half at 2.7, and cut off at 5, where 2 % are left.

    Args:
        shape: (rows, columns) of the masks.
        pitch: pixels from one cell to the next, down and across.
        step: pixels from one number to the next, rounded to whole cells.
        sigma: of the bump, in pixels.
        temperature: T; 0 would be a hard maximum, infinity a mean.
        like: a tensor of the dtype and device of the masks.

    >>> make = SmoothMasks((4, 4), (1.0, 1.0), step=2.0, sigma=1.5, temperature=0.05, like=torch.zeros(1))
    >>> make.grid, make(torch.ones(1, *make.grid)).shape
    ((2, 2), torch.Size([1, 4, 4]))
    """

    def __init__(
        self, shape: tuple[int, int], pitch: tuple[float, float], step: float, sigma: float, temperature: float, like: Tensor
    ) -> None:
        self.shape, self.temperature = shape, temperature
        self.steps = tuple(max(1, round(step / cell)) for cell in pitch)
        self.grid = tuple(math.ceil(cells / every) for cells, every in zip(shape, self.steps, strict=True))
        # A number is at the centre of its block of cells; one more than `reach` blocks away is too far from all of its cells.
        spans = [every * cell for every, cell in zip(self.steps, pitch, strict=True)]
        self.reach = tuple(min(n - 1, math.floor(REACH * sigma / span + 0.5)) for n, span in zip(self.grid, spans, strict=True))
        down, across = (
            _distances(every, cell, reach) for every, cell, reach in zip(self.steps, pitch, self.reach, strict=True)
        )
        distance = (down[:, None, :, None].square() + across[None, :, None, :].square()).sqrt().flatten(2).flatten(0, 1)
        self.near = (distance.amin(dim=1) <= REACH * sigma).nonzero().flatten().to(like.device)
        bump = torch.exp(-(distance / sigma - 1).clamp(min=0).square() / 4) * (distance <= REACH * sigma)
        self.bump = bump.to(like)[self.near].unsqueeze(2)

    def __call__(self, numbers: Float[Tensor, "n i j"]) -> Float[Tensor, "n r c"]:
        """The masks, in [0, 1] if the numbers are."""
        return torch.cat([self._masks(part) for part in numbers.split(self._together)])

    def pull(self, numbers: Float[Tensor, "n i j"], slope: Float[Tensor, "n r c"]) -> Float[Tensor, "n i j"]:
        """The gradient to the numbers, given the gradient to their masks; a few masks at a time."""
        found = []
        for part, above in zip(numbers.split(self._together), slope.split(self._together), strict=True):
            leaf = part.detach().requires_grad_()
            with torch.enable_grad():
                found.append(torch.autograd.grad(self._masks(leaf), leaf, above)[0])
        return torch.cat(found)

    @property
    def _together(self) -> int:
        return max(1, _AT_ONCE // (len(self.near) * math.prod(self.grid) * math.prod(self.steps)))

    def _masks(self, numbers: Float[Tensor, "n i j"]) -> Float[Tensor, "n r c"]:
        down, across = self.reach
        around = F.pad(numbers.unsqueeze(1), (across, across, down, down), mode="replicate")
        near = F.unfold(around, (2 * down + 1, 2 * across + 1))[:, self.near]
        products = near.unsqueeze(2) * self.bump
        cells = (products * (products / self.temperature).softmax(dim=1)).sum(dim=1)
        blocks = cells.view(-1, *self.steps, *self.grid).permute(0, 3, 1, 4, 2)
        whole = blocks.reshape(-1, *(n * every for n, every in zip(self.grid, self.steps, strict=True)))
        return whole[:, : self.shape[0], : self.shape[1]]


def _distances(every: int, cell: float, reach: int) -> Float[Tensor, "k p"]:
    """On one axis, from the centre of each block in reach to each cell of a block, in pixels."""
    cells = (torch.arange(every, dtype=torch.float64) - (every - 1) / 2) * cell
    blocks = torch.arange(-reach, reach + 1, dtype=torch.float64) * every * cell
    return cells - blocks.unsqueeze(1)


@dataclass(frozen=True)
class Pyramid:
    r"""A baseline whose blur depends on the mask: the less a mask keeps of a pixel, the wider its blur.

    .. math:: \Phi(I, M)(u) = (g_{\sigma(u)} * I)(u), \qquad \sigma(u) = \sigma_{max} \, (1 - up(M)(u))

    by interpolation between L + 1 images that are blurred once, with sigmas evenly from 0 to :math:`\sigma_{max}`. For other
    methods it is the widest blur.

    Args:
        sigma: of the widest blur, in pixels at 224, above 0.
        levels: number L of levels, at least 1.

    Raises:
        ValueError: for values outside these ranges.

    >>> Pyramid(levels=3).blurred(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 4, 3, 8, 8])
    """

    family: ClassVar[str] = "blur"
    sigma: float = 20.0
    levels: int = 8

    def __post_init__(self) -> None:
        if not self.sigma > 0 or self.levels < 1:
            raise ValueError(f"the pyramid has sigma {self.sigma} and {self.levels} levels; give a sigma above 0, and a level")

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images with the widest blur."""
        return Blur(None, self.sigma)(images)

    def blurred(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n l c h w"]:
        """Each image from the widest blur to none."""
        sigmas = [self.sigma * level / self.levels for level in range(self.levels, 0, -1)]
        return torch.stack([*(Blur(None, sigma)(images) for sigma in sigmas), images], dim=1)


@dataclass
class PyramidProbe(MaskProbe):
    """Scores of images whose blur depends on masks, and their gradients to the masks.

    Attributes:
        pyramid: its widest blur is the baseline.
    """

    pyramid: Pyramid = Pyramid()
    _blurred: Float[Tensor, "n l c h w"] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._blurred = self.pyramid.blurred(self.images)

    def _composed(self, up: Float[Tensor, "m 1 h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        low, high, share = self._between(up, index)
        return torch.lerp(low, high, share.to(low))

    def _change(self, up: Float[Tensor, "m 1 h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        low, high, _ = self._between(up, index)
        return (high - low) * self.pyramid.levels

    def _between(self, up: Tensor, index: Int[Tensor, " m"]) -> tuple[Tensor, Tensor, Tensor]:
        """The blurred values above and below each pixel's sigma, and its position between the wider and the narrower."""
        place = up * self.pyramid.levels
        level = place.detach().floor().clamp(0, self.pyramid.levels - 1)
        chosen = level.long().unsqueeze(1).expand(-1, -1, self.images.shape[1], -1, -1)
        blurred = rows_of(self._blurred, index)
        blurred = blurred.expand(len(up), *blurred.shape[1:])
        low, high = blurred.gather(1, chosen).squeeze(1), blurred.gather(1, chosen + 1).squeeze(1)
        return low, high, place - level


Variant: TypeAlias = Literal["preserve", "delete", "dual"]


@dataclass(eq=False)
class ExtremalPerturbation(Explainer):
    r"""Extremal perturbations.

    An image takes a forward and a backward pass in each iteration for each area, two of each for the variant "dual". Nothing is
    random.

    Args:
        areas: a, areas of the masks as shares of the image, each between 0 and 1.
        variant: "preserve" for masks whose part of the image keeps the score alone, "delete" for masks without whose part the
            score falls, "dual" for both together.
        summary: the map: the "mean" of the masks, or the mask of the "extremal" area (of the largest, if none keeps enough).
        smoothing: standard deviation of a Gaussian that blurs the mean, as a share of the shorter side, at least 0; 0 for none.
        share: :math:`\tau`, in (0, 1], of the clean score; of the class's probability, even if the logit is optimised. For
            "delete" a mask is enough if at most :math:`1 - \tau` remains without it.
        resolution: cells of the masks, (rows, columns) or one number for both, from 1 to the image's own size; None for a cell
            every two pixels.
        step: distance between two numbers of the grid, above 0, in pixels at 224.
        sigma: of the bumps that masks are made of, above 0, in pixels at 224; None for the step divided by the root of 2, the
            smallest with which the bumps of a full grid leave no gap.
        temperature: temperature T of the smooth maximum, above 0.
        weight: weight lambda of the area term at the start, above 0.
        iterations: number of iterations, at least 1; there is no early stop.
        learning_rate: step size of the gradient ascent, above 0.
        momentum: momentum of the gradient ascent, at least 0 and below 1.
        baseline: what a removed pixel becomes, where the call gives none: a name of :data:`faithmap.BASELINES`, a pixel
            value, a tensor or a callable; a :class:`Pyramid`, as in the paper, blurs a pixel the more, the less the mask
            keeps of it.
        score: what is optimised. Not the probability by default: its gradient vanishes where the model is certain.

    >>> class Corner(torch.nn.Module):
    ...     def forward(self, images):
    ...         brightness = images[:, :, :8, :8].mean(dim=(1, 2, 3))
    ...         return torch.stack([12 * brightness - 6, 6 - 12 * brightness], dim=1)
    >>> explain = ExtremalPerturbation(Corner(), areas=(0.1,), step=14, iterations=30, baseline="black")
    >>> heatmap = explain(torch.full((1, 3, 32, 32), 0.9), 0).heatmap
    >>> bool(heatmap[0, :4, :4].mean() > heatmap.mean())
    True
    """

    title: ClassVar[str] = "extremal perturbations"
    reads_removals: ClassVar[bool] = True
    areas: tuple[Annotated[float, Gt(0), Lt(1)], ...] = (0.025, 0.05, 0.1, 0.2)
    variant: Variant = "preserve"
    summary: Literal["mean", "extremal"] = "mean"
    smoothing: Annotated[float, Ge(0)] = 0.09
    share: Annotated[float, Gt(0), Le(1)] = 0.5
    resolution: int | tuple[int, int] | None = None
    step: Annotated[float, Gt(0), Unit("pixels at 224")] = 8.0
    sigma: Annotated[float, Gt(0), Unit("pixels at 224")] | None = None
    temperature: Annotated[float, Gt(0)] = 0.05
    weight: Annotated[float, Gt(0)] = 300.0
    iterations: Annotated[int, Ge(1)] = 800
    learning_rate: Annotated[float, Gt(0)] = 0.01
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    baseline: Baseline = "blur"
    score: ScoreKind = "logit"

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data."""
        return {**super().settings, "baseline": describe_baseline(self.baseline)}

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One of each kind in each iteration for each area; two forward passes for each final mask, one for the baseline."""
        del image
        steps = len(self.areas) * self.iterations * (2 if self.variant == "dual" else 1)
        return Passes(2 + steps + 2 * len(self.areas), steps)

    def _shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of the masks."""
        if self.resolution is None:
            return (size[0] + 1) // 2, (size[1] + 1) // 2
        return rows_and_columns(self.resolution)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if not self.areas:
            raise ValueError("areas are empty; give at least one share of the image between 0 and 1")
        check_resolution(self.resolution, self._shape(size), size)

    def _explain(self, request: Request) -> RawHeatmap:
        maps, diagnostics = [], []
        for index in torch.arange(len(request.images), device=request.images.device).split(self.chunk_size):
            heatmap, records = self._explain_chunk(request, index)
            maps.append(heatmap)
            diagnostics += records
        return RawHeatmap(torch.cat(maps), diagnostics)

    def _clean(self, images: Float[Tensor, "n c h w"], target: Target) -> Clean:
        """As of every method; the probability of a class is kept, since it decides whether a mask is enough."""
        logits, score, clean, _ = super()._clean(images, target)
        if logits is None or score.classes is None:
            return logits, score, clean, clean
        index = torch.arange(len(images), device=images.device)
        return logits, score, clean, replace(score, kind="probability")(logits, index)

    def _explain_chunk(self, request: Request, index: Int[Tensor, " m"]) -> tuple[Float[Tensor, "m r c"], list[dict[str, Any]]]:
        """The maps and diagnostics of some images; the masks of all their areas are optimised together."""
        count = len(self.areas)
        probe = self._probe(request, index)
        areas = torch.tensor(self.areas, device=index.device, dtype=torch.float64).repeat(len(index))

        def progress(done: int) -> None:
            request.progress(self.iterations * int(index[0]) + done * len(index), self.iterations * len(request.images))

        masks = self._ascend(probe, areas, progress)
        every_image = torch.arange(len(masks), device=index.device)
        kept, removed = _probability(probe, masks, every_image), _probability(probe, 1 - masks, every_image)
        clean = request.kept[index].repeat_interleave(count)
        enough = removed <= (1 - self.share) * clean if self.variant == "delete" else kept >= self.share * clean
        extremal = [self._extremal_area(row) for row in enough.view(-1, count).tolist()]
        values = {"area_met": masks.mean(dim=(1, 2)), "area_penalty": area_penalty(masks, areas)}
        values |= {"score_shown": kept, "score_hidden": removed}
        columns = {name: column.view(-1, count).tolist() for name, column in values.items()}
        columns |= {"areas": [list(self.areas)] * len(index), "extremal_area": extremal}
        columns["forward_passes"] = (1 + probe.forward.view(-1, count).sum(dim=1)).tolist()  # and the pass over the clean image
        columns["backward_passes"] = probe.backward.view(-1, count).sum(dim=1).tolist()
        records = [{name: column[i] for name, column in columns.items()} for i in range(len(index))]
        return self._summarise(masks.view(-1, count, *masks.shape[1:]), extremal), records

    def _probe(self, request: Request, index: Int[Tensor, " m"]) -> MaskProbe:
        """The probe of some images, each once for each area; warns if the model still recognises a baseline."""
        rows = index.repeat_interleave(len(self.areas))
        chosen = request.baseline_for(rows, self.baseline)
        probe = mask_probe(self, request, rows, chosen)
        if isinstance(chosen, Pyramid):
            settings: dict[str, Any] = {"chunk_size": self.chunk_size, "autocast": self.autocast}
            probe = PyramidProbe(self.model, probe.score, probe.images, probe.baseline, chosen, **settings)
        if request.score.function is None:
            first = torch.arange(0, len(rows), len(self.areas), device=rows.device)
            of_baseline = _probability(probe, probe.images.new_zeros(len(first), 1, 1), first)
            warn_if_recognised(self, request, index, probe.baseline[first], of_baseline)
        return probe

    def _ascend(self, probe: MaskProbe, areas: Float[Tensor, " k"], progress: Callable[[int], None]) -> Float[Tensor, "k r c"]:
        """The masks of all areas; they start at a half everywhere, where as much is kept as is removed."""
        shape = self._shape(probe.size)
        pitch = tuple((pixels - 1) / max(1, cells - 1) or 1.0 for pixels, cells in zip(probe.size, shape, strict=True))
        step = self.step * min(probe.size) / REFERENCE_SIZE
        sigma = step / math.sqrt(2) if self.sigma is None else self.sigma * min(probe.size) / REFERENCE_SIZE
        like = areas.to(torch.float64 if probe.images.dtype == torch.float64 else torch.float32)
        smooth = SmoothMasks(shape, (pitch[0], pitch[1]), step, sigma, self.temperature, like)
        numbers = like.new_full((len(areas), *smooth.grid), 0.5)
        descent = torch.optim.SGD([numbers], lr=self.learning_rate, momentum=self.momentum)
        for iteration in range(self.iterations):
            masks = smooth(numbers)
            weight = self.weight * 2 ** (3 * iteration // self.iterations)
            gradient = weight * area_gradient(masks, areas) - self._score_gradient(probe, masks)
            numbers.grad = smooth.pull(numbers, gradient)
            descent.step()
            numbers.clamp_(0, 1)
            progress(iteration + 1)
        return smooth(numbers)

    def _score_gradient(self, probe: MaskProbe, masks: Float[Tensor, "k r c"]) -> Float[Tensor, "k r c"]:
        """The gradient of F."""
        index = torch.arange(len(masks), device=masks.device)
        ones, given = masks.new_ones(len(masks)).to(probe.images), masks.to(probe.images)
        gradient = torch.zeros_like(given)
        if self.variant != "delete":
            gradient += probe.gradients(given, index, ones)
        if self.variant != "preserve":
            gradient += probe.gradients(1 - given, index, ones)
        return gradient.to(masks)

    def _extremal_area(self, enough: list[bool]) -> float | None:
        """The smallest area whose mask is enough, or None."""
        return min((area for area, met in zip(self.areas, enough, strict=True) if met), default=None)

    def _summarise(self, masks: Float[Tensor, "m a r c"], extremal: list[float | None]) -> Float[Tensor, "m r c"]:
        if self.summary == "extremal":
            chosen = [self.areas.index(max(self.areas) if area is None else area) for area in extremal]
            return masks[range(len(chosen)), chosen]
        mean = masks.mean(dim=1)
        sigma = self.smoothing * REFERENCE_SIZE
        return Blur(None, sigma)(mean.unsqueeze(1)).squeeze(1) if sigma else mean


def _probability(probe: MaskProbe, masks: Float[Tensor, "k r c"], index: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The class's probability for each mask, even if the logit is optimised; the score of a callable target."""
    score = probe.score
    probe.score = score if score.function is not None else replace(score, kind="probability")
    try:
        return probe.scores(masks.to(probe.images), index)
    finally:
        probe.score = score
