r"""Layout: which dimensions of a layer's output are images, rows, columns, channels and tokens, found by local changes.

Shapes are ambiguous: a 4-D tensor can be (n, k, h, w), (n, h, w, k), or the attention matrices of a transformer; tokens can be
(n, t, k) or (t, n, k), with any number of tokens before or behind those of the image. Therefore a noise image is shown together
with copies, each changed in one small square, the *place* (:func:`planted_images`). Where the output changes tells its layout:

- the dimension of the images is the one in which the first and the last entry, the same image twice, are equal, others are not;
- the rows and columns are those whose most changed cell follows the place. With :math:`r_{pj}` the change of position j for
  place p (root of the sum of squares over the channels), the *relative change*

.. math:: \rho_{pj} = \frac{r_{pj}}{\bar r_j + \overline{\bar r} / 10}, \qquad \bar r_j = \operatorname{mean}_p r_{pj}

  is 1 for a position that changes with every place, such as a class token, and up to the number of places for one that changes
  with a single place. It is compared with the share of each cell that the place covers.

A layer is *local* if its positions follow the places. Attention matrices follow them in both of their dimensions, queries and
keys, and are not layouts. Random weights suffice. All modules are observed in one pass (:class:`Observed`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from faithmap.capture import note_outputs, uncompiled
from faithmap.model import Classifier
from faithmap.probe import run_model

PLACES = ((0.15, 0.45), (0.32, 0.85), (0.5, 0.15), (0.68, 0.6), (0.88, 0.3))
"""Centres of the changed squares, down and across, as shares of the image; rows and columns are uncorrelated."""

COUNT = len(PLACES) + 2
"""Images of a batch of the probe: the unchanged one first and last."""

SIDE = 8
"""The image's sides are this many times as long as those of a changed square."""

SURPLUS = 32
"""Maximum number of tokens that are no patches."""

ASPECT = 3.0
"""Maximum ratio of a patch's sides."""

LOCAL = 0.35
"""Minimum mean correlation of the relative change with the covered share of the cells, for a local layer."""

MATRIX = 0.15
"""Minimum correlation of the second dimension of a square matrix, if the first is local, for queries by keys."""

FAR = 2.0
"""Maximum root mean square distance of the changed cells from the places, in cells: windows are not parts of the image."""


@dataclass(frozen=True)
class Layout:
    """From a layer's output to (n, k, h, w), by rearranging dimensions; the result is a view.

    Attributes:
        order: the dimensions of images, channels, rows and columns, or of images, channels and tokens; others have length 1.
        grid: rows and columns.
        prefix: number of tokens before the patches.

    >>> Layout((0, 2, 1), (2, 3), prefix=1)(torch.arange(7.0).view(1, 7, 1)).squeeze()
    tensor([[1., 2., 3.],
            [4., 5., 6.]])
    """

    order: tuple[int, ...]
    grid: tuple[int, int]
    prefix: int = 0

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.grid[0] * self.grid[1]

    @property
    def is_tokens(self) -> bool:
        """Whether rows and columns are one dimension."""
        return len(self.order) == 3

    @property
    def channels_last(self) -> bool:
        """Whether the channels are behind the positions, as in transformers."""
        return self.order[1] > max(self.order[2:])

    def __call__(self, activation: Tensor) -> Float[Tensor, "n k h w"]:
        """Rearrange an output, or its gradient.

        Args:
            activation: of any number of images.
        """
        single = [dim for dim in range(activation.ndim) if dim not in self.order]
        moved = activation.permute(*self.order, *single)
        for _ in single:
            moved = moved.select(-1, 0)
        if not self.is_tokens:
            return moved
        rows, columns = self.grid
        patches: Tensor = moved[:, :, self.prefix : self.prefix + rows * columns].unflatten(2, self.grid)
        return patches


class Found(NamedTuple):
    """A layout, and how well the changes follow the places.

    Attributes:
        layout: of the output.
        quality: mean correlation of the relative change with the places.
        offset: root mean square distance of the changed cells from the places, in cells.
    """

    layout: Layout
    quality: float
    offset: float

    @property
    def local(self) -> bool:
        """Whether the positions follow the places of the image."""
        return _is_local(self.layout.grid, self.quality, self.offset)


NOWHERE = Found(Layout((), (1, 1)), 0.0, float("inf"))
"""No dimensions of an output follow the places."""

