"""Game: cells of a heatmap go or come in order, and the model is asked after every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.baselines import Baseline, make_baseline
from faithmap.explanation import Explanation
from faithmap.metrics.functional.examined import Examined, examined
from faithmap.metrics.functional.protocols import Curve, Protocol, ProtocolName, exact_counts, ranks, rules_of
from faithmap.probe import MaskedModel
from faithmap.score import Target

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class Rule:
    """Which cells are shown after k steps.

    Attributes:
        kind: deletion replaces the first k cells by the baseline; insertion shows them alone.
        least_first: begin with the lowest cell instead of the highest.
    """

    kind: Literal["deletion", "insertion"]
    least_first: bool = False


DELETION, INSERTION, LEAST_FIRST = Rule("deletion"), Rule("insertion"), Rule("deletion", least_first=True)


class GameSettings(TypedDict, total=False):
    """What can be set; explained at :func:`faithmap.metrics.functional.deletion_insertion`."""

    protocol: ProtocolName | Protocol
    steps: int | None
    baseline: Baseline | None
    chunk_size: int
    autocast: torch.dtype | None
    progress: Progress | None


@dataclass(frozen=True)
class Game:
    """The settings, ready to play any of the rules."""

    protocol: ProtocolName | Protocol = "igos"
    steps: int | None = None
    baseline: Baseline | None = None
    chunk_size: int = 32
    autocast: torch.dtype | None = None
    progress: Progress | None = None

    def play(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        heatmaps: Explanation | Float[Tensor, "n r c"],
        target: Target,
        rules: Sequence[Rule],
    ) -> tuple[list[Curve], Protocol, tuple[int, int]]:
        """A curve for each rule, the protocol with its baselines made concrete, and the resolution that was ranked."""
        protocol = rules_of(self.protocol, self.steps, self.baseline, model)
        played = []
        with examined(model, images, heatmaps, target, chunk_size=self.chunk_size, autocast=self.autocast) as case:
            ranked = case.explanation.cells if protocol.unit == "cells" else case.explanation.at(case.size)
            counts = exact_counts(ranked[0].numel(), protocol.steps or images.shape[-2]).to(images.device)
            for part in case.index.split(self.chunk_size):
                played.append(torch.stack([self._curve(model, case, ranked, part, counts, rule, protocol) for rule in rules]))
                if self.progress is not None:
                    self.progress(int(part[-1]) + 1, len(images))
        fractions = (counts.double() / ranked[0].numel()).to(played[0].dtype)
        curves = [Curve(fractions, scores) for scores in torch.cat(played, dim=1)]
        return curves, protocol, (ranked.shape[-2], ranked.shape[-1])

    def _curve(
        self,
        model: nn.Module,
        case: Examined,
        ranked: Float[Tensor, "n r c"],
        part: Int[Tensor, " m"],
        counts: Int[Tensor, " k"],
        rule: Rule,
        protocol: Protocol,
    ) -> Float[Tensor, "m k"]:
        """The score of some of the images after every count of cells."""
        images = case.images[part]
        made = make_baseline(protocol.insertion_baseline if rule.kind == "insertion" else protocol.deletion_baseline, images)
        masked = MaskedModel(model, case.score.of(part), images, made, chunk_size=self.chunk_size, autocast=self.autocast)
        places = ranks(-ranked[part] if rule.least_first else ranked[part])
        questions = torch.cartesian_prod(torch.arange(len(images), device=counts.device), counts)
        scores = []
        for index, count in (chunk.T for chunk in questions.split(self.chunk_size)):
            played = places[index] < count.view(-1, 1, 1)
            shown = played if rule.kind == "insertion" else ~played
            scores.append(masked.scores(shown.to(images.dtype), index))
        return torch.cat(scores).view(len(images), len(counts))
