r"""How much of a heatmap lies in a region that is known to matter, at any resolution of the map.

A cell stands for the part of the image that is nearest to its centre: along each axis from the middle between it and the cell
before to the middle between it and the next, the outermost cells to the edge of the image. With :math:`a_c` the area of cell
:math:`c` in pixels and :math:`b_c` the part of it in the region, the shares of a heatmap :math:`h` are

:positive map: :math:`\sum_c h_c^+ b_c / \sum_c h_c^+ a_c`, with :math:`h^+ = \max(h, 0)`.
:top: the share of the region in the highest cells that together cover a given share of the image.
:peak: the share of the highest cell that lies in the region.

A constant map has the region's share of the image in all three, whatever the resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.score import at_least_single
from faithmap.warning_types import EmptyHeatmapWarning, warn

Heatmaps: TypeAlias = "Explanation | Float[Tensor, 'n r c']"


@dataclass(frozen=True, eq=False)
class CellOverlap:
    """Heatmaps and, for each cell, its area and the part of it that lies in the region; in double precision.

    >>> found = overlap_with(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]]))
    >>> found.mass_share(), found.top_share(0.5), found.peak_share()
    (tensor([0.7500]), tensor([1.]), tensor([1.]))

    Attributes:
        heat: value of each cell.
        area: of each cell in pixels, equal for all images.
        inside: the part of this area in the image's region.
        dtype: of the shares.
    """

    heat: Float[Tensor, "n k"]
    area: Float[Tensor, " k"]
    inside: Float[Tensor, "n k"]
    dtype: torch.dtype

    def mass_share(self) -> Float[Tensor, " n"]:
        """Share of the positive map in the region; 0 for a map without positive values, with an `EmptyHeatmapWarning`."""
        positive = self.heat.clamp(min=0)
        whole = positive @ self.area
        if bool((whole <= 0).any()):
            warn(f"{int((whole <= 0).sum())} of the heatmaps are without positive values: they score 0", EmptyHeatmapWarning)
        return torch.where(whole > 0, (positive * self.inside).sum(dim=1) / whole, 0).to(self.dtype)

    def top_share(self, fraction: float | Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Share of the region in the highest cells that together cover this fraction of the image.

        The last of them count in part. Of equal cells all count in the same part.

        Args:
            fraction: of the image's area, in (0, 1]; one for all images, or one for each.

        Raises:
            ValueError: for another fraction.
        """
        fractions = torch.as_tensor(fraction, device=self.area.device, dtype=self.area.dtype).expand(len(self.heat))
        if not bool(((fractions > 0) & (fractions <= 1)).all()):
            raise ValueError(f"fraction is {fraction}; give a number above 0 and at most 1")
        wanted = fractions * self.area.sum()
        values, order = self.heat.sort(dim=1, descending=True)
        covered = self.area.expand_as(self.heat).gather(1, order).cumsum(dim=1)
        last = (covered < wanted.unsqueeze(1)).sum(dim=1, keepdim=True).clamp(max=self.heat.shape[1] - 1)
        threshold = values.gather(1, last)
        above, equal = (self.heat > threshold).to(self.area), (self.heat == threshold).to(self.area)
        part = (wanted - above @ self.area) / (equal @ self.area)
        return (((above + part.unsqueeze(1) * equal) * self.inside).sum(dim=1) / wanted).to(self.dtype)

    def peak_share(self) -> Float[Tensor, " n"]:
        """Share of the highest cell that lies in the region: 1 or 0, unless it is on the border; the mean over equal cells."""
        highest = (self.heat == self.heat.amax(dim=1, keepdim=True)).to(self.area)
        return ((highest * self.inside / self.area).sum(dim=1) / highest.sum(dim=1)).to(self.dtype)

    def of_region(self) -> Bool[Tensor, "n k"]:
        """The cells of the region: those that lie in it at least half as much as the one that does so most.

        The part in the region is a share of the cell, or of the region if that is smaller, so that every region has a cell.
        """
        part = self.inside / torch.minimum(self.area, self.inside.sum(dim=1, keepdim=True))
        return part >= part.amax(dim=1, keepdim=True) / 2

    def rank(self) -> Float[Tensor, " n"]:
        """Share of the image's area that is ranked above the highest of the region's cells; of equal cells half are."""
        own = self.of_region()
        best = self.heat.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
        higher, equal = (self.heat > best).to(self.area), ((self.heat == best) & ~own).to(self.area)
        return (higher + equal / 2) @ self.area / self.area.sum()


