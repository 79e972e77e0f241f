"""Shared code of the captum methods: captum is imported when a method is called, and its side effects are undone.

captum draws some numbers from the global generators of torch and of numpy, and warns about the hooks that it sets.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.methods.gradients.gradient import Channels, GradientExplainer, ImageChunk
from faithmap.model import check_observable
from faithmap.score import Score, ScoreKind, logits_of
from faithmap.seeds import seeded
from faithmap.warning_types import python_filters

POINTS = 64
"""Points between two outputs of a model at which the gradient of a score is averaged. They need no pass of the model."""


def captum(module: str = "captum.attr") -> Any:
    """A module of captum.

    Raises:
        ModuleNotFoundError: if captum is not installed; the message states how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "captum":
            raise
        raise ModuleNotFoundError("this method is captum's; pip install 'faithmap[captum]'", name="captum") from error


@contextmanager
def silent() -> Iterator[None]:
    """Suppress captum's warnings about hooks: they are set on modules of this library, not on the user's.

    One thread at a time, because all threads of a process have the same filters of warnings.
    """
    with python_filters():
        for words in ("Setting backward hooks on ReLU", "Setting forward, backward hooks and attributes"):
            warnings.filterwarnings("ignore", message=rf"\s*{re.escape(words)}")
        yield


@contextmanager
def drawing(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generators of torch and numpy from this generator, and restore their states afterwards.

    One thread at a time, as :func:`~faithmap.seeds.seeded`.
    """
    import numpy as np  # noqa: PLC0415 - captum needs it, the other methods do not

    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with seeded(seed, generator.device):
        state = np.random.get_state()  # noqa: NPY002 - captum draws from the global generator
        try:
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


@dataclass(eq=False)
class CaptumExplainer(GradientExplainer):
    """Base of captum's methods that end in one backward pass.

    Args:
        channels: how an attribution of every channel becomes one number per pixel; ``"sum"`` keeps signs.
    """

    score: ScoreKind = "logit"
    channels: Channels = "sum"

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        captum()
        check_observable(self.model, calls=True)


def counted_model(chunk: ImageChunk, model: nn.Module) -> Callable[[Tensor], Any]:
    """The model as a function whose passes are counted; its images are one or several copies of the chunk's images."""
    probe = chunk.probe.inside(model)
    return lambda z: probe.output(z, rows_of(chunk, len(z)))


def rows_of(chunk: ImageChunk, count: int) -> Int[Tensor, " k"]:
    """The explained image of each row, for one or several copies of a chunk."""
    return chunk.numbers.repeat(count // len(chunk.numbers))


def tensor_of(output: Any, score: Score) -> Tensor:
    """The tensor in a model's output that the score is computed from.

    Raises:
        TypeError: if a callable target is given an output that is no tensor.
    """
    if score.function is None:
        return logits_of(output)
    if not isinstance(output, Tensor):
        name = type(output).__name__
        raise TypeError(f"the model returns {name}, through which this method cannot follow a callable target; return a tensor")
    return output


def check_same(chunk: ImageChunk, scores: Float[Tensor, " m"]) -> None:
    """Raise ValueError if the model returns other scores when its calls are intercepted."""
    if not torch.allclose(scores.detach(), chunk.request.clean[chunk.numbers], rtol=1e-2, atol=1e-3):
        raise ValueError(
            "the model returns other scores when its calls are intercepted; use the result of every in-place call in it, "
            "or give another method"
        )


def mean_slope(score: Score, index: Int[Tensor, " m"], start: Tensor, end: Tensor) -> Tensor:
    r"""The mean of :math:`\partial s / \partial z` on the straight line from one output :math:`z_0` to another, :math:`z`.

    These are the multipliers u of the score: :math:`u \cdot (z - z_0) = s(z) - s(z_0)` for every score. For a score that is
    linear in the output, such as a logit, u is its gradient.
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
    """A gap as a fraction of a change; a gap of 0 stays 0, even if the change is 0."""
    return torch.where(gap == 0, gap, gap / change.abs())


def weighted_sum(weights: Tensor, output: Tensor) -> Float[Tensor, " m"]:
    """The sum of each image's output times its weights."""
    return (weights * output).flatten(1).sum(dim=1)
