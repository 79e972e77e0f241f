"""Protocols of deletion and insertion: what is ranked, in which order, what it becomes, and the curve that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.baselines import Baseline, Blur
from faithmap.model import normalised_zero

ProtocolName: TypeAlias = Literal["igos", "rise"]


@dataclass(frozen=True)
class Protocol:
    """How the game is played. Scores of different protocols or resolutions cannot be compared.

    Attributes:
        name: stands with every result.
        unit: what is ranked: the cells of a mask of the heatmap's own resolution, upsampled bilinearly, or pixels. A heatmap
            whose cells stand elsewhere than a mask's is resampled there first.
        steps: parts into which the ranking is cut; None takes one part for each row of pixels (224 pixels at 224 x 224).
        deletion_baseline: what deleted cells become; "zero" is 0 in the model's normalised space, and stands in a result as the
            constant that this is in pixels.
        insertion_baseline: what is shown before any cell is.
    """

    name: str
    unit: Literal["cells", "pixels"]
    steps: int | None
    deletion_baseline: Baseline
    insertion_baseline: Baseline


PROTOCOLS = {
    "igos": Protocol("igos", "cells", 50, "blur", "blur"),
    "rise": Protocol("rise", "pixels", None, "zero", Blur(kernel_size=11, sigma=5.0)),
}
"""``igos``: one heavy blur for both games. ``rise`` (Petsiuk 2018): grey for deletion, a light blur for insertion."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The score of each image against the fraction of cells played.

    Attributes:
        fractions: from 0 to 1.
        scores: one row an image.
    """

    fractions: Float[Tensor, " k"]
    scores: Float[Tensor, "n k"]

    @property
    def area(self) -> Float[Tensor, " n"]:
        """Under each image's curve, by the trapezoid rule.

        >>> Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[1.0, 0.0, 0.0]])).area
        tensor([0.2500])
        """
        return torch.trapezoid(self.scores, self.fractions, dim=1)

    def of(self, image: int) -> Curve:
        """The curve of one image, still with a leading dimension of 1."""
        return replace(self, scores=self.scores[image].unsqueeze(0))


def ranks(heatmap: Float[Tensor, "n r c"]) -> Int[Tensor, "n r c"]:
    """Place of each cell in its map's order, 0 for the highest; equal cells in reading order.

    >>> ranks(torch.tensor([[[1.0, 3.0], [3.0, 2.0]]]))
    tensor([[[3, 0],
             [1, 2]]])
    """
    order = heatmap.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(heatmap.shape)


def rules_of(protocol: ProtocolName | Protocol, steps: int | None, baseline: Baseline | None, model: nn.Module) -> Protocol:
    """The protocol with what the call changes of it, and its baselines in the units of the images."""
    if isinstance(protocol, str) and protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r} is unknown; give one of {', '.join(PROTOCOLS)}, or a Protocol")
    rules = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}; give at least 1")
    rules = rules if steps is None else replace(rules, steps=steps)
    shown = (rules.deletion_baseline, rules.insertion_baseline) if baseline is None else (baseline, baseline)
    deletion, insertion = (normalised_zero(model) if isinstance(b, str) and b == "zero" else b for b in shown)
    return replace(rules, deletion_baseline=deletion, insertion_baseline=insertion)


def exact_counts(cells: int, steps: int) -> Int[Tensor, " k"]:
    """Exact numbers of cells, from none to all."""
    return torch.linspace(0, cells, min(steps, cells) + 1, dtype=torch.float64).round().long()
