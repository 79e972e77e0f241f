r"""Extremal perturbations: of all smooth masks of an area, the one that moves the score most (Fong et al., ICCV 2019).

.. math::
    m_a = argmax_m \; F(m) - \lambda R_a(m), \qquad
    F(m) = \begin{cases} f(\Phi(I, m)) & \text{preserve} \\ -f(\Phi(I, 1 - m)) & \text{delete} \\
        f(\Phi(I, m)) - f(\Phi(I, 1 - m)) & \text{dual} \end{cases}

with smooth masks from few numbers (:class:`SmoothMasks`), the area held by their sorted cells (:func:`area_penalty`), and any
baseline or a blur whose width the mask sets (:class:`Pyramid`). The numbers are found by gradient ascent with momentum;
:math:`\lambda` is doubled after each third of the iterations. The extremal area is the smallest whose mask keeps enough of the
score:

.. math:: a^* = \min \{ a : f(\Phi(I, m_a)) \ge \tau f(I) \}

Masks of several areas together rank the cells: the map is their mean, or the mask of the extremal area alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from faithmap.baselines import REFERENCE_SIZE, Baseline, Blur, describe_baseline, make_baseline
from faithmap.masking import rows_of
from faithmap.methods.base import Clean, Explainer, Passes, RawHeatmap, Request, check_resolution, rows_and_columns
from faithmap.methods.masks.base import warn_if_recognised
from faithmap.probe import MaskProbe
from faithmap.score import ScoreKind, Target

EQUAL = 1e-6
"""Cells whose values differ by no more are equal."""


def area_penalty(masks: Float[Tensor, "n r c"], areas: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """R_a of each mask.

    >>> area_penalty(torch.tensor([[[1.0, 0.0, 0.0, 0.5]]]), torch.tensor([0.5]))
    tensor([0.0625])
    """
    ordered = masks.flatten(1).sort(dim=1).values
    ranks = torch.arange(ordered.shape[1], device=masks.device)
    return (ordered - (ranks >= _zeros(masks, areas)).to(masks)).square().mean(dim=1)


def area_gradient(masks: Float[Tensor, "n r c"], areas: Float[Tensor, " n"]) -> Float[Tensor, "n r c"]:
    r"""Of each mask's own R_a, :math:`2 (m - r) / |\Omega|` with r the entry at a cell's rank.

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
    """How many entries of the template are 0."""
    cells = masks[0].numel()
    return cells - (areas * cells).round().long().clamp(min=1).unsqueeze(1)


REACH = 5.0
"""In sigmas: where a bump ends."""

_AT_ONCE = 2**23
"""Products of a cell and a number near it that are in memory together."""


class SmoothMasks:
    """Turns grids of numbers into smooth masks.

    Args:
        shape: (rows, columns) of the masks.
        pitch: pixels from one cell to the next, down and across.
        step: pixels from one number to the next, rounded to whole cells.
        sigma: of the bump, in pixels.
        temperature: T; with 0 the maximum would be hard, with infinity a mean.
    """

    def __init__(
        self, shape: tuple[int, int], pitch: tuple[float, float], step: float, sigma: float, temperature: float, like: Tensor
    ) -> None:
        self.shape, self.temperature = shape, temperature
        self.steps = tuple(max(1, round(step / cell)) for cell in pitch)
        self.grid = tuple(math.ceil(cells / every) for cells, every in zip(shape, self.steps, strict=True))
        # A number stands in the middle of its block of cells, and one that is `reach` blocks away is too far from all of them.
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
        """The masks, in [0, 1] as the numbers are."""
        return torch.cat([self._masks(part) for part in numbers.split(self._together)])

    def pull(self, numbers: Float[Tensor, "n i j"], slope: Float[Tensor, "n r c"]) -> Float[Tensor, "n i j"]:
        """The gradient to the numbers, from the gradient to their masks; a few masks at a time."""
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
    """On one axis, from the middle of each block in reach to each cell of a block, in pixels."""
    cells = (torch.arange(every, dtype=torch.float64) - (every - 1) / 2) * cell
    blocks = torch.arange(-reach, reach + 1, dtype=torch.float64) * every * cell
    return cells - blocks.unsqueeze(1)


