r"""Methods that read a heatmap off gradients to the pixels.

Each makes an attribution :math:`a` of the image's own shape, from gradients :math:`g = \partial y / \partial x`; the heatmap is
one number a pixel, by one of

=============  =========================  ==========================================
largest        :math:`\max_c |a_c|`       Simonyan 2014
sum            :math:`\sum_c a_c`         keeps signs, and sums to what a sums to
absolute_sum   :math:`\sum_c |a_c|`
=============  =========================  ==========================================
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.methods.base import Explainer, RawHeatmap, Request
from faithmap.probe import InputProbe
from faithmap.score import ScoreKind

Channels: TypeAlias = Literal["largest", "sum", "absolute_sum"]


@dataclass(eq=False)
class GradientExplainer(Explainer):
    """Base of the methods that look at gradients to the pixels.

    Args:
        channels: how an attribution of every channel becomes one number a pixel.

    The rest is explained at :class:`faithmap.methods.Explainer`. Maps have the image's own resolution.
    """

    score: ScoreKind = "logit"
    channels: Channels = "largest"

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if self.channels not in get_args(Channels):
            raise ValueError(f"channels is {self.channels!r}; give one of {', '.join(get_args(Channels))}")

    def _explain(self, request: Request) -> RawHeatmap:
        count, device = len(request.images), request.images.device
        settings: dict[str, Any] = {"chunk_size": self.chunk_size, "autocast": self.autocast}
        probe = InputProbe(self.model, request.score, request.images, **settings)
        maps, found = [], []
        for numbers in torch.arange(count, device=device).split(self.chunk_size):
            part = Part(request.images[numbers], numbers, probe, [request.generators[i] for i in numbers.tolist()], request)
            attribution, diagnostics = self._attributed(part)
            maps.append(reduced(attribution, self.channels))
            found.append(diagnostics)
            request.progress(int(numbers[-1]) + 1, count)
        per_image = {name: torch.cat([values[name] for values in found]) for name in found[0]}
        passes = {"forward_passes": probe.forward + 1, "backward_passes": probe.backward, **per_image}
        lists = {name: values.tolist() for name, values in passes.items()}
        return RawHeatmap(torch.cat(maps), [{name: values[i] for name, values in lists.items()} for i in range(count)])

    @abstractmethod
    def attribute(self, part: Part) -> Float[Tensor, "m c h w"]:
        """Each image's attribution, one number for every pixel's every channel."""

    def _attributed(self, part: Part) -> tuple[Float[Tensor, "m c h w"], Mapping[str, Float[Tensor, " m"]]]:
        """Each image's attribution, and what else there is to say of it."""
        return self.attribute(part), {}


@dataclass(frozen=True, eq=False)
class Part:
    """A few images at a time.

    Attributes:
        images: the few, or disturbed copies of them.
        numbers: which of the explained images they were made from.
        probe: of the model.
        generators: of each.
        request: that the call asked.
    """

    images: Float[Tensor, "m c h w"]
    numbers: Int[Tensor, " m"]
    probe: InputProbe
    generators: list[torch.Generator]
    request: Request


def reduced(attribution: Float[Tensor, "n c h w"], channels: Channels) -> Float[Tensor, "n h w"]:
    """One number a pixel.

    >>> reduced(torch.tensor([[[[1.0]], [[-3.0]]]]), "largest")
    tensor([[[3.]]])
    """
    if channels == "largest":
        return attribution.abs().amax(dim=1)
    return attribution.sum(dim=1) if channels == "sum" else attribution.abs().sum(dim=1)
