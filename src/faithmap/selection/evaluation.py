"""Evaluation of one method on one image: explain it, and score its map by a jury, or by deletion and insertion.

All maps are evaluated at a common resolution, and by the same jurors: those whose removal none of the methods optimised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.explanation import Explanation, cell_ranks
from faithmap.methods.base import Explainer, Passes
from faithmap.metrics.functional import deletion_insertion, free_panel, jury_values
from faithmap.metrics.functional.curves import PROTOCOLS
from faithmap.score import Target, target_of
from faithmap.seeds import image_generators
from faithmap.selection.budget import TimeBudget
from faithmap.selection.choice import ScoreName
from faithmap.selection.timing import Clock, PassTimes
from faithmap.warning_types import suppressed


class ImageResult(NamedTuple):
    """Score, passes and seconds of a method on one image; no evaluation time if an equal ranking was evaluated before."""

    score: float
    passes: Passes
    explanation_seconds: float
    evaluation_seconds: float | None


@dataclass(frozen=True, eq=False)
class MapEvaluation:
    """The images, and the settings of the evaluation."""

    model: nn.Module
    images: Sequence[Tensor]
    target: Target
    score: ScoreName
    resolution: int
    seed: int
    keys: Sequence[int]
    chunk_size: int
    optimised: frozenset[str]
    known_scores: dict[tuple[int, bytes], float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def size(self, i: int) -> float:
        """Pixels of an image, relative to the first image."""
        return self.images[i][0, 0].numel() / self.images[0][0, 0].numel()

    def sizes(self, start: int = 0) -> float:
        """Sum of the sizes from an image on."""
        return sum(map(self.size, range(start, len(self))))

    @property
    def passes(self) -> int:
        """Forward passes of the evaluation of one map: of the jury; or both curves with both ends, and the clean image."""
        if self.score == "jury":
            return free_panel(self.optimised).passes(maps=1)
        steps = PROTOCOLS["igos"].steps or self.images[0].shape[-2]
        return 2 * (min(steps, self.resolution**2) + 1) + 1

    def pass_times(self, clock: Clock) -> PassTimes:
        """Measured on the first image."""
        with suppressed():
            return PassTimes.measured(self.model, self.images[0], self.target_of(0), self.chunk_size, clock)

    def evaluate(self, explainer: Explainer, i: int, budget: TimeBudget, reserved: float) -> ImageResult:
        """Explain one image with a method, and score its map.

        Args:
            explainer: the method.
            i: index of the image.
            budget: the first image may use its share of the remaining time, any other image all of it.
            reserved: seconds that the evaluation of the map will take.

        Raises:
            OutOfTimeError: if the time does not suffice.
        """
        image, began = self.images[i], budget.clock()
        generator = image_generators(self.seed, [self.keys[i]], image.device)
        share = self.size(0) / self.sizes() if i == 0 else 1.0
        with suppressed():
            step = budget.limit(share, reserved)
            explanation = explainer(image, self.target_of(i), generator=generator, progress=step)
        explained = budget.clock()
        passes = Passes(*(explanation.diagnostics[0].get(f"{kind}_passes", 0) for kind in ("forward", "backward")))
        known = len(self.known_scores)
        score = self._score(explanation, i)
        evaluation_seconds = budget.clock() - explained if len(self.known_scores) > known else None
        return ImageResult(score, passes, explained - began, evaluation_seconds)

    def _score(self, explanation: Explanation, i: int) -> float:
        """Score of one map; maps with equal rankings are evaluated once."""
        side = (self.resolution, self.resolution)
        cells = explanation.cells if explanation.resolution == side else explanation.at(side)
        key = (i, cell_ranks(cells).to("cpu", torch.int32).numpy().tobytes())
        if key not in self.known_scores:
            with suppressed():
                self.known_scores[key] = self._value(cells.to(self.images[i]), explanation.explained, self.images[i])
        return self.known_scores[key]

    def _value(self, cells: Float[Tensor, "1 r c"], target: Target, image: Float[Tensor, "1 c h w"]) -> float:
        """The score of a map."""
        if self.score == "jury":
            settings: dict[str, Any] = {"optimised": self.optimised, "chunk_size": self.chunk_size}
            return float(jury_values(self.model, image, cells, target, **settings))
        curves = deletion_insertion(self.model, image, cells, target, chunk_size=self.chunk_size)
        areas = curves.difference if self.score == "insertion_minus_deletion" else getattr(curves, self.score).area
        return float(areas[0])

    def target_of(self, i: int) -> Target:
        """The target of one image."""
        if isinstance(self.target, Sequence):
            return int(self.target[i])
        return target_of(self.target, torch.tensor([i], device=self.images[i].device))
