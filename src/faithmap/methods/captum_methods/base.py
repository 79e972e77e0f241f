"""What captum's gradient methods share: how the model is asked, and that it answers with stages as it does without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.methods.captum_methods.library import captum
from faithmap.methods.captum_methods.stages import check_watchable
from faithmap.methods.gradients.base import Channels, GradientExplainer, Part
from faithmap.score import Score, ScoreKind, logits_of

POINTS = 64
"""Positions on the way of a model's outputs, at which a score's slope is averaged: no pass of the model is needed for them."""


@dataclass(eq=False)
class CaptumExplainer(GradientExplainer):
    """Base of captum's methods that end in one backward pass.

    Args:
        channels: how an attribution of every channel becomes one number a pixel; ``"sum"`` keeps signs.
    """

    score: ScoreKind = "logit"
    channels: Channels = "sum"

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        captum()
        check_watchable(self.model)


def asking(part: Part, model: nn.Module) -> Callable[[Tensor], Any]:
    """The model's output for some images, as often as the part's images follow each other in them; passes are counted."""
    probe = part.probe.inside(model)
    return lambda z: probe.output(z, rows_of(part, len(z)))


def rows_of(part: Part, count: int) -> Int[Tensor, " k"]:
    """Which explained image each of so many rows was made from."""
    return part.numbers.repeat(count // len(part.numbers))


def tensor_of(output: Any, score: Score) -> Tensor:
    """The tensor in a model's output that scores are read off.

    Raises:
        TypeError: where a callable target reads something else.
    """
    if score.function is None:
        return logits_of(output)
    if not isinstance(output, Tensor):
        name = type(output).__name__
        raise TypeError(f"the model returns {name}, through which this method cannot follow a callable target; return a tensor")
    return output


def check_same(part: Part, found: Float[Tensor, " m"]) -> None:
    """Raise ValueError where a model with its calls watched does not answer as it did without."""
    if not torch.allclose(found.detach(), part.request.clean[part.numbers], rtol=1e-2, atol=1e-3):
        raise ValueError("the model answers otherwise when its calls are watched: does it drop what an in-place call returns?")


def mean_slope(score: Score, index: Int[Tensor, " m"], start: Tensor, end: Tensor) -> Tensor:
    r"""The mean of :math:`\partial s / \partial z` on the straight way between two outputs :math:`z_0` and :math:`z`.

    The multipliers of the score: :math:`u \cdot (z - z_0) = s(z) - s(z_0)`, whatever its shape; where it is linear in the
    output, as a logit is, u is its slope.
    """
    total = torch.zeros_like(end)
    points = 1 if score.function is None and score.kind == "logit" else POINTS
    for i in range(points):
        z = start.lerp(end, (i + 0.5) / points).detach().requires_grad_()
        value = score(z, index).sum()
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value, z, allow_unused=True, materialize_grads=True)
            total += slope / points
    return total


def relative(gap: Float[Tensor, " m"], change: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """A gap as a part of a change; no gap is none, however small the change."""
    return torch.where(gap == 0, gap, gap / change.abs())


def weighed(weights: Tensor, output: Tensor) -> Float[Tensor, " m"]:
    """The sum of an output times its weights."""
    return (weights * output).flatten(1).sum(dim=1)
