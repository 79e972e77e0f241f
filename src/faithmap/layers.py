"""Target layers: their modules, their activations as (n, k, h, w), and the centres of their cells.

A layer is found by module, by name, or as the last one with a spatial output. Transformers return tokens (n, t, k), or channels
at the end (n, h, w, k); :func:`as_grid` recognises both, and a ``reshape_transform`` of the user's own overrules it.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.capture import Activate, Capture, CellTracker, Placement, note_outputs, probed, tiles
from faithmap.model import Classifier, plain_name
from faithmap.probe import LayerProbe, run_model
from faithmap.score import Score, ScoreKind

TargetLayer: TypeAlias = nn.Module | str | Sequence[nn.Module | str] | None
"""A module of the model, its dotted name, several of either, or None for the last layer with a spatial output."""

ReshapeTransform: TypeAlias = Callable[[Tensor], Tensor]
"""From a layer's output to (n, k, h, w). It may only rearrange values, since gradients are rearranged with it."""


def find_layers(
    model: nn.Module, target_layer: TargetLayer, images: Float[Tensor, "n c h w"], scales: int = 1
) -> dict[str, nn.Module]:
    """The layers by their dotted names, in the order given.

    Args:
        model: whose layers they are; names count from the module inside a Classifier or a compiled model.
        target_layer: as the user gave it.
        images: for the default, the model runs on the first of them.
        scales: number of resolutions that the default has a layer of.

    Raises:
        ValueError: for a module that is not the model's, a name that does not exist (with the nearest), or no layers.
    """
    names = {module: plain_name(name) for name, module in model.named_modules()}
    if target_layer is None:
        return {names[layer]: layer for layer in default_layers(model, images, scales)}
    given = [target_layer] if isinstance(target_layer, (nn.Module, str)) else list(target_layer)
    if not given:
        raise ValueError("target_layer is empty; give a module, its name, several of either, or None")
    layers = [_by_name(entry, names) if isinstance(entry, str) else entry for entry in given]
    for layer in layers:
        if layer not in names:
            raise ValueError(f"target_layer {type(layer).__name__} is not a module of the model; give one of model.modules()")
    return {names[layer]: layer for layer in layers}


