"""Where Excitation Backprop stops: the layer, and where its cells stand."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.capture import Capture, uncompiled
from faithmap.layers import TargetLayer, find_layers
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request
from faithmap.methods.gradients.excitation_graph import Tape, Value
from faithmap.methods.gradients.excitation_rules import Mass, Walk
from faithmap.model import Classifier, plain_name
from faithmap.placement import Trail, probed
from faithmap.probe import run_model
from faithmap.score import ScoreKind, logits_of
from faithmap.warning_types import FaithmapWarning

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


NO_DUAL = (
    "nothing inhibits the score, and the contrastive map is the plain one; so it is where a model rectifies behind its last "
    "weights, as SqueezeNet does"
)


@dataclass(eq=False)
class ExcitationBackprop(Explainer):
    """Excitation Backprop: the marginal winning probability of a layer's cells.

    Args:
        target_layer: where the walk stops: a module, its dotted name, ``"input"`` for the pixels, or None: the first layer at
            the second coarsest resolution that every path passes and that is never negative, as the authors' pool4 of VGG-16
            and res4a of ResNet.

    Networks of weighted sums and rectifications are covered, listed in docs/methods/excitation_backprop.md; another operation
    between the layer and the score is a ValueError that names it. The walk begins at the class's logit whatever the ``score``;
    a callable target has to be a weighted sum of logits. Cells stand where the layer looks, the rest is explained at
    :class:`faithmap.methods.Explainer`.
    """

    score: ScoreKind = "logit"
    target_layer: TargetLayer = None
    _stops: dict[Any, Stop] = field(default_factory=dict, init=False, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data; the layer by its name."""
        found = next(reversed(self._stops.values()), None)
        given = self.target_layer
        name = found.name if found is not None else given if given is None or isinstance(given, str) else type(given).__name__
        return {**super().settings, "target_layer": name}

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean one, and one that is followed and walked down."""
        del image
        return Passes(2, 1)

    def _explain(self, request: Request) -> RawHeatmap:
        stop, count = self._stop(request.images[:1]), len(request.images)
        maps, found = [], []
        for numbers in torch.arange(count, device=request.images.device).split(self.chunk_size):
            mass = list(self._winning(request, numbers, stop).values())
            if not mass:
                raise ValueError(f"target_layer {stop.name!r} does not feed the score; give a layer that does")
            heatmap, said = self._mapped(torch.stack(mass).sum(dim=(0, 2)))
            maps.append(heatmap)
            found += said
            request.progress(int(numbers[-1]) + 1, count)
        passes = {"forward_passes": 2, "backward_passes": 1, "target_layer": [stop.name]}
        return RawHeatmap(torch.cat(maps), [{**passes, **said} for said in found], stop.rows, stop.columns)

    def _stop(self, image: Float[Tensor, "1 c h w"]) -> Stop:
        given = self.target_layer
        key = (str(given) if isinstance(given, (str, list)) else id(given), tuple(image.shape))
        if key not in self._stops:
            self._stops[key] = find_stop(self.model, self.target_layer, image)
        return self._stops[key]

    def _winning(self, request: Request, numbers: Tensor, stop: Stop) -> Mass:
        """The mass at the layer, for some of the images."""
        images = request.images[numbers]
        tape = Tape(images)
        entered: list[Value] = [] if stop.layer is not None else [tape.images]

        def enter(activation: Tensor) -> Tensor:
            entered.append(tape.enter(activation))
            return activation

        capture = Capture({} if stop.layer is None else {stop.name: stop.layer})
        with torch.no_grad(), tape.naming(self.model), capture.watch(enter, keep=False), tape:
            output = run_model(self.model, images, self.autocast)
            explained = logits_of(output) if request.score.function is None else request.score(output, numbers)
            top = tape.of(explained)
        if top is None:
            raise ValueError("the score does not hang on the image through operations that can be followed")
        start = torch.ones_like(explained)
        if request.score.classes is not None:
            start = torch.zeros_like(explained).scatter(1, request.score.classes[numbers].unsqueeze(1), 1)
        return self._walk(request, numbers, top, start, entered[0])

    def _walk(self, request: Request, numbers: Tensor, top: Value, start: Tensor, stop: Value) -> Mass:
        """The mass that arrives of one that starts at the top."""
        del request, numbers
        return Walk().down(top, {True: start}, stop)

    def _mapped(self, winning: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n h w"], list[dict[str, float]]]:
        """The heatmap of what arrived, and what there is to say of it."""
        mass = winning.sum(dim=(1, 2), keepdim=True)
        return (winning / mass).where(mass > 0, 0), [{"mass": value} for value in mass.flatten().tolist()]


@dataclass(eq=False)
class ContrastiveExcitationBackprop(ExcitationBackprop):
    """Contrastive Excitation Backprop: what wins for the class, less what wins for its dual unit.

    Args:
        relu: take away what is negative, as the paper does; False gives signed maps, which sum to about 0.
    """

    relu: bool = True

    def _walk(self, request: Request, numbers: Tensor, top: Value, start: Tensor, stop: Value) -> Mass:
        walk = Walk()
        inhibition = walk.excitation(top, False)
        none = torch.zeros_like(start) if inhibition is None else inhibition
        for row in (~((none * start).view(len(numbers), -1).sum(dim=1) > 0)).nonzero().flatten().tolist():
            request.warn(int(numbers[row]), NO_DUAL, FaithmapWarning)
        return walk.down(top, {True: start, False: -start}, stop)

    def _mapped(self, winning: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n h w"], list[dict[str, float]]]:
        return winning.relu() if self.relu else winning, [{} for _ in winning]


MWP = ExcitationBackprop
"""The name that tables of the pointing game have for it."""

ContrastiveMWP = ContrastiveExcitationBackprop
"""c-MWP, likewise."""
