"""The measures with a known truth as torchmetrics classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

from jaxtyping import Int
from torch import Tensor

from faithmap.metrics.base import HeatmapMetric, MetricSettings
from faithmap.metrics.known_truth.grid_pointing import grid_pointing_game
from faithmap.metrics.known_truth.overlap import Heatmaps


class GridPointingGame(HeatmapMetric):
    """Mean share of the map in the cell of the mosaic that shows the explained class, in [0, 1].

    >>> import torch
    >>> metric = GridPointingGame()
    >>> metric.update(torch.tensor([[[6.0, 1.0], [1.0, -2.0]]]), 0)
    >>> metric.update(torch.ones(1, 7, 7), 3)
    >>> metric.compute()
    tensor(0.5000)

    Args:
        part: of the map that counts: the positive "mass", which is the paper's score, the "top" tenth, or the "peak".
        grid: cells of the mosaic per side.
        fraction: of the area that counts as the top.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
        ValueError: for an unknown part.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def __init__(
        self,
        *,
        part: Literal["mass", "top", "peak"] = "mass",
        grid: int = 2,
        fraction: float = 0.1,
        **metric_settings: Unpack[MetricSettings],
    ) -> None:
        super().__init__(**metric_settings)
        if part not in ("mass", "top", "peak"):
            raise ValueError(f"part is {part!r}; give 'mass', 'top' or 'peak'")
        self.part: Literal["mass", "top", "peak"] = part
        self.grid, self.fraction = grid, fraction

    def update(
        self,
        heatmaps: Heatmaps,
        positions: int | Sequence[int] | Int[Tensor, " n"],
        image_size: tuple[int, int] | None = None,
    ) -> None:
        """Measure more maps.

        Args:
            heatmaps: of mosaics; an Explanation, or a tensor of the maps alone.
            positions: number of the right cell in reading order, from 0; one for all maps or one for each.
            image_size: (height, width) of the mosaics, for a tensor; None if each cell of the map is one pixel.
        """
        found = grid_pointing_game(heatmaps, positions, grid=self.grid, fraction=self.fraction, image_size=image_size)
        self.values.append(getattr(found, self.part))