Span: TypeAlias = tuple[float, float]


def planted_images(image: Float[Tensor, "1 c h w"], low: float, high: float) -> Float[Tensor, "n c h w"]:
    """Noise, the same changed at one place after the other, and the unchanged noise again; :data:`COUNT` images.

    Args:
        image: of the size, type and device of the images.
        low: smallest pixel value.
        high: largest pixel value.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (1, *image.shape[1:])
    fine, coarse = torch.rand(shape, generator=generator), torch.rand(1, shape[1], 8, 8, generator=generator)
    smooth = F.interpolate(coarse, size=shape[-2:], mode="bilinear")
    base = (0.5 * fine + 0.5 * smooth).clamp(0, 1)
    images = base.repeat(COUNT, 1, 1, 1)
    for number, (down, across) in enumerate(_spans(shape[-2], shape[-1]), start=1):
        place = images[number, :, int(down[0]) : int(down[1]), int(across[0]) : int(across[1])]
        place.copy_(torch.where(place < 0.5, 0.9 + 0.1 * place, 0.1 * place))
    return (low + (high - low) * images).to(image)


def _spans(height: int, width: int) -> list[tuple[Span, Span]]:
    """First and last edge of each place, down and across, in pixels."""

    def span(centre: float, pixels: int) -> Span:
        side = max(1, round(pixels / SIDE))
        start = min(max(round(centre * pixels - side / 2), 0), pixels - side)
        return start, start + side

    return [(span(down, height), span(across, width)) for down, across in PLACES]


@dataclass(eq=False)
class Changes:
    """How an output changes with each place, if one of its dimensions is that of the images.

    Attributes:
        images: this dimension.
        shape: of the output.
        noise: change between the first and the last image, which are equal, relative to that between others.
        size: by one or two other dimensions, and for each place, the root of the sum of squares over all the rest.
    """

    images: int
    shape: tuple[int, ...]
    noise: Float[Tensor, ""]
    size: dict[tuple[int, ...], Tensor]

    @classmethod
    def of(cls, output: Tensor, images: int) -> Changes:
        """Measure an output for the planted images."""
        moved = output.detach().movedim(images, 0)
        values = (moved[1:] - moved[:1]).float()
        values = values.div_(
            values[0].norm().clamp_min(1e-38)
        ).square_()  # changes of a random network can be as small as 1e-25
        dims = [dim for dim, length in enumerate(output.shape) if length > 1 and dim != images]
        kept: list[tuple[int, ...]] = [*pairwise(dims), *([(dim,) for dim in dims] if len(dims) <= 2 else [])]
        places, size = values[:-1], {}
        for group in kept:
            others = [1 + dim - (dim > images) for dim in range(output.ndim) if dim != images and dim not in group]
            size[group] = (places.sum(dim=others) if others else places).sqrt()
        noise = values[-1].sum() / places.sum().clamp_min(1e-30) * len(PLACES)
        return cls(images, tuple(output.shape), noise, size)

    def best(self, size: tuple[int, int]) -> Found | None:
        """The layout that fits the places best; None if no change shows, or the images are along another dimension.

        Args:
            size: height and width of the images.
        """
        if not float(self.noise) < 0.5 or not any(bool(values.any()) for values in self.size.values()):
            return None
        if not all(bool(values.isfinite().all()) for values in self.size.values()):
            return None
        relative = {dims: _relative(values.double().cpu()) for dims, values in self.size.items()}
        tokens = {dims[0]: _best_tokens(relative[dims], size) for dims in relative if len(dims) == 1}
        if len(tokens) == 2 and _are_queries_by_keys(relative, tokens, size):
            return NOWHERE
        fits = [self._pair(dims, values, size) for dims, values in relative.items() if len(dims) == 2]
        fits += [self._tokens(dim, fit) for dim, fit in tokens.items()]
        return max((fit for fit in fits if fit is not None), key=lambda fit: fit.quality, default=NOWHERE)

    def _pair(self, dims: tuple[int, ...], relative: Float[Tensor, "p a b"], size: tuple[int, int]) -> Found | None:
        """The layout with these two dimensions as rows and columns, or as columns and rows."""
        channels = self._channels(dims)
        if channels is None or not _is_shape(self.shape[dims[0]], self.shape[dims[1]], size):
            return None
        fit, (rows, columns) = _fit(relative, size), dims
        if fit.quality < LOCAL:
            fit, (rows, columns) = max((fit, dims), (_fit(relative.mT, size), dims[::-1]))
        order = (self.images, channels, rows, columns)
        return Found(Layout(order, (self.shape[rows], self.shape[columns])), fit.quality, fit.offset)

    def _tokens(self, dim: int, fit: _TokenFit | None) -> Found | None:
        channels = self._channels((dim,))
        if fit is None or channels is None:
            return None
        return Found(Layout((self.images, channels, dim), fit.grid, fit.prefix), fit.quality, fit.offset)

    def _channels(self, positions: tuple[int, ...]) -> int | None:
        """The dimension of the channels: the longest of the others; None if there are several or none."""
        others = [dim for dim in range(len(self.shape)) if dim != self.images and dim not in positions]
        if not others or sum(self.shape[dim] > 1 for dim in others) > 1:
            return None
        return max(others, key=lambda dim: self.shape[dim])


def _relative(change: Float[Tensor, "p ..."]) -> Float[Tensor, "p ..."]:
    """The change of each position, relative to its mean change."""
    mean = change.mean(dim=0)
    return change / (mean + mean.mean() / 10).clamp_min(1e-30)


def _is_local(grid: tuple[int, int], quality: float, offset: float) -> bool:
    """Whether a fit is good enough; in fewer cells than 36, random values fit better, and have to be exceeded."""
    few = max(0.0, 1 - grid[0] * grid[1] / 36)
    return quality >= LOCAL + few / 4 and offset <= min(FAR, max(0.75, min(grid) / 4))


class _Fit(NamedTuple):
    quality: float
    offset: float


class _TokenFit(NamedTuple):
    grid: tuple[int, int]
    prefix: int
    quality: float
    offset: float

    @property
    def local(self) -> bool:
        return _is_local(self.grid, self.quality, self.offset)


def _fit(relative: Float[Tensor, "p r c"], size: tuple[int, int]) -> _Fit:
    """How well the positions of a grid follow the places."""
    covered, centres = _covered(size, (relative.shape[1], relative.shape[2]))
    quality = float(_correlation(relative.flatten(1), covered.flatten(1)).mean())
    found = torch.stack([_centroid(relative.amax(dim=3 - axis)) for axis in (1, 2)], dim=1)
    largest = (found - centres).abs().amax(dim=1).sort().values[:-1]  # one place may be missed
    return _Fit(quality, float(largest.square().mean().sqrt()))


def _covered(size: tuple[int, int], grid: tuple[int, int]) -> tuple[Float[Tensor, "p r c"], Float[Tensor, "p 2"]]:
    """The share of each cell that each place covers, blurred by half a cell, and the centres of the places in cells."""
    places = torch.tensor(_spans(*size), dtype=torch.float64)  # p, axis, edge
    shares, centres = [], []
    for axis, cells in enumerate(grid):
        edges = torch.linspace(0, size[axis], cells + 1, dtype=torch.float64)
        low, high = places[:, axis, :1], places[:, axis, 1:]
        overlap = (torch.minimum(edges[1:], high) - torch.maximum(edges[:-1], low)).clamp_min(0) * cells / size[axis]
        padded = F.pad(overlap.unsqueeze(1), (1, 1), mode="replicate")
        shares.append(F.conv1d(padded, overlap.new_tensor([[[0.25, 0.5, 0.25]]])).squeeze(1))
        centres.append((low + high).squeeze(1) / 2 * cells / size[axis] - 0.5)
    return shares[0].unsqueeze(2) * shares[1].unsqueeze(1), torch.stack(centres, dim=1)


def _correlation(a: Float[Tensor, "p n"], b: Float[Tensor, "p n"]) -> Float[Tensor, " p"]:
    return F.cosine_similarity(a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True), dim=1)


def _centroid(profile: Float[Tensor, "p n"]) -> Float[Tensor, " p"]:
    """The centre of the values above the middle between the mean and the largest."""
    high = profile.amax(dim=1, keepdim=True)
    weight = (profile - (high + profile.mean(dim=1, keepdim=True)) / 2).clamp_min(0)
    positions = torch.arange(profile.shape[1], dtype=profile.dtype)
    return (weight @ positions) / weight.sum(dim=1).clamp_min(1e-30)


def _are_queries_by_keys(
    relative: dict[tuple[int, ...], Tensor], tokens: dict[int, _TokenFit | None], size: tuple[int, int]
) -> bool:
    """Whether both dimensions follow the places; of a square one, the second less clearly, since rows change as a whole."""
    fits = {dim: fit for dim, fit in tokens.items() if fit is not None and fit.local and min(fit.grid) > 2}
    if len(fits) != 1:
        return len(fits) == 2
    ((dim, fit),) = fits.items()
    (other,) = tokens.keys() - fits.keys()
    values = relative[other,]
    return values.shape == relative[dim,].shape and _fit(_cut(values, fit.grid, fit.prefix), size).quality >= MATRIX


def _best_tokens(relative: Float[Tensor, "p t"], size: tuple[int, int]) -> _TokenFit | None:
    """The grid and prefix that fit the places best; of nearly equal ones that with the fewest other tokens, in front."""
    tried = _nearest(relative, _grids(relative.shape[1], size), size)
    fits = [_TokenFit(grid, prefix, *_fit(_cut(relative, grid, prefix), size)) for grid, prefix in tried]
    best = max((fit.quality for fit in fits), default=0.0)

    def order(fit: _TokenFit) -> tuple[int, bool, float]:
        surplus = relative.shape[1] - fit.grid[0] * fit.grid[1]
        return surplus, fit.prefix < surplus, -fit.quality

    return min((fit for fit in fits if fit.quality >= best - 0.1), key=order, default=None)


def _cut(relative: Float[Tensor, "p t"], grid: tuple[int, int], prefix: int) -> Float[Tensor, "p r c"]:
    patches: Tensor = relative[:, prefix : prefix + grid[0] * grid[1]].unflatten(1, grid)
    return patches


def _grids(tokens: int, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Rows and columns of patches that are not too long, of all tokens but a few."""
    least = max(1, tokens - SURPLUS, tokens - tokens // 4)
    for rows in range(1, tokens + 1):
        for columns in range(-(-least // rows), tokens // rows + 1):
            if _is_shape(rows, columns, size):
                yield rows, columns


def _is_shape(rows: int, columns: int, size: tuple[int, int]) -> bool:
    """Whether the parts of an image in so many rows and columns are not too long."""
    return 1 / ASPECT <= (size[0] / rows) / (size[1] / columns) <= ASPECT


def _nearest(
    relative: Float[Tensor, "p t"], grids: Iterator[tuple[int, int]], size: tuple[int, int], count: int = 6
) -> list[tuple[tuple[int, int], int]]:
    """The grids and prefixes in which the most changed tokens are nearest to the places."""
    tokens, places = relative.shape[1], torch.tensor(_spans(*size), dtype=torch.float64).mean(dim=2)
    tried = [(rows, columns, prefix) for rows, columns in grids for prefix in range(tokens - rows * columns + 1)]
    if not tried:
        return []
    rows, columns, prefix = torch.tensor(tried).T.unsqueeze(2)
    index = relative.argmax(dim=1) - prefix
    down, across = (places[:, axis] / size[axis] * cells - 0.5 for axis, cells in enumerate((rows, columns)))
    off = ((index // columns - down).square() + (index % columns - across).square()).clamp_max(9).mean(dim=1)
    behind = prefix[:, 0] + (rows * columns)[:, 0] < tokens
    nearest = {*off.argsort()[:count].tolist(), *(off + 1e3 * behind).argsort()[: count // 2].tolist()}
    return [(tried[i][:2], tried[i][2]) for i in nearest]


@dataclass(eq=False)
class Output:
    """A tensor that a module returned for the planted images."""

    module: nn.Module
    part: int
    changes: list[Changes]
    shape: tuple[int, ...]
    rectified: bool
    pooled: bool

    def layout_by_proportions(self, size: tuple[int, int]) -> Layout | None:
        """As by shape, or of tokens without others, if rows and columns have about the proportions of the image."""
        layout = self.layout_by_shape
        if len(self.shape) == 3 and self.changes:
            rows = round((self.shape[1] * size[0] / size[1]) ** 0.5)
            whole = rows > 0 and self.shape[1] % rows == 0
            layout = Layout((0, 2, 1), (rows, self.shape[1] // rows)) if whole else None
        if layout is None or layout.cells == 1:
            return None
        rows, columns = layout.grid
        return layout if 2 / 3 < (rows / columns) / (size[0] / size[1]) < 3 / 2 else None

    @property
    def layout_by_shape(self) -> Layout | None:
        """(n, k, h, w), or (n, h, w, k) after a norm of the last dimension, for an output at which no change shows."""
        if len(self.shape) != 4 or not self.changes:
            return None
        last = getattr(self.module, "normalized_shape", None) == (self.shape[-1],)
        order = (0, 3, 1, 2) if last else (0, 1, 2, 3)
        return Layout(order, (self.shape[order[2]], self.shape[order[3]]))


class Observed:
    """The outputs of modules for the planted images, in order.

    Args:
        model: in evaluation mode.
        image: one of the size of the images.
        modules: those that are observed; None for all.
    """

    def __init__(self, model: nn.Module, image: Float[Tensor, "1 c h w"], modules: Sequence[nn.Module] | None = None) -> None:
        self.size = (image.shape[-2], image.shape[-1])
        self.model = model
        self.images = planted_images(image, *_pixel_range(model, image))
        self.outputs: list[Output] = []
        self.finished: list[nn.Module] = []
        self.times: Counter[nn.Module] = Counter()
        self._known: Any = WeakIdKeyDictionary()
        self._found: dict[int, Found | None] = {}
        watched = [m for m in (model.modules() if modules is None else modules) if not isinstance(m, Classifier)]
        with torch.no_grad(), uncompiled(), note_outputs(watched, self._note):
            run_model(model, self.images)

    def found(self, output: Output) -> Found | None:
        """The layout of an output; None if it has none."""
        key = id(output.changes)
        if key not in self._found:
            fits = (changes.best(self.size) for changes in output.changes)
            self._found[key] = max((fit for fit in fits if fit is not None), key=lambda fit: fit.quality, default=None)
        return self._found[key]

    def once(self) -> list[Output]:
        """The outputs of the modules that ran once."""
        return [output for output in self.outputs if self.times[output.module] == 1]

    def best_part(self, module: nn.Module) -> tuple[Output, Found] | None:
        """The finest local tensor in the output of a module; if none is local, the one that is nearest to it."""
        found = [
            (output, fit) for output in self.outputs if output.module is module and (fit := self.found(output)) is not None
        ]
        return max(
            found, key=lambda entry: (entry[1].local, entry[1].local * entry[1].layout.cells, entry[1].quality), default=None
        )

    def _note(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self.times[module] += 1
        self.finished.append(module)
        pooling = _is_pooling(module, arguments, output)
        for part, leaf in enumerate(tree_leaves(output)):
            if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or leaf.ndim < 3:
                continue
            known = self._known.get(leaf)
            version = 0 if leaf.is_inference() else leaf._version
            if known is None or known[3] != version:
                changes = [Changes.of(leaf, dim) for dim in (0, 1) if leaf.shape[dim] == COUNT]
                rectified = _is_rectified(leaf[0])
                known = self._known[leaf] = (changes, rectified, pooling, version)
            changes, rectified, pooled, _ = known
            self.outputs.append(Output(module, part, changes, tuple(leaf.shape), rectified, pooled))


def _is_rectified(values: Tensor) -> bool:
    """Whether the sum of the positive values is at least ten times that of the negative ones."""
    total, absolute = values.sum(), values.abs().sum()
    return bool(10 * (absolute - total) < absolute + total)


def _pixel_range(model: nn.Module, image: Tensor) -> tuple[float, float]:
    """0 and 1 for a Classifier, whose pixels are known; otherwise the range of the image, if it has one."""
    low, high = map(float, image.aminmax())
    if isinstance(model, Classifier) or (low >= 0 and high <= 1):
        return 0.0, 1.0
    return (low, high) if high - low > 1e-3 else (low - 1, high + 1)


def _is_pooling(module: nn.Module, arguments: Any, output: Any) -> bool:
    """Whether a module only pools or resizes: it has no weights, and another number of values, or the name of a pooling."""
    if not isinstance(output, Tensor) or next(module.parameters(), None) is not None:
        return False
    (given,) = [a for a in arguments if isinstance(a, Tensor)][:1] or [output]
    return given.numel() != output.numel() or "Pool" in type(module).__name__