def _by_name(name: str, names: Mapping[nn.Module, str]) -> nn.Module:
    for module, known in names.items():
        if known == plain_name(name) and name:
            return module
    near = difflib.get_close_matches(name, [known for known in names.values() if known], n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see model.named_modules()"
    raise ValueError(f"target_layer {name!r} is no module of the model; {hint}")


def default_layers(model: nn.Module, images: Float[Tensor, "n c h w"], scales: int = 1) -> list[nn.Module]:
    """The last layer that runs once and has a spatial output, and the last of each resolution before it, ``scales`` in all.

    At the finer resolutions a layer after a nonlinearity is preferred: before it, most of a channel is negative or cancels out.
    For a vision transformer it is one layer, the norm at the start of its last block: patches reach the class token only
    through that block's attention, so that patches after it have no gradient.

    Raises:
        ValueError: where no layer has a spatial output.
    """
    block_norm = _transformer_norm(model)
    if block_norm is not None:
        return [block_norm]
    outputs = _spatial_outputs(model, images[:1])
    if not outputs:
        raise ValueError("no layer of the model has a spatial output (n, k, h, w); name a target_layer and a reshape_transform")
    last = {size: [entry for entry in outputs if entry[1] == size] for _, size, _ in outputs}
    by_size = sorted(last.values(), key=lambda entries: outputs.index(entries[-1]), reverse=True)
    finer = [next((e for e in reversed(entries) if e[2]), entries[-1]) for entries in by_size[1:scales]]
    return [by_size[0][-1][0], *(entry[0] for entry in finer)]


def _spatial_outputs(model: nn.Module, image: Float[Tensor, "1 c h w"]) -> list[tuple[nn.Module, tuple[int, int], bool]]:
    """In order, the modules that run once and return (1, k, h, w) of the image's shape; with sizes, and whether rectified."""
    ran: list[tuple[nn.Module, tuple[int, int] | None, bool]] = []

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        del arguments
        spatial = isinstance(output, Tensor) and output.ndim == 4 and len(output) == 1 and _like(output, image)
        rectified = spatial and bool(output.relu().sum() > 10 * (-output).relu().sum())
        ran.append((module, (output.shape[-2], output.shape[-1]) if spatial else None, rectified))

    inner = [module for module in model.modules() if not isinstance(module, Classifier)]
    with torch.no_grad(), note_outputs(inner, note):
        run_model(model, image)
    times = Counter(module for module, _, _ in ran)
    return [(module, size, rectified) for module, size, rectified in ran if size is not None and times[module] == 1]


def _like(output: Tensor, image: Tensor) -> bool:
    """Whether there is more than one cell, in about the image's proportions: else a dimension can be one of channels."""
    (height, width), (h, w) = image.shape[-2:], output.shape[-2:]
    return h * w > 1 and 2 / 3 < (h / w) / (height / width) < 3 / 2


def _transformer_norm(model: nn.Module) -> nn.Module | None:
    """The first norm of the last block with a norm before its attention, as in vision transformers."""
    found = None
    for module in model.modules():
        children = dict(module.named_children())
        attention = any("attn" in name or "attention" in name for name in children)
        norms = [children[name] for name in ("norm1", "ln_1", "layernorm_before") if name in children]
        if attention and norms and isinstance(norms[0], nn.LayerNorm):
            found = norms[0]
    return found


def as_grid(activation: Tensor, layer: nn.Module, model: nn.Module, image_size: tuple[int, int]) -> ReshapeTransform:
    """The transform of this layer's output to (n, k, h, w).

    Four dimensions stay as they are, unless the layer normalises the last one: then channels are at the end, as in Swin. Three
    dimensions are tokens: the patches of the image in reading order, after prefix tokens if there are any; or, without those,
    patches that were merged two by two, once or more, as in Hugging Face's Swin.

    Raises:
        ValueError: if the tokens do not fit the image's patches.
    """
    if activation.ndim == 4:
        last = getattr(layer, "normalized_shape", None)
        return channels_first if last == (activation.shape[-1],) else _unchanged
    if activation.ndim == 3:
        tokens, grid = activation.shape[1], _patch_grid(model, image_size)
        if grid is not None and 0 <= tokens - grid[0] * grid[1] <= 16:
            return TokenGrid(grid, tokens - grid[0] * grid[1])
        while grid is not None and tokens < grid[0] * grid[1]:
            grid = (grid[0] + 1) // 2, (grid[1] + 1) // 2
            if tokens == grid[0] * grid[1]:
                return TokenGrid(grid, 0)
    shape = tuple(activation.shape)
    raise ValueError(f"the target layer returns {shape} for images of {image_size}; give a reshape_transform to (n, k, h, w)")


def _unchanged(activation: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k h w"]:
    return activation


def channels_first(activation: Float[Tensor, "n h w k"]) -> Float[Tensor, "n k h w"]:
    """Move channels from the end to the front, as for a Swin transformer's blocks in timm and torchvision.

    Args:
        activation: output of the layer, (images, rows, columns, channels).

    >>> channels_first(torch.zeros(1, 7, 7, 96)).shape
    torch.Size([1, 96, 7, 7])
    """
    return activation.movedim(-1, 1)


def is_patches(reshape: ReshapeTransform) -> bool:
    """Whether the cells are patches of a transformer, single or merged.

    Their centres are those of equal parts of the image. Centres by gradients would be too near to the middle, because attention
    covers the whole image.
    """
    return reshape is channels_first or isinstance(reshape, TokenGrid)


class TokenGrid:
    """Transform tokens (n, t, k) of a vision transformer to the grid of their patches.

    Args:
        grid: (rows, columns) of patches.
        prefix: number of tokens before the patches: class, distillation and register tokens.

    >>> TokenGrid((2, 3), prefix=1)(torch.arange(7.0).view(1, 7, 1)).squeeze()
    tensor([[1., 2., 3.],
            [4., 5., 6.]])
    """

    def __init__(self, grid: tuple[int, int], prefix: int = 1) -> None:
        self.grid = grid
        self.prefix = prefix

    def __call__(self, activation: Float[Tensor, "n t k"]) -> Float[Tensor, "n k h w"]:
        """The grid of the patches, without the prefix.

        Args:
            activation: tokens of the layer, with the prefix.
        """
        patches: Tensor = activation[:, self.prefix :].unflatten(1, self.grid)
        return patches.movedim(-1, 1)


def _patch_grid(model: nn.Module, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of the patches that the model's first convolution cuts an image into."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or tuple(first.kernel_size) != tuple(first.stride) or max(first.stride) == 1:
        return None
    return image_size[0] // first.stride[0], image_size[1] // first.stride[1]


@dataclass(frozen=True, eq=False)
class LayerContext:
    """The target layers of one model for images of one size.

    Attributes:
        layers: by name.
        reshape: from the output of each to (n, k, h, w).
        centres: of the rows and columns of each one's cells, in pixels.
    """

    layers: Mapping[str, nn.Module]
    reshape: Mapping[str, ReshapeTransform]
    centres: Mapping[str, tuple[Float[Tensor, " r"], Float[Tensor, " c"]]]

    def probe(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        kind: ScoreKind,
        *,
        chunk_size: int,
        autocast: torch.dtype | None = None,
    ) -> LayerProbe:
        """A probe of the model at these layers."""
        return LayerProbe(model, Score(kind), images, self.layers, self.reshape, chunk_size=chunk_size, autocast=autocast)


def target_layers(
    model: nn.Module,
    target_layer: TargetLayer,
    reshape_transform: ReshapeTransform | None,
    image: Float[Tensor, "1 c h w"],
    scales: int = 1,
    placement: Placement = "strides",
) -> LayerContext:
    """Find the layers, and in one pass over an image the shapes and places of their cells for images of its size.

    Args:
        model: in evaluation mode.
        target_layer: as the user gave it.
        reshape_transform: from the layers' outputs to (n, k, h, w); None recognises common shapes.
        image: one image.
        scales: number of resolutions that the default has a layer of.
        placement: of the cells.

    Raises:
        ValueError: for layers that do not exist or do not run once, or activations that cannot become (n, k, h, w).
    """
    size = (image.shape[-2], image.shape[-1])
    layers = find_layers(model, target_layer, image, scales)
    capture, tracker = Capture(layers), CellTracker(image)
    with torch.no_grad(), tracker.tracking(), capture.watch():
        run_model(model, image)
    reshape, centres = {}, {}
    for name, activation in capture.activations.items():
        reshape[name] = reshape_transform or as_grid(activation, layers[name], model, size)
        grid = reshape[name](activation)
        if grid.ndim != 4:
            raise ValueError(f"reshape_transform returned {tuple(grid.shape)}; give (n, k, h, w)")
        shape = (grid.shape[-2], grid.shape[-1])
        place = tracker.place(grid) if placement == "strides" else None
        if placement == "tiles" or (place is None and placement == "strides" and is_patches(reshape[name])):
            place = tiles(shape, size)
        place = place or probed(_activate(model, name, layers[name], reshape[name]), image, shape)
        centres[name] = place.centres(shape)
    return LayerContext(layers, reshape, centres)


def _activate(model: nn.Module, name: str, layer: nn.Module, reshape: ReshapeTransform) -> Activate:
    """From images to a layer's activation."""

    def activate(images: Tensor) -> Tensor:
        capture = Capture({name: layer})
        with capture.watch():
            run_model(model, images)
        return reshape(capture.activations[name])

    return activate
