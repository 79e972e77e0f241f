r"""Probe: all passes of a user's model.

Every pass of a model goes through :func:`run_model`. A probe adds what all methods and metrics need: it splits images into
chunks, sets the precision, and counts the forward and backward passes of each image. Its three kinds differ in what they vary:

============  ==============================  ====================================================================
InputProbe    the pixels                      scores, and gradients to the pixels
MaskProbe     masks between image and baseline  scores of :math:`\Phi(I, M)`, and gradients to the masks
LayerProbe    the pixels                      scores, with activations and gradients at some layers
============  ==============================  ====================================================================

Passes are counted for each of the n images that are explained. ``index`` is the explained image of each row.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from faithmap.baselines import BASELINES, is_recognised, recognised_message, upsample
from faithmap.capture import Capture
from faithmap.model import Classifier, pass_autocast, undisturbed, weights_dtype
from faithmap.score import (
    OutputKind,
    Score,
    ScoreKind,
    Target,
    at_least_single,
    logits_of,
    probabilities_of,
    resolve,
    summed_gradients,
    sums_to_one,
    usable_output,
    within_unit_interval,
)
from faithmap.warning_types import OutputsWarning, warn

Disturbance: TypeAlias = Callable[[Float[Tensor, "m c h w"], Int[Tensor, " m"]], Float[Tensor, "m c h w"]]
"""From composed images and the index of each to disturbed ones, such as noisy or shifted copies; never in place."""

Layers: TypeAlias = Mapping[str, Tensor]
"""One tensor (m, k, h, w) for each target layer."""


def run_model(model: nn.Module, images: Float[Tensor, "m c h w"], autocast: torch.dtype | None = None) -> Any:
    """The model's output for a chunk of images. No other function of the library calls a model.

    The model gets images in its own dtype, in memory of its own, into which it may write. Floating-point tensors in its output
    are in single precision or better.

    Args:
        model: in evaluation mode.
        images: a chunk.
        autocast: a lower precision for the pass; None for that of the caller's ``torch.autocast``, if there is one.

    >>> run_model(torch.nn.Flatten(), torch.ones(1, 1, 1, 2))
    tensor([[1., 1.]])
    """
    # a Classifier normalises the images, so that its module gets new memory; and casts them to the module's dtype
    given = images if isinstance(model, Classifier) else images.to(weights_dtype(model) or images.dtype, copy=True)
    with pass_autocast(images.device, autocast):
        output = model(given)
    return usable_output(output) if isinstance(output, Tensor) else tree_map_only(Tensor, usable_output, output)


@dataclass
class Probe:
    """Runs a model, and counts the passes of each image.

    Attributes:
        model: takes images, in evaluation mode, its weights frozen.
        score: reads the explained number off the model's output.
        images: those that are explained.
        chunk_size: images in one pass, at most.
        autocast: a lower precision for the passes, or None.
        forward: passes of each image so far.
        backward: likewise.
    """

    model: nn.Module
    score: Score
    images: Float[Tensor, "n c h w"]
    _: KW_ONLY
    chunk_size: int = 32
    autocast: torch.dtype | None = None
    forward: Int[Tensor, " n"] = field(init=False)
    backward: Int[Tensor, " n"] = field(init=False)

    def __post_init__(self) -> None:
        self.forward = torch.zeros(len(self.images), dtype=torch.long, device=self.images.device)
        self.backward = self.forward.clone()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.images.shape[-2], self.images.shape[-1]

    def output(self, z: Float[Tensor, "m c h w"], index: Int[Tensor, " m"]) -> Any:
        """The model's output for a chunk of images."""
        self.forward += self._count(index)
        return run_model(self.model, z, self.autocast)

    def inside(self, module: nn.Module) -> Probe:
        """The same probe of a module inside the model; both count passes together."""
        inner = copy.copy(self)
        inner.model = module
        return inner

    def count_backward(self, index: Int[Tensor, " m"]) -> None:
        """Count a backward pass for each row."""
        self.backward += self._count(index)

    def _count(self, index: Int[Tensor, " m"]) -> Int[Tensor, " n"]:
        return index.bincount(minlength=len(self.images))

    def _scored(self, z: Float[Tensor, "m c h w"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        return self.score(self.output(z, index), index)

    def _chunks(self, count: int) -> list[slice]:
        return [slice(start, start + self.chunk_size) for start in range(0, count, self.chunk_size)]


class InputProbe(Probe):
    """Scores of any images that were made from the explained ones, and their gradients to the pixels.

    >>> probe = InputProbe(torch.nn.Flatten(), Score("logit", classes=torch.tensor([1])), torch.zeros(1, 1, 1, 2))
    >>> probe.gradients(torch.ones(3, 1, 1, 2), index=torch.tensor([0, 0, 0]))[0], probe.backward
    (tensor([[[0., 1.]]]), tensor([3]))
    """

    @torch.no_grad()
    def scores(self, z: Float[Tensor, "m c h w"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The score of each image."""
        return torch.cat([self._scored(z[rows], index[rows]) for rows in self._rows(z)])

    def gradients(self, z: Float[Tensor, "m c h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        """The gradient of each image's score to its pixels."""
        gradients = []
        for rows in self._rows(z):
            self.count_backward(index[rows])
            part = z[rows].detach().requires_grad_()
            with torch.enable_grad():
                score = self._scored(part, index[rows])
            (gradient,) = summed_gradients(score, [part])
            gradients.append(at_least_single(gradient))
        return torch.cat(gradients)

    def _rows(self, z: Float[Tensor, "m c h w"]) -> tuple[Int[Tensor, " k"], ...]:
        """The rows of each chunk, as a tensor: indexing by one copies the chunk."""
        rows: tuple[Tensor, ...] = torch.arange(len(z), device=z.device).split(self.chunk_size)
        return rows


def rows_of(values: Float[Tensor, "n c h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "k c h w"]:
    """``values[index]``; on a CPU one row to broadcast if all are the same, as in most chunks of a path.

    On a CPU the copy of a chunk of images costs several percent of the model's passes. On an accelerator the copy is faster
    than the comparison, whose result has to reach the host.

    >>> rows_of(torch.arange(3.0).view(3, 1, 1, 1), torch.tensor([2, 2])).shape
    torch.Size([1, 1, 1, 1])
    """
    if index.device.type == "cpu" and len(index) > 0 and bool((index == index[0]).all()):
        return values[int(index[0])].unsqueeze(0)
    return values[index]


def recognised_baselines(
    probe: InputProbe,
    index: Int[Tensor, " m"],
    of_baseline: Float[Tensor, " m"],
    of_image: Float[Tensor, " m"],
    uninformed: float,
) -> Iterator[tuple[int, str]]:
    """Each image whose class the model still recognises in its baseline: its number, and the message for the user.

    Args:
        probe: of the explained images, its score the probability of the class; runs over all named baselines.
        index: numbers of the images that are tested.
        of_baseline: probabilities of the class in their baselines.
        of_image: its probabilities in the images.
        uninformed: its probability if the model knows nothing.
    """
    for i in is_recognised(of_baseline, of_image, uninformed).nonzero().flatten().tolist():
        number = index[i : i + 1]
        probability = partial(probe.scores, index=number.expand(len(BASELINES)))
        scores = float(of_baseline[i]), float(of_image[i])
        yield int(number), recognised_message(probability, probe.images[number], *scores, uninformed)


@dataclass
class MaskProbe(Probe):
    """Scores of masked versions of the images, and their gradients to the masks.

    The order of the masks and the size of the chunks do not change a result beyond rounding.

    Attributes:
        baseline: one for each image; shown where its mask is 0.

    >>> ones = torch.ones(1, 1, 1, 2)
    >>> probe = MaskProbe(torch.nn.Flatten(), Score("logit", classes=torch.tensor([1])), ones, 0 * ones)
    >>> probe.scores(torch.tensor([[[1.0, 0.25]]]), index=torch.tensor([0]))
    tensor([0.2500])
    """

    baseline: Float[Tensor, "n c h w"]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.images, self.baseline = self.images.contiguous(), self.baseline.contiguous()
        self.difference = self.images - self.baseline

    @torch.no_grad()
    def scores(self, masks: Float[Tensor, "m r c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """f(Phi(I_i, M)) for every mask M of image i."""
        scores = []
        for rows in self._chunks(len(masks)):
            up = upsample(masks[rows].unsqueeze(1), self.size)
            scores.append(self._scored(self._composed(up, index[rows]), index[rows]))
        return torch.cat(scores)

    def gradients(
        self,
        masks: Float[Tensor, "n r c"],
        index: Int[Tensor, " m"],
        shares: Float[Tensor, " m"],
        disturb: Disturbance | None = None,
    ) -> Float[Tensor, "n r c"]:
        r"""Sum over all rows of image i of :math:`\partial f(D(\Phi(I_i, a M_i))) / \partial M_i`.

        Args:
            masks: one for each image.
            index: the image of each row.
            shares: a, the factor of the mask in each row.
            disturb: D, such as added noise or a shift; differentiated like the rest.

        The chain rule is written out, so that no graph is kept below the composed image: with :math:`z` that image, the
        gradient to the upsampled mask is :math:`a \sum_c (\partial f / \partial z)_c (I - b)_c`, summed over the rows
        before the adjoint of the upsampling is applied once.
        """
        masks = masks.detach().requires_grad_()
        with torch.enable_grad():
            upsampled = upsample(masks.unsqueeze(1), self.size)
        total = torch.zeros_like(upsampled)
        for rows in self._chunks(len(index)):
            i, share = index[rows], shares[rows].view(-1, 1, 1, 1)
            up = rows_of(upsampled.detach(), i) * share
            gradient = self._gradient(up, i, disturb).mul_(self._change(up, i))
            total.index_add_(0, i, gradient.sum(dim=1, keepdim=True).mul_(share))
        return torch.autograd.grad(upsampled, masks, total)[0]

    def _gradient(
        self, up: Float[Tensor, "m 1 h w"], index: Int[Tensor, " m"], disturb: Disturbance | None
    ) -> Float[Tensor, "m c h w"]:
        """The gradient of the score to the composed images."""
        self.count_backward(index)
        z = self._composed(up, index).requires_grad_()
        with torch.enable_grad():
            scores = self._scored(z if disturb is None else disturb(z, index), index)
            return summed_gradients(scores, [z])[0]

    def _composed(self, up: Float[Tensor, "m 1 h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        return torch.addcmul(rows_of(self.baseline, index), up, rows_of(self.difference, index))

    def _change(self, up: Float[Tensor, "m 1 h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "k c h w"]:
        """The derivative of the composed images to their upsampled masks."""
        del up
        return rows_of(self.difference, index)


@dataclass(frozen=True, eq=False)
class Pass:
    """The results of one pass over m images.

    Attributes:
        score: of each.
        activation: of each layer; empty where none is kept.
        gradient: of the score to each activation; empty after a pass without gradients.
    """

    score: Float[Tensor, " m"]
    activation: Layers
    gradient: Layers

    def at(self, rows: Int[Tensor, " k"]) -> Pass:
        """The results of some of the images."""
        rows = rows.to(self.score.device)
        parts = ({name: values[rows] for name, values in part.items()} for part in (self.activation, self.gradient))
        return Pass(self.score[rows], *parts)


@dataclass
class LayerProbe(Probe):
    """Scores of images, with the activations of some layers and the score's gradients to them.

    Attributes:
        layers: modules by name.
        reshape: makes (n, k, h, w) of each layer's activation.
        parts: of the layers that return several tensors, the index of the activation among them.
    """

    layers: Mapping[str, nn.Module]
    reshape: Mapping[str, Callable[[Tensor], Tensor]]
    parts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._capture = Capture(self.layers, self.parts)

    def clean(
        self, target: Target, kind: ScoreKind, *, gradient: bool
    ) -> tuple[Float[Tensor, "n classes"] | None, Score, Pass]:
        """A pass over the explained images themselves, which resolves the target, also for this probe.

        One forward pass serves both: a class that the model predicts is known before the gradient is taken.

        Returns:
            The logits (None for a callable target), the score of the resolved target, and the results.
        """
        resolver = _TargetResolver(self.model, self.images, target, kind, self.autocast)
        passes = []
        for rows in self._chunks(len(self.images)):
            index = torch.arange(len(self.images), device=self.images.device)[rows]
            passes.append(self._pass(self.images[rows], partial(resolver, index=index), index, gradient=gradient))
        logits, self.score = resolver.result()
        return logits, self.score, joined(passes)

    def observe(self, z: Float[Tensor, "m c h w"], index: Int[Tensor, " m"], *, keep: bool = True) -> Pass:
        """One pass with gradients over at most a chunk of images.

        Args:
            z: the images.
            index: the explained image that each was made from.
            keep: whether the activations are needed.
        """
        return self._pass(z, lambda output: self.score(output, index), index, gradient=True, keep=keep)

    def without_channels(self, image: int, layer: str, channels: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The score of one image with one channel of a layer after the other set to 0; at most a chunk of channels."""

        def without(activation: Tensor) -> Tensor:
            changed = activation.clone()
            self.reshape[layer](changed)[torch.arange(len(channels)), channels] = 0
            return changed

        index = torch.full_like(channels, image)
        with torch.no_grad(), Capture({layer: self.layers[layer]}, self.parts).watch(without):
            output = self.output(self.images[image].expand(len(index), -1, -1, -1), index)
        return self.score(output, index)

    def _pass(
        self,
        z: Tensor,
        score: Callable[[Any], Tensor],
        index: Int[Tensor, " m"],
        *,
        gradient: bool,
        keep: bool = True,
    ) -> Pass:
        output = self._captured(z, index, gradient=gradient, keep=keep)
        with torch.set_grad_enabled(gradient):
            values = score(output)
        kept = self._capture.activations.items() if keep else ()
        activation = {name: at_least_single(self.reshape[name](a.detach())) for name, a in kept}
        gradients: dict[str, Tensor] = {}
        if gradient:
            self.count_backward(index)
            found = self._capture.gradients(values).items()
            gradients = {name: at_least_single(self.reshape[name](g)) for name, g in found}
        self._capture.activations = {}
        return Pass(values.detach(), activation, gradients)

    def _captured(self, z: Tensor, index: Int[Tensor, " m"], *, gradient: bool, keep: bool) -> Any:
        """The model's output, its layers captured, gradients off up to the first of them.

        A second pass, with gradients on from the start, if the model sets the gradient mode itself and has ended with
        gradients off.
        """
        for mode in (self._capture.late_gradients, torch.enable_grad) if gradient else (torch.no_grad,):
            with mode(), self._capture.watch(keep=keep):
                output = self.output(z, index)
                if torch.is_grad_enabled() == gradient:
                    break
        return output


def joined(passes: list[Pass]) -> Pass:
    """The results of several passes behind each other."""
    if len(passes) == 1:
        return passes[0]
    return Pass(
        torch.cat([p.score for p in passes]),
        {name: torch.cat([p.activation[name] for p in passes]) for name in passes[0].activation},
        {name: torch.cat([p.gradient[name] for p in passes]) for name in passes[0].gradient},
    )


@torch.no_grad()
def clean_scores(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    target: Target,
    kind: ScoreKind,
    chunk_size: int,
    autocast: torch.dtype | None = None,
) -> tuple[Float[Tensor, "n classes"] | None, Score, Float[Tensor, " n"]]:
    """The logits of the clean images (None for a callable target), the score of the resolved target, and its values.

    >>> logits, score, values = clean_scores(torch.nn.Flatten(), torch.tensor([[[[0.0, 3.0]]]]), None, "logit", 32)
    >>> score.classes, values
    (tensor([1]), tensor([3.]))
    """
    resolver = _TargetResolver(model, images, target, kind, autocast)
    everything = torch.arange(len(images), device=images.device)
    values = [resolver(run_model(model, images[index], autocast), index) for index in everything.split(chunk_size)]
    return *resolver.result(), torch.cat(values)


def class_probabilities(model: nn.Module, images: Float[Tensor, "n c h w"], chunk_size: int = 32) -> Float[Tensor, "n classes"]:
    """The probabilities of all classes.

    Args:
        model: a classifier.
        images: those to classify.
        chunk_size: maximum number of images in one pass.

    >>> class_probabilities(torch.nn.Flatten(), torch.zeros(1, 1, 1, 2))
    tensor([[0.5000, 0.5000]])
    """
    with undisturbed(model), torch.no_grad():
        values = torch.cat([logits_of(run_model(model, chunk)) for chunk in images.split(chunk_size)])
        return probabilities_of(values, outputs_of(model, images, values))


def outputs_of(
    model: nn.Module, images: Float[Tensor, "m c h w"], output: Any, autocast: torch.dtype | None = None
) -> OutputKind:
    """What a classifier returns: as a Classifier says, else logits, unless the outputs are seen to be probabilities.

    They are if rows are at least 0 and sum to 1, for these images and for changed ones, or if their last operation is a
    sigmoid. Then a warning says so. Logits are practically never all in [0, 1]: only an output that is costs further passes.

    Args:
        model: a Classifier, or any other module.
        images: some images.
        output: of the model for them.
        autocast: precision of further passes.

    >>> outputs_of(torch.nn.Flatten(), torch.ones(1, 1, 1, 2), torch.ones(1, 2))
    'logits'
    """
    stated = getattr(model, "outputs", None)
    if isinstance(stated, str) and stated in get_args(OutputKind):
        return cast(OutputKind, stated)
    values = logits_of(output).detach()
    if not within_unit_interval(values):
        return "logits"
    first = images[:1]
    with torch.enable_grad():
        variants = torch.cat([first, first.flip(-1), first.flip(-2), 0.5 * first]).detach().requires_grad_()
        tested = logits_of(run_model(model, variants, autocast))
    if not within_unit_interval(tested.detach()):
        return "logits"
    if sums_to_one(values) and sums_to_one(tested.detach()):
        sign = "rows are at least 0 and sum to 1"
    elif _last_operation(tested).startswith("Sigmoid"):
        sign = "the model ends with a sigmoid"
    else:
        return "logits"
    warn(
        f"the model returns probabilities ({sign}), which are taken as they are; give Classifier(outputs='probabilities') to "
        "confirm, or outputs='logits' to explain their softmax",
        OutputsWarning,
    )
    return "probabilities"


def _last_operation(output: Tensor) -> str:
    """Name of the operation in the graph that made the output, apart from those that only convert or reshape it."""
    node = output.grad_fn
    while node is not None and node.name().startswith(_CONVERSIONS) and node.next_functions:
        node = node.next_functions[0][0]
    return "" if node is None else node.name()


_CONVERSIONS = ("ToCopy", "View", "Reshape", "Squeeze", "Unsqueeze", "Clone", "Alias", "Slice")


def random_state(device: torch.device) -> Tensor:
    """The state of torch's global generator of random numbers for a device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@torch.no_grad()
def warn_if_random(
    model: nn.Module, images: Float[Tensor, "n c h w"], earlier: Tensor, autocast: torch.dtype | None = None
) -> None:
    """Warn if two passes of one image differ, as with a dropout that is on in evaluation mode.

    Only a model that has drawn random numbers is tested.

    Args:
        model: in evaluation mode.
        images: some images.
        earlier: :func:`random_state` before the first pass.
        autocast: precision of the passes.
    """
    if torch.equal(earlier, random_state(images.device)):
        return
    first, second = (tree_leaves(run_model(model, images[:1], autocast)) for _ in range(2))
    if any(isinstance(a, Tensor) and not torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        warn(
            "two passes of the same image differ: the model draws random numbers in evaluation mode, such as F.dropout(x) "
            "without training=self.training; maps and scores of such a model differ from call to call",
            OutputsWarning,
        )


class _TargetResolver:
    """Resolves a target with the outputs for the clean images, chunk by chunk, and keeps their logits."""

    def __init__(self, model: nn.Module, images: Tensor, target: Target, kind: ScoreKind, autocast: torch.dtype | None) -> None:
        self.model, self.images, self.target, self.kind, self.autocast = model, images, target, kind, autocast
        self.count = len(images)
        self._random_state = random_state(images.device)
        self._outputs: OutputKind | None = None
        self._score: Score | None = None
        self._logits: list[Tensor] = []
        self._classes: list[Tensor] = []

    def __call__(self, output: Any, index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The scores of a chunk; ``index`` is the image of each row."""
        if self._outputs is None:
            is_class = not callable(self.target) or isinstance(self.target, Tensor)
            warn_if_random(self.model, self.images, self._random_state, self.autocast)
            self._outputs = outputs_of(self.model, self.images, output, self.autocast) if is_class else "logits"
        count = len(index) if self.target is None else self.count
        score = resolve(self.target, output, self.kind, count, self._outputs)
        own = self._score = score if self.target is None else score.of(index)
        if own.classes is not None:
            self._logits.append(logits_of(output).detach())
            self._classes.append(own.classes)
        return own(output, torch.arange(len(index), device=index.device))

    def result(self) -> tuple[Float[Tensor, "n classes"] | None, Score]:
        """The logits (None for a callable target) and the score, when all chunks are through."""
        if not self._logits or self._score is None:
            return None, resolve(self.target, None, self.kind, self.count)
        return torch.cat(self._logits), replace(self._score, classes=torch.cat(self._classes))
