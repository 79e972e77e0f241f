r"""Explanation: a heatmap at its native resolution, the positions of its cells on the image, and what it explains.

A cell of a heatmap stands for one point of the image, the cell's centre. The heatmap is linear between centres along each axis,
and constant beyond the outermost centres:

.. math:: H(y, x) = \sum_{ij} R_{yi} h_{ij} C_{xj}

with :math:`R` and :math:`C` the one-dimensional interpolation matrices of the rows' and the columns' centres. Masks are
upsampled with aligned corners: the first centre is the first pixel, the last centre the last pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.score import ScoreFunction, Target, at_least_single, function_of


@dataclass(frozen=True, eq=False)
class Explanation:
    """Heatmaps of n images, with the target, the score and the diagnostics of each.

    >>> explanation = Explanation(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]), image_size=(5, 5))
    >>> len(explanation), explanation.resolution, tuple(explanation.at().shape)
    (1, (2, 2), (1, 5, 5))

    Attributes:
        heatmap: importance of each cell, in the units of the score; raw values, neither clipped nor scaled. Whole numbers,
            truth values and half precision become single precision, so that the map can be resampled.
        image_size: (height, width) of the explained images.
        target: the explained class of each image; None if the target is a callable.
        score: the explained score of each clean image.
        rows: centre of each row of cells, in pixels (0 is the centre of the first pixel); None aligns the corners.
        columns: centre of each column of cells, in pixels; None aligns the corners.
        method: name of the explainer's class.
        settings: settings of the explainer, as plain data.
        diagnostics: one dict of plain data for each image.
        function: the callable target, which metrics then use as their default target; None if the target is a class.
        title: name of the method for figures; by default that of the class.
        optimises: kinds of removal whose scores decided the map, such as "blur"; a measure that removes in the same way is no
            evidence for it.

    Raises:
        ValueError: if the heatmap has another number of dimensions than three.
    """

    heatmap: Float[Tensor, "n r c"]
    image_size: tuple[int, int]
    target: Int[Tensor, " n"] | None = None
    score: Float[Tensor, " n"] | None = None
    rows: Float[Tensor, " r"] | None = None
    columns: Float[Tensor, " c"] | None = None
    method: str = "array"
    settings: Mapping[str, Any] = field(default_factory=dict)
    diagnostics: Sequence[Mapping[str, Any]] = ()
    function: ScoreFunction | None = None
    title: str = ""
    optimises: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.heatmap.ndim != 3:
            raise ValueError(f"heatmap has shape {tuple(self.heatmap.shape)}, expected (images, rows, columns)")
        object.__setattr__(self, "heatmap", at_least_single(self.heatmap))
        if not self.title:
            object.__setattr__(self, "title", "given map" if self.method == "array" else self.method)

    @classmethod
    def from_array(cls, heatmap: Any, image_size: tuple[int, int], *, target: Any = None, method: str = "array") -> Explanation:
        """An Explanation of heatmaps that another library made, with aligned corners.

        Args:
            heatmap: (n, r, c) or (r, c), of any array type.
            image_size: (height, width) of the explained images.
            target: the explained class, one for all images or one for each; None if unknown.
            method: name of the explainer, for captions.

        >>> Explanation.from_array([[0.0, 1.0], [2.0, 3.0]], (5, 5)).at()[0, 2]
        tensor([1.0000, 1.2500, 1.5000, 1.7500, 2.0000])
        """
        values = torch.as_tensor(heatmap)
        values = values.unsqueeze(0) if values.ndim == 2 else values
        classes = None if target is None else torch.as_tensor(target, device=values.device).expand(len(values))
        return cls(values, image_size, target=classes, method=method)

    @property
    def resolution(self) -> tuple[int, int]:
        """(rows, columns) of the native heatmap."""
        return self.heatmap.shape[-2], self.heatmap.shape[-1]

    def at(self, size: tuple[int, int] | None = None) -> Float[Tensor, "n h w"]:
        """The heatmap resampled to another grid over the image, by the positions of its cells.

        Args:
            size: (rows, columns) of the new grid; None for one value per pixel. The corners of a coarser grid are aligned with
                the corners of the image, as those of a mask are.
        """
        axes = zip(self.centres, size or self.image_size, self.image_size, strict=True)
        points = ((centres, _spread(count, length, centres.device)) for centres, count, length in axes)
        rows, columns = (interpolation_matrix(centres, at).to(self.heatmap.dtype) for centres, at in points)
        return rows @ self.heatmap @ columns.mT

    @property
    def explained(self) -> Target:
        """The target of the explanation: classes or a callable; None if unknown."""
        return self.function if self.target is None else self.target

    @property
    def centres(self) -> tuple[Float[Tensor, " r"], Float[Tensor, " c"]]:
        """Centres of the rows and of the columns of cells, in pixels, in double precision, on the heatmap's device."""
        rows, columns = (
            _spread(cells, length, self.heatmap.device) if given is None else given.to(self.heatmap.device, torch.float64)
            for given, cells, length in zip((self.rows, self.columns), self.resolution, self.image_size, strict=True)
        )
        return rows, columns

    @property
    def cells(self) -> Float[Tensor, "n r c"]:
        """The heatmap resampled to the cells of a mask of the same resolution.

        This is the heatmap itself if its corners are aligned with those of the image.
        """
        return self.heatmap if self.rows is None and self.columns is None else self.at(self.resolution)

    def __len__(self) -> int:
        return len(self.heatmap)

    def __getitem__(self, image: int) -> Explanation:
        """The explanation of one image, still with a leading dimension of 1."""
        if not -len(self) <= image < len(self):
            raise IndexError(f"image {image} of {len(self)}")
        one = slice(image, None if image == -1 else image + 1)
        return Explanation(
            self.heatmap[one],
            self.image_size,
            target=None if self.target is None else self.target[one],
            score=None if self.score is None else self.score[one],
            rows=self.rows,
            columns=self.columns,
            method=self.method,
            settings=self.settings,
            diagnostics=self.diagnostics[one],
            title=self.title,
            optimises=self.optimises,
            function=function_of(self.function, torch.arange(len(self), device=self.heatmap.device)[one]),
        )

    def __iter__(self) -> Iterator[Explanation]:
        return (self[i] for i in range(len(self)))


