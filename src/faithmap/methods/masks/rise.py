r"""RISE: the mean of random masks, each weighted by the score of the image that it keeps (Petsiuk, Das and Saenko, BMVC 2018).

.. math:: H = \frac{1}{N p} \sum_{i=1}^{N} f(x \odot M_i) \, M_i

A mask is a small grid of cells that are 1 with probability p, resized bilinearly to one cell more than the image, and shifted
by a random part of a cell. Masks are made when they are needed and not stored: sums over the masks give the map and the
standard error of each of its pixels.

A probability is near 0 for most masks. A logit, or a callable's score, can have any level :math:`\bar f`, the mean over the
masks. The level says nothing about positions, but multiplies the noise of :math:`\sum M_i / N`. It is subtracted, and added
to the map:

.. math:: H = \bar f + \frac{1}{N p} \sum_{i=1}^{N} (f(x \odot M_i) - \bar f) \, M_i

The expectation is the same, since that of :math:`M_i` is p.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.baselines import Baseline, describe_baseline
from faithmap.explanation import interpolation_matrix
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request, rows_and_columns, warn_if_recognised
from faithmap.methods.masks.base import mask_probe
from faithmap.methods.settings import AlsoNamed
from faithmap.seeds import uniform


@dataclass(eq=False)
class RISE(Explainer):
    """RISE. Maps have the image's own resolution; memory does not grow with the number of masks.

    Args:
        masks: N, at most; at least 1. None for the paper's numbers: 8,000 for a ResNet, and 4,000, as for VGG16, for all other
            models.
        cells: of the grid, (rows, columns), or one number for both, from 1 to the image's size.
        probability: p, that a cell keeps the image; between 0 and 1.
        baseline: what a removed pixel becomes, where the call gives none: "zero", which is 0 in the model's normalised space,
            as in the paper; a name of :data:`faithmap.BASELINES`, a pixel value, a tensor or a callable.
        tolerance: stop when the standard error, the mean over the map's pixels, is at most this share of the map's range, from
            its lowest to its highest pixel; above 0. None for no early stop.
        every: masks between two checks of the standard error, at least 2.

    >>> class Left(torch.nn.Module):
    ...     def forward(self, images):
    ...         brightness = images[..., :4].mean(dim=(1, 2, 3))
    ...         return torch.stack([12 * brightness - 6, 6 - 12 * brightness], dim=1)
    >>> heatmap = RISE(Left(), masks=200, baseline="black")(torch.ones(1, 3, 8, 8), 0).heatmap
    >>> bool(heatmap[..., :4].mean() > heatmap[..., 4:].mean())
    True
    """

    title: ClassVar[str] = "RISE"
    reads_removals: ClassVar[bool] = True
    masks: Annotated[Annotated[int, Ge(1)] | None, AlsoNamed("samples")] = None
    cells: int | tuple[int, int] = 7
    probability: Annotated[float, Gt(0), Lt(1)] = 0.5
    baseline: Baseline = "zero"
    tolerance: Annotated[float, Gt(0)] | None = None
    every: Annotated[int, Ge(2)] = 256

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data, with the number of masks in force."""
        return {**super().settings, "masks": self.most, "baseline": describe_baseline(self.baseline)}

    @property
    def most(self) -> int:
        """N, with the default where none is given."""
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

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One for each mask, at most, and one for the clean image."""
        del image
        return Passes(self.most + 1, 0)

    def _explain(self, request: Request) -> RawHeatmap:
        maps, diagnostics = [], []
        for i in range(len(request.images)):
            heatmap, error, count = self._explain_one(request, i)
            maps.append(heatmap)
            diagnostics.append({"forward_passes": count + 1, "backward_passes": 0, "standard_error": float(error)})
        return RawHeatmap(torch.stack(maps), diagnostics)

    def _explain_one(self, request: Request, image: int) -> tuple[Float[Tensor, "h w"], Float[Tensor, ""], int]:
        """The map of one image, its standard error, and the number of masks."""
        row = torch.tensor([image], device=request.images.device)
        chosen = request.baseline_for(row, self.baseline)
        probe = mask_probe(self, request, row, chosen)
        warn_if_recognised(self, request, row, probe.baseline)
        level = None if request.score.is_class_probability else request.clean[image]
        sums = _Sums(probe.size, probe.images.device, self.probability, level)
        most = self.most
        while sums.count < most:
            for count in _chunks(min(self.every, most - sums.count), self.chunk_size):
                masks = self.draw(count, probe.size, request.generators[image]).to(probe.images)
                sums.add(probe.scores(masks, torch.zeros(count, dtype=torch.long, device=masks.device)), masks)
                request.progress(image * most + sums.count, len(request.images) * most)
            heatmap, error = sums.result()
            if self.tolerance is not None and bool(error <= self.tolerance * (heatmap.max() - heatmap.min())):
                break
        return heatmap.float(), error, sums.count

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "m h w"]:
        """Random masks, drawn one after the other: the first ones do not depend on ``count``.

        Args:
            count: number of masks.
            size: (height, width) of the masks, in pixels.
            generator: source of the random numbers.
        """
        rows, columns = self._grid
        draws = [uniform((rows * columns + 2,), generator) for _ in range(count)]
        numbers = torch.stack(draws)
        grids = (numbers[:, 2:] < self.probability).float().view(count, rows, columns)
        down, across = (_shifted(*sizes, numbers[:, i]) for i, sizes in enumerate(zip(self._grid, size, strict=True)))
        return down @ grids @ across.mT


def _chunks(count: int, size: int) -> Iterator[int]:
    return (min(size, count - start) for start in range(0, count, size))


def _shifted(cells: int, pixels: int, uniform: Float[Tensor, " m"]) -> Float[Tensor, "m p c"]:
    """The weight of each cell in each pixel on one axis, with the enlarged grid shifted by a random part of a cell."""
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
        level: a number near the mean score, which is subtracted before summing; None for 0.
    """

    def __init__(self, size: tuple[int, int], device: torch.device, probability: float, level: Tensor | None) -> None:
        self.size, self.probability, self.level, self.count = size, probability, level, 0
        self.weight = torch.zeros((), device=device, dtype=torch.float64)
        self.first, self.second = (self.weight.new_zeros(rows, size[0] * size[1]) for rows in (2, 3))

    def add(self, scores: Float[Tensor, " m"], masks: Float[Tensor, "m h w"]) -> None:
        """Add masks to the sums of (w, 1) M and of (w^2, w, 1) M^2, with w = f / p."""
        flat = masks.flatten(1)
        w = ((scores if self.level is None else scores - self.level) / self.probability).to(flat)
        self.weight += w.sum()
        self.count += len(masks)
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
            mean = self.weight / self.count
            total = total - mean * self.first[1]
            square = square - 2 * mean * self.second[1] + mean.square() * self.second[2]
            offset = mean * self.probability + self.level.double()
        variance = (square / self.count - (total / self.count).square()).clamp(min=0) / max(1, self.count - 1)
        return (total / self.count + offset).view(self.size), variance.sqrt().mean()
