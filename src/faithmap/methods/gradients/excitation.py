r"""Excitation Backprop: the probability that a random walk down from the class passes a cell (Zhang et al. 2016, 2018).

The walk starts at the class's output unit, with probability 1. From each unit it moves to one of the units below that excite
it, with a probability in proportion to what each contributes (:mod:`faithmap.methods.gradients.excitation_rules`). The heatmap
is the *marginal winning probability* (MWP) at a layer, summed over the channels, given that the walk reaches the layer: it may
end before, at a unit that only its bias excites, or bypass the layer. The map sums to 1.

The contrastive map (c-MWP) subtracts the walk from the dual unit, which has the class's weights with the other sign:

.. math:: relu\Bigl(\sum_k P_k - \bar P_k\Bigr)

Every step is linear in P, so that the difference of the two walks is one walk of the difference, taken at the layer right below
the output unit.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.capture import Capture, note_outputs
from faithmap.layers import TargetLayer, find_layers, target_layers
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request, rows_and_columns
from faithmap.methods.controls import Resolution
from faithmap.methods.gradients.excitation_graph import UNCHANGED, Recorder, Value
from faithmap.methods.gradients.excitation_rules import Mass, Walk
from faithmap.model import Classifier, check_observable
from faithmap.probe import run_model
from faithmap.score import ScoreKind, logits_of
from faithmap.warning_types import FaithmapWarning

INPUT = "input"
"""The name of the image itself as a target layer."""

NO_DUAL = (
    "nothing inhibits the score, so the contrastive map is the plain map; this is so where a model rectifies after its last "
    "weights, as SqueezeNet does"
)


@dataclass(eq=False)
class ExcitationBackprop(Explainer):
    """Excitation Backprop: the marginal winning probability of a layer's cells.

    Networks of weighted sums and rectifications are supported, listed in docs/methods/excitation_backprop.md. Another operation
    between the layer and the score is a ValueError that names it. The walk starts at the class's logit whatever the ``score``,
    and also if the model returns probabilities; a callable target has to be a weighted sum of logits. An image takes two
    forward passes and a backward pass.

    Args:
        target_layer: where the walk stops: a module, its dotted name, ``"input"`` for the pixels, or None: the first layer at
            the second coarsest resolution that all paths pass and that is never negative, as the authors' pool4 of VGG-16
            and res4a of ResNet.
        resolution: in place of a layer, cells per side, or (rows, columns): the first layer of that resolution that all paths
            pass, one that is never negative if there is one; the pixels, if it is the image's own. So VGG's maps of 224, 112,
            28 and 14 cells are taken at the pixels and at pool1, pool3 and pool4.

    >>> model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(2, 1, bias=False))
    >>> for weighted in (model[0], model[3]):
    ...     _ = nn.init.ones_(weighted.weight)
    >>> ExcitationBackprop(model, target_layer="input")(torch.tensor([[[[1.0, 3.0]]]]), lambda output: output[:, 0]).heatmap
    tensor([[[0.2500, 0.7500]]])
    """

    title: ClassVar[str] = "excitation backprop"
    score: ScoreKind = "logit"
    target_layer: TargetLayer = None
    resolution: Resolution | None = None
    _targets: dict[Any, ExcitationTarget] = field(default_factory=dict, init=False, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data; the layer by its name."""
        found = next(reversed(self._targets.values()), None)
        given = self.target_layer
        name = found.name if found is not None else given if given is None or isinstance(given, str) else type(given).__name__
        return {**super().settings, "target_layer": name}

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean pass, and one whose operations are recorded and passed backward."""
        del image
        return Passes(2, 1)

    def _explain(self, request: Request) -> RawHeatmap:
        target, count = self._target(request.images[:1]), len(request.images)
        maps, found = [], []
        for numbers in torch.arange(count, device=request.images.device).split(self.chunk_size):
            mass = list(self._winning(request, numbers, target).values())
            if not mass:
                raise ValueError(f"target_layer {target.name!r} does not feed the score; give a layer that does")
            heatmap, diagnostics = self._mapped(torch.stack(mass).sum(dim=(0, 2)))
            maps.append(heatmap)
            found += diagnostics
            request.progress(int(numbers[-1]) + 1, count)
        passes = {"forward_passes": 2, "backward_passes": 1, "target_layer": [target.name]}
        return RawHeatmap(torch.cat(maps), [{**passes, **diagnostics} for diagnostics in found], target.rows, target.columns)

    def _target(self, image: Float[Tensor, "1 c h w"]) -> ExcitationTarget:
        given = self.target_layer
        layer = str(given) if isinstance(given, (str, list, tuple)) else id(given)
        key = layer, self.resolution, tuple(image.shape)
        if key not in self._targets:
            self._targets[key] = excitation_target(self.model, given, image, self.resolution)
        return self._targets[key]

    def _winning(self, request: Request, numbers: Tensor, target: ExcitationTarget) -> Mass:
        """The mass at the layer, for some of the images."""
        images = request.images[numbers]
        recorder = Recorder(images)
        end: list[Value] = [] if target.layer is not None else [recorder.images]

        def cut(activation: Tensor) -> Tensor:
            end.append(recorder.cut(activation))
            return activation

        capture = Capture({} if target.layer is None else {target.name: target.layer})
        with torch.no_grad(), recorder.naming(self.model), capture.watch(cut, keep=False), recorder.recording():
            output = run_model(self.model, images, self.autocast)
            explained = logits_of(output) if request.score.function is None else request.score(output, numbers)
            top = recorder.value(explained)
        if top is None:
            raise ValueError("the score does not depend on the image through operations that can be recorded")
        start = torch.ones_like(explained)
        if request.score.classes is not None:
            top = _before_probabilities(top)
            start = torch.zeros_like(explained).scatter(1, request.score.classes[numbers].unsqueeze(1), 1)
        return self._walk(request, numbers, top, start, end[0])

    def _walk(self, request: Request, numbers: Tensor, top: Value, start: Tensor, end: Value) -> Mass:
        """The mass at the end value for a mass at the explained value."""
        del request, numbers
        return Walk().down(top, {True: start}, end)

    def _mapped(self, winning: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n h w"], list[dict[str, float]]]:
        """The heatmap, and diagnostics of each image."""
        mass = winning.sum(dim=(1, 2), keepdim=True)
        return (winning / mass).where(mass > 0, 0), [{"mass": value} for value in mass.flatten().tolist()]


@dataclass(eq=False)
class ContrastiveExcitationBackprop(ExcitationBackprop):
    """Contrastive Excitation Backprop: the winning probability for the class minus that for its dual unit.

    Args:
        relu: set negative values to 0, as the paper does; False gives signed maps, which sum to about 0.

    >>> model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(2, 1, bias=False))
    >>> model[2].weight.data = torch.tensor([[1.0, -1.0]])
    >>> explainer = ContrastiveExcitationBackprop(model, target_layer="input", relu=False)
    >>> explainer(torch.tensor([[[[1.0, 3.0]]]]), lambda output: output[:, 0]).heatmap
    tensor([[[ 1., -1.]]])
    """

    title: ClassVar[str] = "contrastive excitation backprop"
    relu: bool = True

    def _walk(self, request: Request, numbers: Tensor, top: Value, start: Tensor, end: Value) -> Mass:
        walk = Walk()
        inhibition = walk.excitation(top, False)
        none = torch.zeros_like(start) if inhibition is None else inhibition
        for row in (~((none * start).view(len(numbers), -1).sum(dim=1) > 0)).nonzero().flatten().tolist():
            request.warn(int(numbers[row]), NO_DUAL, FaithmapWarning)
        return walk.down(top, {True: start, False: -start}, end)

    def _mapped(self, winning: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n h w"], list[dict[str, float]]]:
        return winning.relu() if self.relu else winning, [{} for _ in winning]


def _before_probabilities(top: Value) -> Value:
    """The logits, if the top is their softmax or sigmoid: only its own logit excites the probability of a class."""
    value = top
    while value.operation.name in UNCHANGED:
        (value,) = value.operation.inputs
    return value.operation.inputs[0] if value.operation.name in ("_softmax", "sigmoid") else top


MWP = ExcitationBackprop
"""The name in tables of the pointing game."""

ContrastiveMWP = ContrastiveExcitationBackprop
"""c-MWP, likewise."""


@dataclass(frozen=True, eq=False)
class ExcitationTarget:
    """The layer, or the image, whose cells get the winning probabilities.

    Attributes:
        name: dotted, or ``"input"``.
        layer: None for the image.
        rows: centres of the rows of its cells, in pixels; None for the image's own.
        columns: likewise.
    """

    name: str
    layer: nn.Module | None = None
    rows: Float[Tensor, " r"] | None = None
    columns: Float[Tensor, " c"] | None = None


@dataclass(frozen=True)
class _Checked:
    """The activation of a layer, which has to be (n, k, h, w) already."""

    name: str

    def __call__(self, activation: Tensor) -> Float[Tensor, "n k h w"]:
        if activation.ndim != 4:
            shape = tuple(activation.shape)
            raise ValueError(f"target_layer {self.name!r} returns {shape}; give a layer that returns (n, k, h, w)")
        return activation


def excitation_target(
    model: nn.Module, target_layer: TargetLayer, image: Float[Tensor, "1 c h w"], resolution: Resolution | None = None
) -> ExcitationTarget:
    """The layer that the user gives, the first of the given resolution, or the default.

    Raises:
        ValueError: for a layer that does not exist, does not run once, or does not return (n, k, h, w); for several; or for a
            resolution that no layer has, or that is given with a layer.
    """
    check_observable(model)
    if resolution is not None and target_layer is not None:
        raise ValueError(f"resolution {resolution} and target_layer {target_layer!r} are both given; give one")
    given: TargetLayer = target_layer
    if resolution is not None:
        given = _layer_at(model, image, rows_and_columns(resolution))
    elif target_layer is None:
        given = _default(model, image)
    if given is None:
        return ExcitationTarget(INPUT)
    if given == INPUT or (isinstance(given, (list, tuple)) and list(given) == [INPUT]):
        return ExcitationTarget(INPUT)
    layers = find_layers(model, given, image)
    if len(layers) != 1:
        raise ValueError(f"target_layer names {len(layers)} layers; give one")
    ((name, layer),) = layers.items()
    rows, columns = target_layers(model, layer, _Checked(name), image).centres[name]
    return ExcitationTarget(name, layer, rows.to(image.device), columns.to(image.device))


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A layer that all paths pass once, its (rows, columns), and whether it is never negative."""

    layer: nn.Module
    resolution: tuple[int, int]
    never_negative: bool


