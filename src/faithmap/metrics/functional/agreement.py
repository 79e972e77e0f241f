r"""Agreement: how similar two heatmaps of one image are, in the order of their cells, in their top cells, or in structure.

:Spearman: Pearson's correlation of the ranks; equal cells share the mean of their ranks (Spearman 1904).
:top k: :math:`|T_k(a) \cap T_k(b)| / k`, with :math:`T_k` the k highest cells (Ghorbani et al. 2019); k / N for random maps.
    The intersection over the union is o / (2 - o) of it.
:SSIM: the mean over all cells of

    .. math:: \frac{(2 \mu_a \mu_b + c_1)(2 \sigma_{ab} + c_2)}{(\mu_a^2 + \mu_b^2 + c_1)(\sigma_a^2 + \sigma_b^2 + c_2)}

    with means and variances under a Gaussian window (11 cells wide, sigma 1.5), :math:`c_1 = (0.01 L)^2`,
    :math:`c_2 = (0.03 L)^2`, L the range of the values (Wang et al. 2004), computed by torchmetrics. Maps are mirrored at their
    borders.

Two Explanations are compared on one grid: the larger number of rows of the two, and the larger number of columns; every cell
keeps its position. If both have the same cells, these are compared without resampling. Tensors must have the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.explanation import Explanation, cell_ranks

Maps: TypeAlias = Explanation | Float[Tensor, "n r c"]

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5


def spearman(first: Maps, second: Maps) -> Float[Tensor, " n"]:
    """Rank correlation of each pair of maps, in [-1, 1].

    A constant map has no order, and its correlation with any map is defined as 0. The ranks are summed as integers, so that
    equal orders give exactly 1 (torchmetrics' function adds 1e-6 to the denominator and computes ranks in single precision).

    Args:
        first: one map per image.
        second: one map of each of the same images.

    >>> spearman(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[1.0, 8.0, 8.0]]]))
    tensor([0.8660])

    Raises:
        ValueError: for maps of different shapes or images, or with NaN.
    """
    a, b, dtype = _comparable(first, second)
    a, b = _centred_ranks(a.flatten(1)), _centred_ranks(b.flatten(1))
    variances = (a * a).sum(dim=1).double() * (b * b).sum(dim=1).double()
    correlation = (a * b).sum(dim=1).double() / variances.sqrt()
    return torch.where(variances > 0, correlation, 0.0).to(dtype)


def top_k_overlap(first: Maps, second: Maps, k: float = 0.1) -> Float[Tensor, " n"]:
    """Share of the k highest cells of one map that are among the k highest cells of the other, in [0, 1].

    Exactly k cells of each map are compared; of equal cells the first in reading order are taken.

    Args:
        first: one map per image.
        second: one map of each of the same images.
        k: a number of cells (int), or a share of the cells in (0, 1] (float), rounded, and at least one cell.

    >>> top_k_overlap(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.tensor([[[0.0, 3.0, 1.0, 2.0]]]), 2)
    tensor([0.5000])

    Raises:
        ValueError: for maps of different shapes or images, or with NaN, or a k out of its range.
    """
    a, b, dtype = _comparable(first, second)
    cells = a[0].numel()
    count = k if isinstance(k, int) else max(1, round(k * cells))
    if isinstance(k, bool) or not 1 <= count <= cells or not k > 0:
        raise ValueError(f"k is {k!r} for maps of {cells} cells; give 1 to {cells} as an int, or a share in (0, 1] as a float")
    both = (cell_ranks(a) < count) & (cell_ranks(b) < count)
    return (both.flatten(1).sum(dim=1).double() / count).to(dtype)


def ssim(first: Maps, second: Maps, *, data_range: float | None = None) -> Float[Tensor, " n"]:
    """Structural similarity of each pair of maps, in [-1, 1]; 1 for equal ones.

    Args:
        first: one map per image, of at least 6 x 6 cells.
        second: one map of each of the same images.
        data_range: None scales each map to [0, 1] by its own lowest and highest value, because maps of different methods have
            different units; a constant map becomes 0 everywhere. A positive number does not scale the maps, and is L, the range
            of their values.

    >>> maps = torch.arange(64.0).view(1, 8, 8)
    >>> ssim(maps, 3 * maps + 1), ssim(maps, -maps) < 0
    (tensor([1.]), tensor([True]))

    Raises:
        ValueError: for maps of different shapes or images, or with NaN, smaller maps, or a range that is not positive.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # noqa: PLC0415 - takes seconds

    a, b, dtype = _comparable(first, second)
    if min(a.shape[-2:]) <= SSIM_WINDOW // 2:
        raise ValueError(
            f"maps of {a.shape[-2]} x {a.shape[-1]} cells are too small for a window of {SSIM_WINDOW}; "
            f"give at least {SSIM_WINDOW // 2 + 1} x {SSIM_WINDOW // 2 + 1}, such as Explanation.at() makes them"
        )
    if data_range is not None and not data_range > 0:
        raise ValueError(f"data_range is {data_range}; give a positive number, or None to scale each map to [0, 1]")
    if data_range is None:
        a, b = _scaled_to_unit(a), _scaled_to_unit(b)
    similarity = structural_similarity_index_measure(
        a.unsqueeze(1),
        b.unsqueeze(1),
        sigma=SSIM_SIGMA,
        kernel_size=SSIM_WINDOW,
        data_range=data_range or 1.0,
        reduction="none",
    )
    assert isinstance(similarity, Tensor)  # noqa: S101 - a pair only with return_full_image
    return similarity.to(dtype)