def overlap_with(heatmaps: Heatmaps, regions: Bool[Tensor, "n h w"]) -> CellOverlap:
    """The overlap of each cell with a region of the image, given as a mask.

    Args:
        heatmaps: an Explanation, or a tensor of maps whose corners are those of the image.
        regions: one mask for each image, or a single mask (1, h, w) for all; True in the region.

    >>> overlap_with(torch.ones(1, 1, 2), torch.tensor([[[True, True, True, False]]])).inside
    tensor([[2., 1.]], dtype=torch.float64)

    Raises:
        ValueError: for regions of another number or size than the images, or maps that are not finite.
    """
    if regions.ndim != 3 or len(regions) not in (1, len(heatmaps)):
        raise ValueError(f"regions have shape {tuple(regions.shape)} for {len(heatmaps)} heatmaps; give a mask for each")
    size = (regions.shape[1], regions.shape[2])
    explanation = placed(heatmaps, size)
    if explanation.image_size != size:
        raise ValueError(f"regions have {size} pixels, the images {explanation.image_size}; give masks of the images")
    rows, columns = (
        interval_overlaps(centres, length, torch.arange(length + 1, device=centres.device) - 0.5)
        for centres, length in zip(explanation.centres, size, strict=True)
    )
    inside = rows.mT @ regions.to(rows) @ columns
    return with_areas(explanation, rows.sum(dim=0), columns.sum(dim=0), inside)


def with_areas(
    explanation: Explanation, heights: Float[Tensor, " r"], widths: Float[Tensor, " c"], inside: Float[Tensor, "n r c"]
) -> CellOverlap:
    """The overlap from the heights and widths of the cells, and their parts in the region."""
    heat = explanation.heatmap
    inside = inside.expand(len(heat), -1, -1).flatten(1)
    return CellOverlap(heat.double().flatten(1), torch.outer(heights, widths).flatten(), inside, heat.dtype)


def placed(heatmaps: Heatmaps, image_size: tuple[int, int] | None) -> Explanation:
    """The heatmaps as an Explanation; those of a tensor have aligned corners.

    Args:
        heatmaps: an Explanation, or a tensor.
        image_size: of the images of a tensor; None for one cell per pixel.

    Raises:
        ValueError: for maps of another shape, without cells, or with values that are not finite.
    """
    if not isinstance(heatmaps, Explanation):
        if heatmaps.ndim != 3:
            raise ValueError(f"heatmaps have shape {tuple(heatmaps.shape)}; give (images, rows, columns)")
        heatmaps = Explanation(at_least_single(heatmaps), image_size or (heatmaps.shape[1], heatmaps.shape[2]))
    if heatmaps.heatmap.numel() == 0 or not bool(heatmaps.heatmap.isfinite().all()):
        raise ValueError("heatmaps are empty or not finite; give at least one cell, and no NaN or infinity")
    return heatmaps


def interval_overlaps(centres: Float[Tensor, " r"], length: int, edges: Float[Tensor, " e"]) -> Float[Tensor, "i r"]:
    """Length of the part of each cell in each interval along one axis, in pixels.

    Args:
        centres: of the cells, in pixels; 0 is the centre of the first pixel.
        length: of the image along the axis.
        edges: of neighbouring intervals, in pixels.

    >>> interval_overlaps(torch.tensor([0.0, 3.0]), 4, torch.tensor([-0.5, 0.5, 3.5]))
    tensor([[1., 0.],
            [1., 2.]])
    """
    middles = (centres[1:] + centres[:-1]) / 2
    first, last = centres.new_tensor([-0.5]), centres.new_tensor([length - 0.5])
    low, high = torch.cat([first, middles]), torch.cat([middles, last])
    edges = edges.to(centres).unsqueeze(1)
    return (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0)