def _default(model: nn.Module, image: Float[Tensor, "1 c h w"]) -> nn.Module | None:
    """The first layer of the second coarsest resolution that all paths pass, one that is never negative if there is one.

    Of the coarsest resolution if none before it is finer; None if no layer with a spatial output is passed by all paths.
    """
    candidates = _candidates(model, image)
    if not candidates:
        return None
    cells = [math.prod(candidate.resolution) for candidate in candidates]
    finer = cells[: cells.index(min(cells))]
    wanted = min(finer or cells)
    return _first([candidate for candidate, count in zip(candidates, cells, strict=True) if count == wanted])


def _layer_at(model: nn.Module, image: Float[Tensor, "1 c h w"], resolution: tuple[int, int]) -> nn.Module | None:
    """The first layer of a resolution that all paths pass, one that is never negative if any; None for the image's own size.

    Raises:
        ValueError: if there is none.
    """
    if resolution == (image.shape[-2], image.shape[-1]):
        return None
    candidates = _candidates(model, image)
    chosen = [candidate for candidate in candidates if candidate.resolution == resolution]
    if not chosen:
        offered = dict.fromkeys([tuple(image.shape[-2:]), *(candidate.resolution for candidate in candidates)])
        names = ", ".join(f"{rows}x{columns}" for rows, columns in offered)
        raise ValueError(
            f"resolution is {resolution[0]}x{resolution[1]}, which no layer that all paths pass has; give one of {names}"
        )
    return _first(chosen)


