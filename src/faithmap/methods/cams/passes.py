"""What the methods of this wing ask a model: the score, and at some layers the activation and the gradient, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.capture import Capture
from faithmap.masking import autocasting
from faithmap.score import Score, ScoreKind, Target, at_least_single, logits_of, require_gradient, resolve

Layers = dict[str, Tensor]
"""One tensor (m, k, h, w) for each target layer."""


@dataclass(frozen=True, eq=False)
class Pass:
    """Answers about m images.

    Attributes:
        score: of each.
        activation: of each layer; empty where none is wanted.
        gradient: likewise; empty where none was asked for.
    """

    score: Float[Tensor, " m"]
    activation: Layers
    gradient: Layers

    def at(self, rows: Int[Tensor, " k"]) -> Pass:
        """The answers about some of the images."""
        rows = rows.to(self.score.device)
        parts = ({name: values[rows] for name, values in part.items()} for part in (self.activation, self.gradient))
        return Pass(self.score[rows], *parts)


@dataclass
class LayerModel:
    """A model, and the layers that it is watched at.

    Attributes:
        model: in evaluation mode, its weights frozen.
        capture: around the layers.
        reshape: what makes (n, k, h, w) of each layer's activation.
        chunk_size: images in one pass at the most.
        autocast: a lower precision for the passes.
        forward: passes that each image has taken so far; set by whoever knows how many images there are.
        backward: likewise.
    """

    model: nn.Module
    capture: Capture
    reshape: Callable[[str, Tensor], Tensor]
    chunk_size: int
    autocast: torch.dtype | None = None
    forward: Int[Tensor, " n"] = field(init=False)
    backward: Int[Tensor, " n"] = field(init=False)

    def clean(
        self, images: Float[Tensor, "n c h w"], target: Target, kind: ScoreKind, *, gradient: bool
    ) -> tuple[Float[Tensor, "n classes"] | None, Score, Pass]:
        """The logits of the images themselves (None for a callable target), the target made concrete, and all that is asked.

        One forward pass serves all three: a class that the model chooses is known before the gradient is taken.
        """
        self.forward = torch.zeros(len(images), dtype=torch.long, device=images.device)
        self.backward = self.forward.clone()
        function = callable(target) and not isinstance(target, Tensor)
        logits, classes, answers = [], [], []
        everything = torch.arange(len(images), device=images.device)
        for index, part in zip(everything.split(self.chunk_size), images.split(self.chunk_size), strict=True):

            def score(output: object, index: Tensor = index) -> Tensor:
                whole = len(index) if target is None else len(images)
                concrete = resolve(target, output, kind, whole)
                own = concrete if target is None else concrete.of(index)
                if own.classes is not None:
                    logits.append(logits_of(output).detach())
                    classes.append(own.classes)
                return own(output, torch.arange(len(index), device=index.device))

            answers.append(self._ask(part, score, index, gradient=gradient))
        if function:
            return None, resolve(target, None, kind, len(images)), joined(answers)
        return torch.cat(logits), Score(kind, classes=torch.cat(classes)), joined(answers)

    def ask(
        self,
        z: Float[Tensor, "m c h w"],
        score: Score,
        index: Int[Tensor, " m"],
        number: Int[Tensor, " m"],
        *,
        keep: bool = True,
    ) -> Pass:
        """One pass with gradients over at most a chunk of images.

        Args:
            z: the images.
            score: what is asked.
            index: the image that each was made from, as the score counts them.
            number: the same, as :attr:`forward` counts them.
            keep: whether the activations are wanted.
        """
        return self._ask(z, lambda output: score(output, index), number, gradient=True, keep=keep)

    def ablated(
        self,
        image: Float[Tensor, "1 c h w"],
        score: Score,
        index: Int[Tensor, " m"],
        layer: str,
        reshape: Callable[[Tensor], Tensor],
        channels: Int[Tensor, " m"],
    ) -> Float[Tensor, " m"]:
        """The score of one image with one channel of a layer after the other set to 0.

        Args:
            image: the one.
            score: what is asked.
            index: the image's number, once for each channel.
            layer: whose channels they are.
            reshape: what makes (m, k, h, w) of its activation, as a view.
            channels: the numbers of those to be set to 0.
        """

        def without(activation: Tensor) -> Tensor:
            flows_on = activation.clone()
            reshape(flows_on)[torch.arange(len(channels)), channels] = 0
            return flows_on

        self.forward += index.bincount(minlength=len(self.forward))
        alone = Capture({layer: self.capture.layers[layer]})
        with torch.no_grad(), alone.watch(without), autocasting(image.device, self.autocast):
            output = self.model(image.expand(len(index), -1, -1, -1))
        return score(output, index)

    def _ask(
        self, z: Tensor, score: Callable[[object], Tensor], number: Int[Tensor, " m"], *, gradient: bool, keep: bool = True
    ) -> Pass:
        passes = number.bincount(minlength=len(self.forward))
        output = self._output(z, gradient=gradient, keep=keep)
        self.forward += passes
        if output is None:
            output = self._output(z, gradient=True, keep=keep, late=False)
            self.forward += passes
        with torch.set_grad_enabled(gradient):
            values = score(output)
        kept = self.capture.activations.items() if keep else ()
        activation = {name: at_least_single(self.reshape(name, a.detach())) for name, a in kept}
        slope: Layers = {}
        if gradient:
            self.backward += passes
            require_gradient(values)
            slope = {name: at_least_single(self.reshape(name, g)) for name, g in self.capture.gradients(values.sum()).items()}
        self.capture.activations = {}
        return Pass(values.detach(), activation, slope)

    def _output(self, z: Tensor, *, gradient: bool, keep: bool, late: bool = True) -> Any:
        """What the model answers, its layers captured; None where it set the mode of gradients by itself and they came late."""
        mode = torch.no_grad() if not gradient else self.capture.late_gradients() if late else torch.enable_grad()
        with mode, self.capture.watch(keep=keep), autocasting(z.device, self.autocast):
            output = self.model(z)
            return None if gradient and late and not torch.is_grad_enabled() else output


def joined(answers: list[Pass]) -> Pass:
    """Answers behind each other."""
    if len(answers) == 1:
        return answers[0]
    names = answers[0].activation
    return Pass(
        torch.cat([a.score for a in answers]),
        {name: torch.cat([a.activation[name] for a in answers]) for name in names},
        {name: torch.cat([a.gradient[name] for a in answers]) for name in answers[0].gradient},
    )
