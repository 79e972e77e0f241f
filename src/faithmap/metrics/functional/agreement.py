r"""Agreement: how alike two heatmaps of one image are, in the order of their cells, in their top cells, or to the eye.

:Spearman: Pearson's correlation of the ranks; equal cells share the mean of their ranks (Spearman 1904).
:top k: :math:`|T_k(a) \cap T_k(b)| / k`, with :math:`T_k` the k highest cells (Ghorbani et al. 2019); k / N by chance. The
    intersection over the union is o / (2 - o) of it.
:SSIM: the mean over all cells of

    .. math:: \frac{(2 \mu_a \mu_b + c_1)(2 \sigma_{ab} + c_2)}{(\mu_a^2 + \mu_b^2 + c_1)(\sigma_a^2 + \sigma_b^2 + c_2)}

    with means and variances under a Gaussian window (11 cells wide, sigma 1.5), :math:`c_1 = (0.01 L)^2`,
    :math:`c_2 = (0.03 L)^2`, L the range of the values (Wang et al. 2004). Maps are mirrored at their borders.

Two Explanations are compared on one grid, which has the rows of the one that has more of them, and so the columns; every cell
stands where it belongs. Where both have the same cells these are compared as they are. Tensors have to be of one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from faithmap.explanation import Explanation
from faithmap.metrics.functional.protocols import ranks

Maps: TypeAlias = Explanation | Float[Tensor, "n r c"]
Measure: TypeAlias = Callable[..., Float[Tensor, " n"]]

WINDOW, SIGMA = 11, 1.5


def spearman(first: Maps, second: Maps) -> Float[Tensor, " n"]:
    """Rank correlation of each pair of maps, in [-1, 1].

    A map with one value everywhere has no order, and its correlation with any map is taken as 0.

    >>> spearman(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[1.0, 8.0, 8.0]]]))
    tensor([0.8660])

    Raises:
        ValueError: for maps that cannot be compared: of other shapes, other images, or with NaN.
    """
    a, b, dtype = _pair(first, second)
    a, b = _mean_ranks(a.flatten(1)), _mean_ranks(b.flatten(1))
    variances = (a * a).sum(dim=1).double() * (b * b).sum(dim=1).double()
    correlation = (a * b).sum(dim=1).double() / variances.sqrt()
    return torch.where(variances > 0, correlation, 0.0).to(dtype)


def top_k_overlap(first: Maps, second: Maps, k: float = 0.1) -> Float[Tensor, " n"]:
    """Share of the k highest cells of one map that are among the k highest of the other, in [0, 1].

    Exactly k cells are taken of each map; of equal ones those that come first in reading order.

    Args:
        first: one map for each image.
        second: of the same images.
        k: a number of cells (int), or a share of them in (0, 1] (float), rounded, and one cell at least.

    >>> top_k_overlap(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.tensor([[[0.0, 3.0, 1.0, 2.0]]]), 2)
    tensor([0.5000])

    Raises:
        ValueError: for maps that cannot be compared, or a k that is none.
    """
    a, b, dtype = _pair(first, second)
    cells = a[0].numel()
    count = k if isinstance(k, int) else max(1, round(k * cells))
    if isinstance(k, bool) or not 1 <= count <= cells or not k > 0:
        raise ValueError(f"k is {k!r} for maps of {cells} cells; give 1 to {cells} as an int, or a share in (0, 1] as a float")
    both = (ranks(a) < count) & (ranks(b) < count)
    return (both.flatten(1).sum(dim=1).double() / count).to(dtype)


def ssim(first: Maps, second: Maps, *, data_range: float | None = None) -> Float[Tensor, " n"]:
    """Structural similarity of each pair of maps, in [-1, 1]; 1 for equal ones.

    Args:
        first: one map for each image, of at least 6 x 6 cells.
        second: of the same images.
        data_range: None moves each map to [0, 1] by its own lowest and highest value, since maps have no common unit; one with
            a single value becomes 0 everywhere. A number leaves the maps as they are, and is L, the range that they can have.

    Raises:
        ValueError: for maps that cannot be compared, smaller ones, or a range that is not positive.
    """
    a, b, dtype = _pair(first, second)
    if min(a.shape[-2:]) <= WINDOW // 2:
        raise ValueError(
            f"maps of {a.shape[-2]} x {a.shape[-1]} cells are too small for a window of {WINDOW}; "
            f"give at least {WINDOW // 2 + 1} x {WINDOW // 2 + 1}, such as Explanation.at() makes them"
        )
    if data_range is not None and not data_range > 0:
        raise ValueError(f"data_range is {data_range}; give a positive number, or None to scale each map to [0, 1]")
    if data_range is None:
        a, b = _unit(a), _unit(b)
    return _ssim(a, b, data_range or 1.0).to(dtype)


def agreement_matrix(maps: Mapping[str, Maps], measure: Measure = spearman, **settings: Any) -> Float[Tensor, "n m m"]:
    """How alike the maps of m methods are, pair by pair, for each image; rows and columns in the order given.

    Args:
        maps: of the same images, by the method's name.
        measure: of this module, or a function like them.
        settings: of the measure.

    >>> agreement_matrix({"one": torch.tensor([[[1.0, 2.0]]]), "other": torch.tensor([[[2.0, 1.0]]])})
    tensor([[[ 1., -1.],
             [-1.,  1.]]])
    """
    if not maps:
        raise ValueError("there are no maps to compare; give at least one method's")
    rows = [torch.stack([measure(a, b, **settings) for b in maps.values()], dim=1) for a in maps.values()]
    return torch.stack(rows, dim=1)


def on_one_grid(first: Explanation, second: Explanation) -> tuple[Float[Tensor, "n r c"], Float[Tensor, "n r c"]]:
    """Both maps at the same places; see the module's rule.

    Raises:
        ValueError: for explanations of images of different sizes.
    """
    if tuple(first.image_size) != tuple(second.image_size):
        raise ValueError(
            f"the maps explain images of {first.image_size} and {second.image_size}; give those of the same images"
        )
    if first.resolution == second.resolution and all(
        _same(getattr(first, axis), getattr(second, axis)) for axis in ("rows", "columns")
    ):
        return first.heatmap, second.heatmap
    size = max(first.resolution[0], second.resolution[0]), max(first.resolution[1], second.resolution[1])
    return resampled(first, size), resampled(second, size)


def resampled(why: Explanation, size: tuple[int, int]) -> Float[Tensor, "n h w"]:
    """The maps on a grid of that size; of a constant one exactly constant, so that no rounding passes for an order."""
    if why.resolution == tuple(size) and why.rows is None and why.columns is None:
        return why.heatmap
    flat = why.heatmap.amax(dim=(1, 2), keepdim=True) == why.heatmap.amin(dim=(1, 2), keepdim=True)
    return torch.where(flat, why.heatmap[:, :1, :1], why.at(size))


def _same(first: Float[Tensor, " r"] | None, second: Float[Tensor, " r"] | None) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first.double(), second.to(first.device).double())


def _pair(first: Maps, second: Maps) -> tuple[Float[Tensor, "n r c"], Float[Tensor, "n r c"], torch.dtype]:
    """Both as tensors of one shape, detached, in double precision; and the precision of the answer."""
    if isinstance(first, Explanation) and isinstance(second, Explanation) and len(first) == len(second):
        a, b = on_one_grid(first, second)
    else:
        a, b = (maps.heatmap if isinstance(maps, Explanation) else maps for maps in (first, second))
    if a.ndim != 3 or a.shape != b.shape or a.numel() == 0:
        shapes = f"the maps have shapes {tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"{shapes}; give two of one shape (images, rows, columns), or two Explanations of the same images")
    if not (a.is_floating_point() and b.is_floating_point() and bool(a.isfinite().all()) and bool(b.isfinite().all())):
        raise ValueError("the maps hold NaN or infinite values, or are not floating point")
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return a.detach().double(), b.detach().double(), dtype


def _mean_ranks(values: Float[Tensor, "n cells"]) -> Int[Tensor, "n cells"]:
    """Twice the mean rank of each value among its row, less the row's mean: whole numbers, so that sums of them are exact."""
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    return below + up_to - values.shape[1]


