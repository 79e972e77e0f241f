r"""Extremal perturbations: of all smooth masks of an area, the one that moves the score most (Fong et al., ICCV 2019).

.. math::
    m_a = argmax_m \; F(m) - \lambda R_a(m), \qquad
    F(m) = \begin{cases} f(\Phi(I, m)) & \text{preserve} \\ -f(\Phi(I, 1 - m)) & \text{delete} \\
        f(\Phi(I, m)) - f(\Phi(I, 1 - m)) & \text{dual} \end{cases}

with smooth masks from few numbers (:mod:`~faithmap.methods.masks.smooth`), the area held by their sorted cells
(:mod:`~faithmap.methods.masks.area`), and any baseline or a blur whose width the mask sets
(:mod:`~faithmap.methods.masks.pyramid`). The numbers are found by gradient ascent with momentum; :math:`\lambda` is doubled
after each third of the iterations. The extremal area is the smallest whose mask keeps enough of the score:

.. math:: a^* = \min \{ a : f(\Phi(I, m_a)) \ge \tau f(I) \}

Masks of several areas together rank the cells: the map is their mean, or the mask of the extremal area alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import REFERENCE_SIZE, Baseline, Blur, describe_baseline, make_baseline
from faithmap.masking import MaskedModel
from faithmap.methods.base import Clean, Explainer, Passes, RawHeatmap, Request, check_resolution, rows_and_columns
from faithmap.methods.masks.area import area_gradient, area_penalty
from faithmap.methods.masks.base import warn_if_recognised
from faithmap.methods.masks.pyramid import Pyramid, PyramidModel
from faithmap.methods.masks.smooth import SmoothMasks
from faithmap.score import ScoreKind, Target

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

    def _masked(self, request: Request, index: Int[Tensor, " m"]) -> MaskedModel:
        """The model, and each image once for each area; says where the baseline is still recognised."""
        rows = index.repeat_interleave(len(self.areas))
        images, chosen = request.images[rows], request.baseline_for(rows, self.baseline)
        common = (self.model, request.score.of(rows), images, make_baseline(chosen, images), self.chunk_size, self.autocast)
        masked = PyramidModel(*common, pyramid=chosen) if isinstance(chosen, Pyramid) else MaskedModel(*common)
        if request.score.function is None:
            first = torch.arange(0, len(rows), len(self.areas), device=rows.device)
            shown = self._judged(masked, images.new_zeros(len(first), 1, 1), first)
            warn_if_recognised(request, index, shown, request.kept[index])
        return masked

    def _judged(self, masked: MaskedModel, masks: Float[Tensor, "k r c"], index: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The class's probabilities, or what a callable says."""
        score = masked.score
        masked.score = score if score.function is not None else replace(score, kind="probability")
        try:
            return masked.scores(masks.to(masked.images), index)
        finally:
            masked.score = score

    def _ascend(
        self, masked: MaskedModel, areas: Float[Tensor, " k"], progress: Callable[[int], None]
    ) -> Float[Tensor, "k r c"]:
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

    def _gain(self, masked: MaskedModel, masks: Float[Tensor, "k r c"]) -> Float[Tensor, "k r c"]:
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
