r"""RISE: the mean of random masks, each weighted by the score of what it shows (Petsiuk, Das and Saenko, BMVC 2018).

.. math:: H = \frac{1}{N p} \sum_{i=1}^{N} f(x \odot M_i) \, M_i

A mask is a small grid of cells that are 1 with probability p, brought bilinearly to one cell more than the image, and shifted
by a random part of a cell. Masks are made when they are needed and forgotten; what is kept of them are two sums, of which the
second gives the standard error of every pixel of the map.
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
from faithmap.masking import MaskedModel
from faithmap.methods.base import Answer, Explainer, Question
from faithmap.model import normalised_zero


@dataclass(eq=False)
class RISE(Explainer):
    """RISE.

    Args:
        masks: N, at the most. The paper takes 4,000 for VGG16, and 8,000 for ResNet50.
        cells: of the grid, (rows, columns), or a number for both.
        probability: p, that a cell is shown.
        baseline: what is not shown becomes this; "zero" is 0 in the model's normalised space, as in the paper.
        tolerance: stop when the standard error, the mean over the map's pixels, is below this part of the map's range, from its
            lowest to its highest pixel; None takes all masks.
        every: masks from one look at the standard error to the next.

    The rest is explained at :class:`faithmap.methods.Explainer`. Maps have the image's own resolution. Memory does not grow
    with the number of masks.
    """

    masks: int = 4000
    cells: int | tuple[int, int] = 7
    probability: float = 0.5
    baseline: Baseline = "zero"
    tolerance: float | None = None
    every: int = 256

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data."""
        return {**super().settings, "baseline": describe_baseline(self.baseline)}

    @property
    def _grid(self) -> tuple[int, int]:
        return (self.cells, self.cells) if isinstance(self.cells, int) else self.cells

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if not all(1 <= cells <= pixels for cells, pixels in zip(self._grid, size, strict=True)):
            raise ValueError(f"cells are {self._grid}; give 1 to {size[0]} rows and 1 to {size[1]} columns")
        if self.masks < 1 or self.every < 2 or not 0 < self.probability < 1:
            raise ValueError("give at least 1 mask, at least 2 from look to look, and a probability between 0 and 1")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"tolerance is {self.tolerance}; give a part of the map's range above 0, or None")

    def _explain(self, question: Question) -> Answer:
        maps, diagnostics = [], []
        for i in range(len(question.images)):
            heatmap, error, taken = self._one(question, i)
            maps.append(heatmap)
            diagnostics.append({"forward_passes": taken + 1, "backward_passes": 0, "standard_error": float(error)})
        return Answer(torch.stack(maps), diagnostics)

    def _one(self, question: Question, image: int) -> tuple[Float[Tensor, "h w"], Float[Tensor, ""], int]:
        """The map of one image, its standard error, and how many masks it took."""
        masked = self._masked(question, image)
        total, square = (torch.zeros(masked.size, device=masked.images.device, dtype=torch.float64) for _ in range(2))
        taken = 0
        while taken < self.masks:
            for count in _chunks(min(self.every, self.masks - taken), self.chunk_size):
                masks = self.draw(count, masked.size, question.generators[image]).to(masked.images)
                weights = masked.scores(masks, torch.zeros(count, dtype=torch.long, device=masks.device)) / self.probability
                flat = masks.flatten(1)
                total += (weights.to(flat) @ flat).view(masked.size)
                square += (weights.to(flat).square() @ flat.square()).view(masked.size)
                taken += count
                question.progress(image * self.masks + taken, len(question.images) * self.masks)
            if self.tolerance is not None and bool(_error(total, square, taken) <= self.tolerance * _range(total / taken)):
                break
        return (total / taken).float(), _error(total, square, taken), taken

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "m h w"]:
        """Random masks, one after the other: how many are drawn at once does not matter."""
        rows, columns = self._grid
        draws = [torch.rand(rows * columns + 2, generator=generator, device=generator.device) for _ in range(count)]
        numbers = torch.stack(draws)
        grids = (numbers[:, 2:] < self.probability).float().view(count, rows, columns)
        down, across = (_shifted(*sizes, numbers[:, i]) for i, sizes in enumerate(zip(self._grid, size, strict=True)))
        return down @ grids @ across.mT

    def _masked(self, question: Question, image: int) -> MaskedModel:
        numbers = torch.tensor([image], device=question.images.device)
        shown = question.images[numbers]
        chosen = question.baseline_for(numbers, self.baseline)
        chosen = normalised_zero(self.model) if isinstance(chosen, str) and chosen == "zero" else chosen
        score = question.score.of(numbers)
        return MaskedModel(self.model, score, shown, make_baseline(chosen, shown), self.chunk_size, self.autocast)


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


def _error(total: Float[Tensor, "h w"], square: Float[Tensor, "h w"], taken: int) -> Float[Tensor, ""]:
    """The standard error of the mean of so many terms, from the sums of them and of their squares; the mean over the pixels."""
    variance = (square / taken - (total / taken).square()).clamp(min=0) / max(1, taken - 1)
    return variance.sqrt().mean()


def _range(heatmap: Float[Tensor, "h w"]) -> Float[Tensor, ""]:
    return heatmap.max() - heatmap.min()
