"""Target layers: their modules, their activations as (n, k, h, w), and the centres of their cells.

A layer is given as module or by name, or found (:mod:`faithmap.default_layer`). Which dimensions of its output are rows,
columns, channels or tokens is found by local changes of the image (:mod:`faithmap.layout`), if no ``reshape_transform``
is given.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, ref

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.capture import Activate, Capture, CellTracker, Placement, probed, tiles
from faithmap.default_layer import ChosenLayer, default_layer
from faithmap.layout import COUNT, Observed
from faithmap.model import check_observable, module_named, modules_of, plain_names, undisturbed, unrestricted
from faithmap.probe import LayerProbe, run_model
from faithmap.score import Score, ScoreKind

TargetLayer: TypeAlias = nn.Module | str | Sequence[nn.Module | str] | None
"""A module of the model, its dotted name, several of either, or None for the last layer that follows the image."""

ReshapeTransform: TypeAlias = Callable[[Tensor], Tensor]
"""From a layer's output to (n, k, h, w). It may only rearrange values, since gradients are rearranged with it."""

GIVEN = "given"
"""How a layer was found that the user gave."""

FAINT = 0.25
"""Below this correlation with the changed places, a given layer is refused; in few cells random values exceed it."""

KEPT = 16
"""Maximum number of contexts that are kept for one model."""


def find_layers(
    model: nn.Module, target_layer: TargetLayer, images: Float[Tensor, "n c h w"], scales: int = 1
) -> dict[str, nn.Module]:
    """The layers by their dotted names, in the order given.

    Args:
        model: whose layers they are; names count from the module inside a Classifier or a compiled model.
        target_layer: as the user gave it.
        images: for the default, of the size that the model is shown.
        scales: number of resolutions that the default has a layer of.

    Raises:
        ValueError: for a module that is not the model's, a name that does not exist (with the nearest), or no layers.
    """
    with unrestricted(model):
        chosen = _chosen(model, target_layer, images[:1], scales)
    return {name: layer.module for name, layer in chosen.layers.items()}


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Layers by name, and a warning if they were chosen with doubt."""

    layers: Mapping[str, ChosenLayer]
    doubt: str | None = None


def _chosen(model: nn.Module, target_layer: TargetLayer, image: Float[Tensor, "1 c h w"], scales: int) -> _Chosen:
    names = plain_names(model)
    name_of = {module: name for name, module in reversed(names.items())}
    if target_layer is None:
        with undisturbed(model):
            layers, doubt = default_layer(model, image, scales)
        return _Chosen({name_of[layer.module]: layer for layer in layers}, doubt)
    given = [target_layer] if isinstance(target_layer, (nn.Module, str)) else list(target_layer)
    if not given:
        raise ValueError("target_layer is empty; give a module, its name, several of either, or None")
    modules = [_by_name(entry, names, model) if isinstance(entry, str) else entry for entry in given]
    for module in modules:
        if module not in name_of:
            raise ValueError(f"target_layer {type(module).__name__} is not a module of the model; give one of model.modules()")
    return _Chosen({name_of[module]: ChosenLayer(module, 0, None, GIVEN) for module in modules})


def _by_name(name: str, names: Mapping[str, nn.Module], model: nn.Module) -> nn.Module:
    module = module_named(model, name)
    if module is not None:
        return module
    near = difflib.get_close_matches(name, [known for known in names if known], n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see model.named_modules()"
    raise ValueError(f"target_layer {name!r} is no module of the model; {hint}")


def _read(model: nn.Module, chosen: _Chosen, image: Float[Tensor, "1 c h w"]) -> _Chosen:
    """The layers that the user gave, with the layouts of their outputs, by local changes of the image.

    Raises:
        ValueError: for a layer without one entry for each image, or at which a local change is not local.
    """
    observed = Observed(model, image, [layer.module for layer in chosen.layers.values()])
    read, doubts = {}, []
    for name, layer in chosen.layers.items():
        read[name], doubt = _layer_read(name, layer, observed)
        doubts += [doubt] if doubt else []
    return _Chosen(read, "; ".join(doubts) or None)


def _layer_read(name: str, layer: ChosenLayer, observed: Observed) -> tuple[ChosenLayer, str | None]:
    best = observed.best_part(layer.module)
    outputs = [output for output in observed.outputs if output.module is layer.module]
    if best is not None and best[1].local:
        return replace(layer, part=best[0].part, layout=best[1].layout), None
    if not outputs or observed.times[layer.module] > 1:
        return layer, None  # the capture of the activation says why
    shape = outputs[0].shape
    if not outputs[0].changes:
        raise ValueError(
            f"target layer {name!r} returns {shape} for {COUNT} images, not one entry for each; give the block around it"
        )
    faint = best is not None and best[1].quality >= FAINT and best[1].layout.cells >= 36
    convolved = best is not None and best[1].layout == outputs[0].layout_by_shape and best[1].layout.cells > 1
    if best is not None and (faint or convolved):
        doubt = f"a local change of the image is hardly local at target layer {name!r}: its cells can be anywhere in the image"
        return replace(layer, part=best[0].part, layout=best[1].layout), doubt
    by_shape = None if best is not None else outputs[0].layout_by_shape
    if by_shape is not None:
        return replace(layer, part=outputs[0].part, layout=by_shape), None
    raise ValueError(
        f"target layer {name!r} returns {shape} for {COUNT} images, and a local change of the image is not local in it; "
        "give a layer before, such as a block, or a reshape_transform to (n, k, h, w)"
    )


def channels_first(activation: Float[Tensor, "n h w k"]) -> Float[Tensor, "n k h w"]:
    """Move channels from the end to the front, as for a Swin transformer's blocks in timm and torchvision.

    Args:
        activation: output of the layer, (images, rows, columns, channels).

    >>> channels_first(torch.zeros(1, 7, 7, 96)).shape
    torch.Size([1, 96, 7, 7])
    """
    return activation.movedim(-1, 1)


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


@dataclass(frozen=True, eq=False)
class LayerContext:
    """The target layers of one model for images of one size.

    Attributes:
        layers: by name.
        parts: of each one's output, the index of the activation among its tensors.
        reshape: from the activation of each to (n, k, h, w).
        centres: of the rows and columns of each one's cells, in pixels.
        found_by: how the layers were found.
        doubt: a warning if they were found with doubt.
    """

    layers: Mapping[str, nn.Module]
    parts: Mapping[str, int]
    reshape: Mapping[str, ReshapeTransform]
    centres: Mapping[str, tuple[Float[Tensor, " r"], Float[Tensor, " c"]]]
    found_by: str
    doubt: str | None = None

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
        settings: dict[str, Any] = {"chunk_size": chunk_size, "autocast": autocast}
        return LayerProbe(model, Score(kind), images, self.layers, self.reshape, self.parts, **settings)


_KNOWN: MutableMapping[nn.Module, _Known] = WeakKeyDictionary()
"""What was found for models that are still in memory."""


class _Known:
    """The target layers that were found for a model, as long as it has the same modules."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = [ref(module) for module in modules]
        self.contexts: dict[Any, LayerContext] = {}

    def fits(self, modules: Sequence[nn.Module]) -> bool:
        """Whether the model still has the same modules, in the same order."""
        return len(modules) == len(self._modules) and all(
            known() is module for known, module in zip(self._modules, modules, strict=True)
        )


