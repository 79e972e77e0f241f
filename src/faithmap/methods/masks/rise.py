r"""RISE: the mean of random masks, each weighted by the score of what it shows (Petsiuk, Das and Saenko, BMVC 2018).

.. math:: H = \frac{1}{N p} \sum_{i=1}^{N} f(x \odot M_i) \, M_i

A mask is a small grid of cells that are 1 with probability p, brought bilinearly to one cell more than the image, and shifted
by a random part of a cell. Masks are made when they are needed and forgotten; what is kept of them are sums, of which some
give the standard error of every pixel of the map.

A probability is near 0 for most masks. A logit, or a callable's score, can lie anywhere, and its level :math:`\bar f`, the
mean over the masks, says nothing about places, but multiplies the noise of :math:`\sum M_i / N`. It is taken out, and put back
whole:

.. math:: H = \bar f + \frac{1}{N p} \sum_{i=1}^{N} (f(x \odot M_i) - \bar f) \, M_i

The expectation is the same, since that of :math:`M_i` is p.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import Baseline, describe_baseline, make_baseline
from faithmap.explanation import interpolation_matrix
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request, rows_and_columns
from faithmap.model import normalised_zero
from faithmap.probe import MaskProbe


@dataclass(eq=False)
class RISE(Explainer):
    """RISE.

    Args:
        masks: N, at the most. None takes the paper's: 8,000 for a ResNet, and 4,000, its number for VGG16, for all others.
        cells: of the grid, (rows, columns), or a number for both.
        probability: p, that a cell is shown.
        baseline: what is not shown becomes this; "zero" is 0 in the model's normalised space, as in the paper.
        tolerance: stop when the standard error, the mean over the map's pixels, is below this part of the map's range, from its
            lowest to its highest pixel; None takes all masks.
        every: masks from one look at the standard error to the next.

    The rest is explained at :class:`faithmap.methods.Explainer`. Maps have the image's own resolution. Memory does not grow
    with the number of masks.
    """

    masks: int | None = None
    cells: int | tuple[int, int] = 7
    probability: float = 0.5
    baseline: Baseline = "zero"
    tolerance: float | None = None
    every: int = 256

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data."""
        return {**super().settings, "masks": self.most, "baseline": describe_baseline(self.baseline)}

    @property
    def most(self) -> int:
        """N, the default filled in."""
        if self.masks is not None:
            return self.masks
        return 8000 if any(type(module).__name__ == "ResNet" for module in self.model.modules()) else 4000

    @property
    def _grid(self) -> tuple[int, int]:
        return rows_and_columns(self.cells)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if not all(1 <= cells <= pixels for cells, pixels in zip(self._grid, size, strict=True)):
            raise ValueError(f"cells are {self._grid}; give 1 to {size[0]} rows and 1 to {size[1]} columns")
        if self.most < 1 or self.every < 2 or not 0 < self.probability < 1:
            raise ValueError("give at least 1 mask, at least 2 from look to look, and a probability between 0 and 1")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"tolerance is {self.tolerance}; give a part of the map's range above 0, or None")

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One for each mask, at the most, and the clean one."""
        del image
        return Passes(self.most + 1, 0)

    def _explain(self, request: Request) -> RawHeatmap:
        maps, diagnostics = [], []
        for i in range(len(request.images)):
            heatmap, error, taken = self._one(request, i)
            maps.append(heatmap)
            diagnostics.append({"forward_passes": taken + 1, "backward_passes": 0, "standard_error": float(error)})
        return RawHeatmap(torch.stack(maps), diagnostics)

    def _one(self, request: Request, image: int) -> tuple[Float[Tensor, "h w"], Float[Tensor, ""], int]:
        """The map of one image, its standard error, and how many masks it took."""
        masked = self._masked(request, image)
        level = None if request.score.is_class_probability else request.clean[image]
        sums = _Sums(masked.size, masked.images.device, self.probability, level)
        most = self.most
        while sums.taken < most:
            for count in _chunks(min(self.every, most - sums.taken), self.chunk_size):
                masks = self.draw(count, masked.size, request.generators[image]).to(masked.images)
                sums.add(masked.scores(masks, torch.zeros(count, dtype=torch.long, device=masks.device)), masks)
                request.progress(image * most + sums.taken, len(request.images) * most)
            heatmap, error = sums.result()
            if self.tolerance is not None and bool(error <= self.tolerance * (heatmap.max() - heatmap.min())):
                break
        return heatmap.float(), error, sums.taken

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "m h w"]:
        """Random masks, one after the other: how many are drawn at once does not matter."""
        rows, columns = self._grid
        draws = [torch.rand(rows * columns + 2, generator=generator, device=generator.device) for _ in range(count)]
        numbers = torch.stack(draws)
        grids = (numbers[:, 2:] < self.probability).float().view(count, rows, columns)
        down, across = (_shifted(*sizes, numbers[:, i]) for i, sizes in enumerate(zip(self._grid, size, strict=True)))
        return down @ grids @ across.mT

    def _masked(self, request: Request, image: int) -> MaskProbe:
        numbers = torch.tensor([image], device=request.images.device)
        shown = request.images[numbers]
        chosen = request.baseline_for(numbers, self.baseline)
        chosen = normalised_zero(self.model) if isinstance(chosen, str) and chosen == "zero" else chosen
        score = request.score.of(numbers)
        baseline = make_baseline(chosen, shown)
        return MaskProbe(self.model, score, shown, baseline, chunk_size=self.chunk_size, autocast=self.autocast)


def _chunks(count: int, size: int) -> Iterator[int]:
    return (min(size, count - start) for start in range(0, count, size))


def _shifted(cells: int, pixels: int, uniform: Float[Tensor, " m"]) -> Float[Tensor, "m p c"]:
    """How much each cell has of each pixel on one axis, the grid enlarged by a cell and begun a random part of a cell late."""
    cell = math.ceil(pixels / cells)
    large = (cells + 1) * cell
    centres = (torch.arange(cells, dtype=torch.float64) + 0.5) * large / cells - 0.5
    matrix = interpolation_matrix(centres, torch.arange(large, dtype=torch.float64)).to(uniform)
    start: Int[Tensor, " m"] = (uniform * cell).long().clamp(max=cell - 1)
    return matrix[start.unsqueeze(1) + torch.arange(pixels, device=uniform.device)]


class _Sums:
    """Sums over masks, in double precision, from which the map and its standard error follow.

    Args:
        size: of the map.
        device: of the masks.
        probability: p.
        level: near the scores' mean, so that sums hold what differs from it; None for scores that are taken as they are.
    """

    def __init__(self, size: tuple[int, int], device: torch.device, probability: float, level: Tensor | None) -> None:
        self.size, self.probability, self.level, self.taken = size, probability, level, 0
        self.weight = torch.zeros((), device=device, dtype=torch.float64)
        self.first, self.second = (self.weight.new_zeros(rows, size[0] * size[1]) for rows in (2, 3))

    def add(self, scores: Float[Tensor, " m"], masks: Float[Tensor, "m h w"]) -> None:
        """Some more masks: sums of (w, 1) M and of (w^2, w, 1) M^2, with w = f / p."""
        flat = masks.flatten(1)
        w = ((scores if self.level is None else scores - self.level) / self.probability).to(flat)
        self.weight += w.sum()
        self.taken += len(masks)
        if self.level is None:
            self.first[0] += w @ flat
            self.second[0] += w.square() @ flat.square()
            return
        self.first += torch.stack([w, torch.ones_like(w)]) @ flat
        self.second += torch.stack([w.square(), w, torch.ones_like(w)]) @ flat.square()

    def result(self) -> tuple[Float[Tensor, "h w"], Float[Tensor, ""]]:
        """The map, and its standard error, the mean over the pixels."""
        total, square, offset = self.first[0], self.second[0], self.weight.new_zeros(())
        if self.level is not None:
            mean = self.weight / self.taken
            total = total - mean * self.first[1]
            square = square - 2 * mean * self.second[1] + mean.square() * self.second[2]
            offset = mean * self.probability + self.level.double()
        variance = (square / self.taken - (total / self.taken).square()).clamp(min=0) / max(1, self.taken - 1)
        return (total / self.taken + offset).view(self.size), variance.sqrt().mean()