def agreement_matrix(
    maps: Mapping[str, Maps], measure: Callable[[Maps, Maps], Float[Tensor, " n"]] = spearman
) -> Float[Tensor, "n m m"]:
    """Similarity of the maps of m methods, pair by pair, for each image; rows and columns in the given order.

    Args:
        maps: the maps of the same images, by the name of the method.
        measure: a function of this module, or one of the same form; bind its settings with ``functools.partial``.

    >>> agreement_matrix({"one": torch.tensor([[[1.0, 2.0]]]), "other": torch.tensor([[[2.0, 1.0]]])})
    tensor([[[ 1., -1.],
             [-1.,  1.]]])

    Raises:
        ValueError: for no maps, or maps that the measure does not accept.
    """
    if not maps:
        raise ValueError("there are no maps to compare; give at least one method's")
    rows = [torch.stack([measure(a, b) for b in maps.values()], dim=1) for a in maps.values()]
    return torch.stack(rows, dim=1)


def on_one_grid(first: Explanation, second: Explanation) -> tuple[Float[Tensor, "n r c"], Float[Tensor, "n r c"]]:
    """Both maps on one grid, by the rule of the module.

    Raises:
        ValueError: for explanations of images of different sizes.
    """
    if tuple(first.image_size) != tuple(second.image_size):
        raise ValueError(
            f"the maps explain images of {first.image_size} and {second.image_size}; give those of the same images"
        )
    if first.resolution == second.resolution and all(
        _same_centres(getattr(first, axis), getattr(second, axis)) for axis in ("rows", "columns")
    ):
        return first.heatmap, second.heatmap
    size = max(first.resolution[0], second.resolution[0]), max(first.resolution[1], second.resolution[1])
    return resampled(first, size), resampled(second, size)


def resampled(explanation: Explanation, size: tuple[int, int]) -> Float[Tensor, "n h w"]:
    """The maps on a grid of that size; a constant map stays exactly constant, so that rounding does not create an order."""
    if explanation.resolution == tuple(size) and explanation.rows is None and explanation.columns is None:
        return explanation.heatmap
    heatmap = explanation.heatmap
    constant = heatmap.amax(dim=(1, 2), keepdim=True) == heatmap.amin(dim=(1, 2), keepdim=True)
    return torch.where(constant, heatmap[:, :1, :1], explanation.at(size))


def _same_centres(first: Float[Tensor, " r"] | None, second: Float[Tensor, " r"] | None) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first.double(), second.to(first.device).double())


def _comparable(first: Maps, second: Maps) -> tuple[Float[Tensor, "n r c"], Float[Tensor, "n r c"], torch.dtype]:
    """Both as tensors of one shape, detached, in double precision; and the precision of the result."""
    if isinstance(first, Explanation) and isinstance(second, Explanation) and len(first) == len(second):
        a, b = on_one_grid(first, second)
    else:
        a, b = (maps.heatmap if isinstance(maps, Explanation) else maps for maps in (first, second))
    if a.ndim != 3 or a.shape != b.shape or a.numel() == 0:
        shapes = f"the maps have shapes {tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"{shapes}; give two of one shape (images, rows, columns), or two Explanations of the same images")
    if not (a.is_floating_point() and b.is_floating_point() and bool(a.isfinite().all()) and bool(b.isfinite().all())):
        raise ValueError("the maps contain NaN or infinite values, or are not floating point")
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return a.detach().double(), b.detach().double(), dtype


def _centred_ranks(values: Float[Tensor, "n cells"]) -> Int[Tensor, "n cells"]:
    """Twice the mean rank of each value in its row, minus the row's mean: integers, so that their sums are exact."""
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    return below + up_to - values.shape[1]


def _scaled_to_unit(maps: Float[Tensor, "n r c"]) -> Float[Tensor, "n r c"]:
    """Each map scaled to [0, 1] by its own extremes."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0.0)