def target_layers(
    model: nn.Module,
    target_layer: TargetLayer,
    reshape_transform: ReshapeTransform | None,
    image: Float[Tensor, "1 c h w"],
    scales: int = 1,
    placement: Placement = "strides",
) -> LayerContext:
    """Find the layers, and the shapes and places of their cells for images of this size.

    A few passes over noise, see :mod:`faithmap.layout`. The result is kept as long as the model has the same modules.

    Args:
        model: in evaluation mode.
        target_layer: as the user gave it.
        reshape_transform: from the layers' outputs to (n, k, h, w); None finds the layout by local changes of the image.
        image: one image.
        scales: number of resolutions that the default has a layer of.
        placement: of the cells.

    Raises:
        ValueError: for layers that do not exist or do not run once, or activations that cannot become (n, k, h, w).
    """
    modules = modules_of(model)
    if model not in _KNOWN or not _KNOWN[model].fits(modules):
        _KNOWN[model] = _Known(modules)
    given = target_layer
    entries = tuple(map(_key, given)) if isinstance(given, Sequence) and not isinstance(given, str) else _key(given)
    key = (tuple(image.shape[1:]), entries, scales, reshape_transform, placement)
    contexts = _KNOWN[model].contexts
    if key not in contexts:
        with unrestricted(model):
            contexts[key] = _context(model, target_layer, reshape_transform, image, scales, placement)
        if len(contexts) > KEPT:
            del contexts[next(iter(contexts))]
    return contexts[key]


def _key(entry: nn.Module | str | None) -> Any:
    return id(entry) if isinstance(entry, nn.Module) else entry


def _context(
    model: nn.Module,
    target_layer: TargetLayer,
    reshape_transform: ReshapeTransform | None,
    image: Float[Tensor, "1 c h w"],
    scales: int,
    placement: Placement,
) -> LayerContext:
    check_observable(model)
    size = (image.shape[-2], image.shape[-1])
    chosen = _chosen(model, target_layer, image, scales)
    if reshape_transform is None and target_layer is not None:
        chosen = _read(model, chosen, image)
    layers = {name: layer.module for name, layer in chosen.layers.items()}
    parts = {name: layer.part for name, layer in chosen.layers.items()}
    capture, tracker = Capture(layers, parts), CellTracker(image)
    with torch.no_grad(), tracker.tracking(), capture.watch():
        run_model(model, image)
    reshape, centres = {}, {}
    for name, activation in capture.activations.items():
        layout = chosen.layers[name].layout
        reshape[name] = reshape_transform or layout or _unchanged
        grid = reshape[name](activation)
        if grid.ndim != 4:
            raise ValueError(f"reshape_transform returned {tuple(grid.shape)}; give (n, k, h, w)")
        shape = (grid.shape[-2], grid.shape[-1])
        place = tracker.place(grid) if placement == "strides" else None
        patches = isinstance(reshape[name], TokenGrid) or (layout is not None and (layout.is_tokens or layout.channels_last))
        if placement == "tiles" or (place is None and placement == "strides" and patches):
            place = tiles(shape, size)
        activate = _activate(model, Capture({name: layers[name]}, parts), reshape[name])
        centres[name] = (place or probed(activate, image, shape)).centres(shape)
    found_by = next(iter(chosen.layers.values())).found_by
    return LayerContext(layers, parts, reshape, centres, found_by, chosen.doubt)


def _activate(model: nn.Module, capture: Capture, reshape: ReshapeTransform) -> Activate:
    """From images to a layer's activation."""

    def activate(images: Tensor) -> Tensor:
        with capture.watch():
            run_model(model, images)
        return reshape(next(iter(capture.activations.values())))

    return activate


def _unchanged(activation: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k h w"]:
    return activation
