"""The measures with a known truth as torchmetrics classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

from jaxtyping import Bool, Int
from torch import Tensor

from faithmap.metrics.base import HeatmapMetric, MetricSettings
from faithmap.metrics.known_truth.grid_pointing import grid_pointing_game
from faithmap.metrics.known_truth.overlap import Heatmaps
from faithmap.metrics.known_truth.regions import leakage
from faithmap.metrics.known_truth.rule_networks import rule_score
from faithmap.metrics.known_truth.shortcuts import shortcut_score


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


class Leakage(HeatmapMetric):
    """Mean share of the absolute importance where nothing can matter, in [0, 1]; 0 is right.

    >>> import torch
    >>> metric = Leakage()
    >>> metric.update(torch.tensor([[[3.0, -1.0]]]), torch.tensor([[True, False]]))
    >>> metric.compute()
    tensor(0.2500)

    Args:
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def update(self, heatmaps: Heatmaps, regions: Bool[Tensor, "n h w"] | Bool[Tensor, "h w"]) -> None:
        """Measure more maps.

        Args:
            heatmaps: of models of :func:`~faithmap.metrics.known_truth.difull`; an Explanation, or a tensor of the maps alone.
            regions: what the model sees; one mask for all images, or one for each.
        """
        self.values.append(leakage(heatmaps, regions))


class PlantedShortcutScore(HeatmapMetric):
    """How clearly maps show a planted mark, in [0, 1]; for a mark that means nothing it is to be low.

    >>> import torch
    >>> mask = torch.tensor([[[True, False], [False, False]]])
    >>> metric = PlantedShortcutScore(part="share")
    >>> metric.update(torch.tensor([[[3.0, 1.0], [0.0, 0.0]]]), mask)
    >>> metric.compute()
    tensor(0.7500)

    Args:
        part: "found", whether the mark is among the top 5 % of the map; "share" of the positive map; or its "rank", for which
            low is good.
        fraction: of the area, the top of the map.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
        ValueError: for an unknown part.
    """

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def __init__(
        self,
        *,
        part: Literal["found", "share", "rank"] = "found",
        fraction: float = 0.05,
        **metric_settings: Unpack[MetricSettings],
    ) -> None:
        super().__init__(**metric_settings)
        if part not in ("found", "share", "rank"):
            raise ValueError(f"part is {part!r}; give 'found', 'share' or 'rank'")
        self.part: Literal["found", "share", "rank"] = part
        self.fraction = fraction

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """Whether a high value is good: not for the rank."""
        return self.part != "rank"

    def update(self, heatmaps: Heatmaps, masks: Bool[Tensor, "n h w"]) -> None:
        """Measure more maps.

        Args:
            heatmaps: of images with marks; an Explanation, or a tensor of the maps alone.
            masks: of the mark in each image.
        """
        self.values.append(getattr(shortcut_score(heatmaps, masks, fraction=self.fraction), self.part))


class KnownRuleScore(HeatmapMetric):
    """Mean share of the map on the objects that matter by a known rule, in [0, 1].

    >>> import torch
    >>> metric = KnownRuleScore()
    >>> metric.update(torch.tensor([[[3.0, 1.0], [0.0, 0.0]]]), torch.tensor([[[True, False], [False, False]]]))
    >>> metric.compute()
    tensor(0.7500)

    Args:
        part: of the map that counts: the positive "mass", the "top", as large as the objects, or the "peak".
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
        ValueError: for an unknown part.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def __init__(self, *, part: Literal["mass", "top", "peak"] = "mass", **metric_settings: Unpack[MetricSettings]) -> None:
        super().__init__(**metric_settings)
        if part not in ("mass", "top", "peak"):
            raise ValueError(f"part is {part!r}; give 'mass', 'top' or 'peak'")
        self.part: Literal["mass", "top", "peak"] = part

    def update(self, heatmaps: Heatmaps, masks: Bool[Tensor, "n h w"]) -> None:
        """Measure more maps.

        Args:
            heatmaps: an Explanation, or a tensor of the maps alone.
            masks: of the objects that matter in each image.
        """
        self.values.append(getattr(rule_score(heatmaps, masks), self.part))