def _unit(maps: Float[Tensor, "n r c"]) -> Float[Tensor, "n r c"]:
    """Each map moved to [0, 1] by its own extremes."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0.0)


def _ssim(a: Float[Tensor, "n r c"], b: Float[Tensor, "n r c"], data_range: float) -> Float[Tensor, " n"]:
    """The equation above."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b, square_a, square_b, product = _blurred(torch.stack([a, b, a * a, b * b, a * b]))
    variance_a, variance_b = (square_a - mean_a**2).clamp(min=0), (square_b - mean_b**2).clamp(min=0)
    covariance = product - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    similarity: Tensor = luminance * structure
    return similarity.mean(dim=(1, 2))


def _blurred(maps: Float[Tensor, "m n r c"]) -> Float[Tensor, "m n r c"]:
    """Under the Gaussian window, mirrored at the borders."""
    offsets = torch.arange(WINDOW, device=maps.device, dtype=maps.dtype) - WINDOW // 2
    window = (-(offsets**2) / (2 * SIGMA**2)).exp()
    window = window / window.sum()
    padded = F.pad(maps.flatten(0, 1).unsqueeze(1), (WINDOW // 2,) * 4, mode="reflect")
    across = F.conv2d(padded, window.view(1, 1, 1, -1))
    down: Tensor = F.conv2d(across, window.view(1, 1, -1, 1))
    return down.view(maps.shape)
