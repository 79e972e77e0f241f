r"""Grid pointing game: does the map of a class lie on the cell of the mosaic that shows the class?

Confident images of different classes become the cells of a mosaic (Böhle, Fritz and Schiele 2021, "Convolutional Dynamic
Alignment Networks for Interpretable Classifications"; Rao, Böhle and Schiele 2022). Each class is explained on the whole
mosaic. With :math:`h` the heatmap and :math:`G` the cell of the class, the paper's score is the share of the positive map

.. math:: L = \sum_{p \in G} h_p^+ / \sum_p h_p^+

A constant map scores one over the number of cells. Here every image is resized to its cell, so that the mosaic has
the size that the model takes; the paper's mosaics are larger than the images, which suits only fully convolutional networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.metrics.known_truth.overlap import Heatmaps, interval_overlaps, placed, with_areas
from faithmap.probe import class_probabilities


@dataclass(frozen=True, eq=False)
class GridMosaics:
    """Mosaics of images of different classes; cells are numbered in reading order.

    >>> classes, sources = torch.tensor([[5, 2, 7, 1]]), torch.tensor([[0, 1, 2, 3]])
    >>> mosaics = GridMosaics(torch.zeros(1, 3, 8, 8), classes, sources, torch.full((1, 4), 0.25), grid=2)
    >>> len(mosaics), mosaics.grid
    (1, 2)

    Attributes:
        images: the mosaics.
        classes: the class that is explained for each cell.
        sources: index of the image in each cell.
        probabilities: of each cell's class, which the model gives for the mosaic.
        grid: cells per side.
    """

    images: Float[Tensor, "m c h w"]
    classes: Int[Tensor, "m k"]
    sources: Int[Tensor, "m k"]
    probabilities: Float[Tensor, "m k"]
    grid: int

    def __len__(self) -> int:
        return len(self.images)


def grid_mosaics(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    *,
    grid: int = 2,
    least_probability: float = 0.9,
    count: int | None = None,
    chunk_size: int = 32,
) -> GridMosaics:
    """Mosaics of the images that the model is confident of, without random numbers.

    The images are used in the order of their probability, each at most once. A mosaic takes the next images of classes that it
    does not have. The cells of mosaic i are rotated by i places, so that no cell always has the most confident image.

    >>> images = torch.eye(4).view(4, 4, 1, 1).expand(4, 4, 6, 6)
    >>> model = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    >>> model[2].weight.data = 20 * torch.eye(4)
    >>> mosaics = grid_mosaics(model, images)
    >>> mosaics.classes, tuple(mosaics.images.shape)
    (tensor([[0, 1, 2, 3]]), (1, 4, 6, 6))

    Args:
        model: a classifier.
        images: as the model takes them, all of one size.
        grid: cells per side, at least 2.
        least_probability: of the predicted class of an image that is used.
        count: maximum number of mosaics; None for all that the images suffice for.
        chunk_size: maximum number of images in one pass.

    Raises:
        ValueError: for a grid that is below 2 or finer than the pixels, or too few confident images of different classes.
    """
    if not 2 <= grid <= min(images.shape[-2:]):
        raise ValueError(f"grid is {grid}; give 2 cells per side or more, and at most one per pixel")
    best, classes = class_probabilities(model, images, chunk_size).max(dim=1)
    confident = [i for i in best.argsort(descending=True, stable=True).tolist() if bool(best[i] >= least_probability)]
    sources = _sources(confident, classes.tolist(), grid * grid)[:count]
    if not sources:
        found = len({int(classes[i]) for i in confident})
        raise ValueError(
            f"the model predicts {found} different classes with a probability of {least_probability} or more; a mosaic of "
            f"{grid} x {grid} needs {grid * grid}: give more images, or a lower least_probability"
        )
    index = torch.tensor(sources, device=images.device)
    size = (images.shape[-2], images.shape[-1])
    mosaics = torch.cat([compose_grid([images[i : i + 1] for i in mosaic], size) for mosaic in sources])
    in_mosaic = class_probabilities(model, mosaics, chunk_size).gather(1, classes[index])
    return GridMosaics(mosaics, classes[index], index, in_mosaic, grid)


class GridPointing(NamedTuple):
    """Result of :func:`grid_pointing_game`: one value per heatmap, in [0, 1], high if the map lies on the right cell.

    >>> GridPointing(torch.tensor([0.9]), torch.tensor([1.0]), torch.tensor([1.0])).mass
    tensor([0.9000])

    Attributes:
        mass: share of the positive map in the right cell, the paper's score.
        top: share of the highest tenth of the map in it.
        peak: whether the highest value is in it; a fraction if that lies on the border, or several are equal.
    """

    mass: Float[Tensor, " n"]
    top: Float[Tensor, " n"]
    peak: Float[Tensor, " n"]


def grid_pointing_game(
    heatmaps: Heatmaps,
    positions: int | Sequence[int] | Int[Tensor, " n"],
    *,
    grid: int = 2,
    fraction: float = 0.1,
    image_size: tuple[int, int] | None = None,
) -> GridPointing:
    """How much of each map lies in the cell of the explained class.

    Maps can have any resolution: what counts is the area of their cells in the cell of the mosaic.

    >>> found = grid_pointing_game(torch.tensor([[[6.0, 1.0], [1.0, -2.0]]]), 0)
    >>> found.mass, found.top, found.peak
    (tensor([0.7500]), tensor([1.]), tensor([1.]))
    >>> grid_pointing_game(torch.ones(1, 7, 7), 3).mass
    tensor([0.2500])

    Args:
        heatmaps: of mosaics. An Explanation, or a tensor whose corners are those of the mosaic.
        positions: number of the right cell in reading order, from 0; one for all maps or one for each.
        grid: cells of the mosaic per side.
        fraction: of the area that counts as the top of a map.
        image_size: (height, width) of the mosaics, for a tensor; None if each cell of the map is one pixel.

    Raises:
        ValueError: for a position that the grid does not have, another number of them than maps, or maps that are not finite.
    """
    explanation = placed(heatmaps, image_size)
    places = torch.as_tensor(positions, device=explanation.heatmap.device)
    places = places.expand(len(explanation)) if places.ndim == 0 else places
    if grid < 1 or places.shape != (len(explanation),) or places.is_floating_point():
        raise ValueError(
            f"positions have shape {tuple(places.shape)} for {len(explanation)} heatmaps; give one number for each"
        )
    if bool(((places < 0) | (places >= grid * grid)).any()):
        raise ValueError(f"positions are {places.tolist()}; a grid of {grid} x {grid} has 0 to {grid * grid - 1}")
    rows, columns = (
        interval_overlaps(centres, length, torch.arange(grid + 1, device=centres.device) * (length / grid) - 0.5)
        for centres, length in zip(explanation.centres, explanation.image_size, strict=True)
    )
    inside = rows[places // grid].unsqueeze(2) * columns[places % grid].unsqueeze(1)
    found = with_areas(explanation, rows.sum(dim=0), columns.sum(dim=0), inside)
    return GridPointing(found.mass_share(), found.top_share(fraction), found.peak_share())


def _sources(confident: list[int], classes: list[int], cells: int) -> list[list[int]]:
    """The images of each mosaic: repeatedly the next ones of different classes."""
    mosaics: list[list[int]] = []
    while True:
        chosen: dict[int, int] = {}
        for image in confident:
            if len(chosen) < cells:
                chosen.setdefault(classes[image], image)
        if len(chosen) < cells:
            return mosaics
        images, turn = list(chosen.values()), len(mosaics) % cells
        mosaics.append(images[turn:] + images[:turn])
        confident = [image for image in confident if image not in images]


def compose_grid(cells: Sequence[Float[Tensor, "1 c a b"]], size: tuple[int, int]) -> Float[Tensor, "1 c h w"]:
    """Resize every image to its cell of a mosaic; where the sides do not divide, cells differ by a pixel.

    >>> compose_grid([torch.full((1, 1, 4, 4), float(i)) for i in range(4)], (2, 2))
    tensor([[[[0., 1.],
              [2., 3.]]]])

    Args:
        cells: in reading order, as many as fill a square.
        size: (height, width) of the mosaic.
    """
    grid = math.isqrt(len(cells))
    row_edges, column_edges = ([side * i // grid for i in range(grid + 1)] for side in size)
    mosaic = cells[0].new_empty(1, cells[0].shape[1], *size)
    for number, cell in enumerate(cells):
        row, column = divmod(number, grid)
        (top, bottom), (left, right) = row_edges[row : row + 2], column_edges[column : column + 2]
        shrunk = F.interpolate(cell, (bottom - top, right - left), mode="bilinear", antialias=True)
        mosaic[..., top:bottom, left:right] = shrunk.clamp(cell.min(), cell.max())
    return mosaic
