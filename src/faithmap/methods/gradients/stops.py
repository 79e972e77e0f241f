"""Where Excitation Backprop stops: the layer, and where its cells stand."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.capture import Capture, uncompiled
from faithmap.methods.gradients.steps import Value
from faithmap.methods.gradients.tape import Tape
from faithmap.methods.layers import find_layers
from faithmap.methods.placement import Trail
from faithmap.methods.receptive_field import probed
from faithmap.model import Classifier, plain_name
from faithmap.probe import run_model
from faithmap.score import logits_of

INPUT = "input"
"""The name of the image itself."""


@dataclass(frozen=True, eq=False)
class Stop:
    """A layer, or the image.

    Attributes:
        name: dotted, or ``"input"``.
        layer: None for the image.
        rows: where the rows of its cells stand, in pixels; None for the image's own.
        columns: likewise.
    """

    name: str
    layer: nn.Module | None = None
    rows: Float[Tensor, " r"] | None = None
    columns: Float[Tensor, " c"] | None = None


def find_stop(model: nn.Module, target_layer: Any, image: Float[Tensor, "1 c h w"]) -> Stop:
    """The layer that the user means, or the default.

    Raises:
        ValueError: for a layer that does not exist, does not run once, or returns no picture; or for several.
    """
    if target_layer is None:
        layer = _default(model, image)
        if layer is None:
            return Stop(INPUT)
    elif target_layer in (INPUT, [INPUT]):
        return Stop(INPUT)
    else:
        layers = list(find_layers(model, target_layer, image).values())
        if len(layers) != 1:
            raise ValueError(f"target_layer names {len(layers)} layers; give one")
        layer = layers[0]
    name = next(plain_name(name) for name, module in model.named_modules() if module is layer)
    return _placed(model, name, layer, image)


def _placed(model: nn.Module, name: str, layer: nn.Module, image: Float[Tensor, "1 c h w"]) -> Stop:
    capture = Capture({name: layer})
    with torch.no_grad(), Trail(image) as trail, capture.watch():
        run_model(model, image)
    activation = capture.activations[name]
    if activation.ndim != 4:
        raise ValueError(f"target_layer {name!r} returns {tuple(activation.shape)}; give a layer that returns (n, k, h, w)")

    def activate(images: Tensor) -> Tensor:
        with capture.watch():
            run_model(model, images)
        return capture.activations[name]

    shape = (activation.shape[-2], activation.shape[-1])
    rows, columns = (trail.of(activation) or probed(activate, image, shape)).centres(shape)
    return Stop(name, layer, rows.to(image.device), columns.to(image.device))


def _default(model: nn.Module, image: Float[Tensor, "1 c h w"]) -> nn.Module | None:
    """The first layer of the second coarsest resolution that all paths pass, never negative if there is such a one.

    Of the coarsest where none before it is finer, and None where no layer returns a picture that all paths pass.
    """
    tape, ran = Tape(image), list[tuple[nn.Module, Value | None, bool]]()

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        del arguments
        picture = isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] * output.shape[-2] > 1
        ran.append((module, tape.of(output) if picture else None, picture and bool((output >= 0).all())))

    handles = [m.register_forward_hook(note) for m in model.modules() if not isinstance(m, Classifier)]
    try:
        with torch.no_grad(), uncompiled(), tape:
            output = run_model(model, image)
    finally:
        for handle in handles:
            handle.remove()
    top, times = tape.of(logits_of(output)), Counter(module for module, _, _ in ran)
    passed = set() if top is None else _passed_by_all(top)
    whole = [(module, value, units) for module, value, units in ran if value in passed and times[module] == 1]
    cells = [value.shape[-2] * value.shape[-1] for _, value, _ in whole if value is not None]
    if not cells:
        return None
    finer = cells[: cells.index(min(cells))]
    there = [entry for entry, count in zip(whole, cells, strict=True) if count == min(finer or cells)]
    return next((module for module, _, units in there if units), there[0][0])


def _passed_by_all(top: Value) -> set[Value | None]:
    """The values that every path from the image to the top passes."""
    found: set[Value | None] = set()
    waiting, order = {top.step: {top}}, [(-top.step.serial, top.step)]
    while order:
        _, step = heapq.heappop(order)
        values = waiting.pop(step)
        if not order and len(values) == 1:
            found |= values
        for value in step.inputs:
            if value.step not in waiting:
                waiting[value.step] = set()
                heapq.heappush(order, (-value.step.serial, value.step))
            waiting[value.step].add(value)
    return found