def _spread(points: int, length: int, device: torch.device) -> Float[Tensor, " p"]:
    """Evenly spaced points from the first pixel to the last; a single point lies in the middle."""
    first = 0.0 if points > 1 else (length - 1) / 2
    return torch.linspace(first, length - 1 - first, points, device=device, dtype=torch.float64)


def interpolation_matrix(centres: Float[Tensor, " r"], at: Float[Tensor, " p"]) -> Float[Tensor, "p r"]:
    """Weight of each cell at each point: linear between neighbouring centres, constant beyond the outermost.

    Args:
        centres: of the cells along one axis, in pixels, ascending.
        at: the points to interpolate at, in pixels.

    >>> interpolation_matrix(torch.tensor([0.0, 2.0]), torch.tensor([-1.0, 0.5, 2.0]))
    tensor([[1.0000, 0.0000],
            [0.7500, 0.2500],
            [0.0000, 1.0000]])
    """
    if len(centres) == 1:
        return torch.ones(len(at), 1, device=at.device, dtype=at.dtype)
    right = torch.searchsorted(centres, at.contiguous()).clamp(1, len(centres) - 1)
    left = right - 1
    share = ((at - centres[left]) / (centres[right] - centres[left])).clamp(0, 1)
    matrix = torch.zeros(len(at), len(centres), device=at.device, dtype=at.dtype)
    matrix.scatter_(1, left.unsqueeze(1), (1 - share).unsqueeze(1))
    return matrix.scatter_(1, right.unsqueeze(1), share.unsqueeze(1))


def cell_ranks(heatmap: Float[Tensor, "n r c"]) -> Int[Tensor, "n r c"]:
    """Rank of each cell in its heatmap, 0 for the highest; equal cells are ranked in reading order.

    >>> cell_ranks(torch.tensor([[[1.0, 3.0], [3.0, 2.0]]]))
    tensor([[[3, 0],
             [1, 2]]])
    """
    order = heatmap.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(heatmap.shape)