@dataclass(frozen=True)
class Pyramid:
    """A blur pyramid; as a plain baseline it is its widest blur.

    Args:
        sigma: of the widest, in pixels at 224.
        levels: L.
    """

    sigma: float = 20.0
    levels: int = 8

    def __post_init__(self) -> None:
        if not self.sigma > 0 or self.levels < 1:
            raise ValueError(f"the pyramid has sigma {self.sigma} and {self.levels} levels; give a sigma above 0, and a level")

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images, blurred as widely as it goes."""
        return Blur(None, self.sigma)(images)

    def blurred(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n l c h w"]:
        """The images from the widest blur to none."""
        sigmas = [self.sigma * level / self.levels for level in range(self.levels, 0, -1)]
        return torch.stack([*(Blur(None, sigma)(images) for sigma in sigmas), images], dim=1)


@dataclass
class PyramidModel(MaskProbe):
    """Asks a model about images that are blurred as much as masks say.

    Attributes:
        pyramid: whose widest blur is the baseline.
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
        """The levels on either side of each pixel's, and how far it is from the wider to the narrower."""
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

    Args:
        areas: a, of the masks, as shares of the image.
        variant: what a mask is to do: keep the score by what it shows, take it away by what it hides, or both.
        summary: the map: the mean of the masks, or the mask of the extremal area (of the largest, where none keeps enough).
        smoothing: std of a Gaussian that the mean is blurred with, as a part of the shorter side; 0 for none.
        share: :math:`\tau`, of the clean score; of the class's probability, whatever is optimised. For "delete" a mask is
            enough when no more than :math:`1 - \tau` is left without it.
        resolution: cells of the masks, (rows, columns) or a number for both; None for a cell every two pixels.
        step: from one number of the grid to the next, in pixels at 224.
        sigma: of the bumps that masks are made of, in pixels at 224; None for the step over the root of 2, with which the
            tops of a full grid's bumps just close.
        temperature: T of the smooth maximum.
        weight: lambda, at first.
        iterations: all of them are done.
        learning_rate: of the ascent.
        momentum: likewise.
        baseline: what a hidden pixel becomes; a :class:`Pyramid`, as in the paper, blurs it as much as it is hidden.
        score: what is optimised. Not the probability: its slope is gone where the model is sure.

    The rest is explained at :class:`faithmap.methods.Explainer`. An image takes a forward and a backward pass an iteration for
    each area, two of each where the variant is dual. Nothing is random.
    """

    areas: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2)
    variant: Variant = "preserve"
    summary: Literal["mean", "extremal"] = "mean"
    smoothing: float = 0.09
    share: float = 0.5
    resolution: int | tuple[int, int] | None = None
    step: float = 8.0
    sigma: float | None = None
    temperature: float = 0.05
    weight: float = 300.0
    iterations: int = 800
    learning_rate: float = 0.01
    momentum: float = 0.9
    baseline: Baseline = "blur"
    score: ScoreKind = "logit"

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data."""
        return {**super().settings, "baseline": describe_baseline(self.baseline)}

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One of each kind an iteration for each area; the masks, and what they hide, are judged at the end."""
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
        if not self.areas or not all(0 < area < 1 for area in self.areas):
            raise ValueError(f"areas are {self.areas}; give shares of the image between 0 and 1")
        for name, choices in (("variant", ("preserve", "delete", "dual")), ("summary", ("mean", "extremal"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(choices)}")
        check_resolution(self.resolution, self._shape(size), size)
        if self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}; give at least 1")
        for name in ("step", "sigma", "temperature", "weight", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; give a number above 0")
        if not (0 <= self.momentum < 1 and 0 < self.share <= 1 and self.smoothing >= 0):
            raise ValueError("give a momentum of at least 0 and below 1, a share up to 1, and a smoothing of at least 0")

    def _explain(self, request: Request) -> RawHeatmap:
        maps, diagnostics = [], []
        everything = torch.arange(len(request.images), device=request.images.device)
        for images in everything.split(self.chunk_size):
            heatmap, found = self._some(request, images)
            maps.append(heatmap)
            diagnostics += found
        return RawHeatmap(torch.cat(maps), diagnostics)

    def _clean(self, images: Float[Tensor, "n c h w"], target: Target) -> Clean:
        """Of a class, its probability is kept: whether a mask is enough is judged by that."""
        logits, score, clean, _ = super()._clean(images, target)
        if logits is None or score.classes is None:
            return logits, score, clean, clean
        everyone = torch.arange(len(images), device=images.device)
        return logits, score, clean, replace(score, kind="probability")(logits, everyone)

    def _some(self, request: Request, index: Int[Tensor, " m"]) -> tuple[Float[Tensor, "m r c"], list[dict[str, Any]]]:
        """The maps of some images, the masks of all areas of all of them optimised together."""
        every = len(self.areas)
        masked = self._masked(request, index)
        areas = torch.tensor(self.areas, device=index.device, dtype=torch.float64).repeat(len(index))

        def progress(done: int) -> None:
            request.progress(self.iterations * int(index[0]) + done * len(index), self.iterations * len(request.images))

        masks = self._ascend(masked, areas, progress)
        everyone = torch.arange(len(masks), device=index.device)
        shown, hidden = self._judged(masked, masks, everyone), self._judged(masked, 1 - masks, everyone)
        clean = request.kept[index].repeat_interleave(every)
        enough = hidden <= (1 - self.share) * clean if self.variant == "delete" else shown >= self.share * clean
        extremal = [self._smallest(row) for row in enough.view(-1, every).tolist()]
        found = {"area_met": masks.mean(dim=(1, 2)), "area_penalty": area_penalty(masks, areas)}
        found |= {"score_shown": shown, "score_hidden": hidden}
        columns = {name: values.view(-1, every).tolist() for name, values in found.items()}
        columns |= {"areas": [list(self.areas)] * len(index), "extremal_area": extremal}
        columns |= {
            f"{name}_passes": getattr(masked, name).view(-1, every).sum(dim=1).tolist() for name in ("forward", "backward")
        }
        diagnostics = [{name: column[i] for name, column in columns.items()} for i in range(len(index))]
        return self._summary(masks.view(-1, every, *masks.shape[1:]), extremal), diagnostics

    def _masked(self, request: Request, index: Int[Tensor, " m"]) -> MaskProbe:
        """The model, and each image once for each area; says where the baseline is still recognised."""
        rows = index.repeat_interleave(len(self.areas))
        images, chosen = request.images[rows], request.baseline_for(rows, self.baseline)
        common = (self.model, request.score.of(rows), images, make_baseline(chosen, images))
        settings: dict[str, Any] = {"chunk_size": self.chunk_size, "autocast": self.autocast}
        masked = PyramidModel(*common, chosen, **settings) if isinstance(chosen, Pyramid) else MaskProbe(*common, **settings)
        if request.score.function is None:
            first = torch.arange(0, len(rows), len(self.areas), device=rows.device)
            shown = self._judged(masked, images.new_zeros(len(first), 1, 1), first)
            warn_if_recognised(request, index, shown, request.kept[index])
        return masked

    def _judged(self, masked: MaskProbe, masks: Float[Tensor, "k r c"], index: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The class's probabilities, or what a callable says."""
        score = masked.score
        masked.score = score if score.function is not None else replace(score, kind="probability")
        try:
            return masked.scores(masks.to(masked.images), index)
        finally:
            masked.score = score

    def _ascend(self, masked: MaskProbe, areas: Float[Tensor, " k"], progress: Callable[[int], None]) -> Float[Tensor, "k r c"]:
        """The masks, begun at a half everywhere: as much is shown as is hidden."""
        shape = self._shape(masked.size)
        pitch = tuple((pixels - 1) / max(1, cells - 1) for pixels, cells in zip(masked.size, shape, strict=True))
        step = self.step * min(masked.size) / REFERENCE_SIZE
        sigma = step / math.sqrt(2) if self.sigma is None else self.sigma * min(masked.size) / REFERENCE_SIZE
        like = areas.to(torch.float64 if masked.images.dtype == torch.float64 else torch.float32)
        smooth = SmoothMasks(shape, (pitch[0], pitch[1]), step, sigma, self.temperature, like)
        numbers = like.new_full((len(areas), *smooth.grid), 0.5)
        descent = torch.optim.SGD([numbers], lr=self.learning_rate, momentum=self.momentum)
        for iteration in range(self.iterations):
            masks = smooth(numbers)
            weight = self.weight * 2 ** (3 * iteration // self.iterations)
            slope = weight * area_gradient(masks, areas) - self._gain(masked, masks)
            numbers.grad = smooth.pull(numbers, slope)
            descent.step()
            numbers.clamp_(0, 1)
            progress(iteration + 1)
        return smooth(numbers)

    def _gain(self, masked: MaskProbe, masks: Float[Tensor, "k r c"]) -> Float[Tensor, "k r c"]:
        """The gradient of F."""
        everyone = torch.arange(len(masks), device=masks.device)
        whole, given = masks.new_ones(len(masks)).to(masked.images), masks.to(masked.images)
        gain = torch.zeros_like(given)
        if self.variant != "delete":
            gain += masked.gradients(given, everyone, whole)
        if self.variant != "preserve":
            gain += masked.gradients(1 - given, everyone, whole)
        return gain.to(masks)

    def _smallest(self, enough: list[bool]) -> float | None:
        """The extremal area, or None."""
        return min((area for area, met in zip(self.areas, enough, strict=True) if met), default=None)

    def _summary(self, masks: Float[Tensor, "m a r c"], extremal: list[float | None]) -> Float[Tensor, "m r c"]:
        if self.summary == "extremal":
            chosen = [self.areas.index(max(self.areas) if area is None else area) for area in extremal]
            return masks[range(len(chosen)), chosen]
        mean = masks.mean(dim=1)
        sigma = self.smoothing * REFERENCE_SIZE
        return Blur(None, sigma)(mean.unsqueeze(1)).squeeze(1) if sigma else mean