def _first(candidates: Sequence[_Candidate]) -> nn.Module:
    """The first that is never negative; the first, if none is."""
    return next((candidate.layer for candidate in candidates if candidate.never_negative), candidates[0].layer)


def _candidates(model: nn.Module, image: Float[Tensor, "1 c h w"]) -> list[_Candidate]:
    """The layers with a spatial output that all paths from the image to the logits pass, in order of execution."""
    recorder, ran = Recorder(image), list[tuple[nn.Module, Value | None, bool]]()

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        del arguments
        spatial = isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] * output.shape[-2] > 1
        ran.append((module, recorder.value(output) if spatial else None, spatial and bool((output >= 0).all())))

    inner = [module for module in model.modules() if not isinstance(module, Classifier)]
    with torch.no_grad(), note_outputs(inner, note), recorder.recording():
        output = run_model(model, image)
    top, times = recorder.value(logits_of(output)), Counter(module for module, _, _ in ran)
    passed = set() if top is None else _passed_by_all(top)
    return [
        _Candidate(module, (value.shape[-2], value.shape[-1]), never_negative)
        for module, value, never_negative in ran
        if value is not None and value in passed and times[module] == 1
    ]


def _passed_by_all(top: Value) -> set[Value | None]:
    """The values that every path from the image to the top passes."""
    found: set[Value | None] = set()
    waiting, order = {top.operation: {top}}, [(-top.operation.serial, top.operation)]
    while order:
        _, operation = heapq.heappop(order)
        values = waiting.pop(operation)
        if not order and len(values) == 1:
            found |= values
        for value in operation.inputs:
            if value.operation not in waiting:
                waiting[value.operation] = set()
                heapq.heappush(order, (-value.operation.serial, value.operation))
            waiting[value.operation].add(value)
    return found
