"""Games: a method explains a photograph, and its map plays deletion and insertion at the resolution that all share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from faithmap.explanation import Explanation, cell_ranks
from faithmap.methods.base import Explainer, Passes
from faithmap.metrics.functional import deletion_insertion
from faithmap.metrics.functional.curves import PROTOCOLS
from faithmap.score import Target, target_of
from faithmap.seeds import image_generators
from faithmap.selection.budget import Allowance
from faithmap.selection.choice import ScoreName
from faithmap.selection.timing import Clock, Pace
from faithmap.warning_types import suppressed


class Turn(NamedTuple):
    """A method's score on one photograph, its passes, and seconds; None for judging what was judged before."""

    score: float
    passes: Passes
    explaining: float
    judging: float | None


@dataclass(frozen=True, eq=False)
class Games:
    """The photographs, and the settings of the games."""

    model: nn.Module
    photographs: Sequence[Tensor]
    target: Target
    score: ScoreName
    resolution: int
    seed: int
    keys: Sequence[int]
    chunk_size: int
    played: dict[tuple[int, bytes], float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.photographs)

    def size(self, i: int) -> float:
        """Of a photograph, in pixels of the first."""
        return self.photographs[i][0, 0].numel() / self.photographs[0][0, 0].numel()

    def sizes(self, start: int = 0) -> float:
        """Of the photographs from one on."""
        return sum(map(self.size, range(start, len(self))))

    @property
    def passes(self) -> int:
        """Forward passes with one map: both curves with both their ends, and the clean image."""
        steps = PROTOCOLS["igos"].steps or self.photographs[0].shape[-2]
        return 2 * (min(steps, self.resolution**2) + 1) + 1

    def pace(self, clock: Clock) -> Pace:
        """Measured on the first photograph."""
        with suppressed():
            return Pace.measured(self.model, self.photographs[0], self.target_of(0), self.chunk_size, clock)

    def play(self, explainer: Explainer, i: int, allowance: Allowance, after: float) -> Turn:
        """Have a method explain one photograph, and judge its map.

        Args:
            explainer: the method.
            i: the photograph's number.
            allowance: the first photograph may take its share of what is left, any other all of it.
            after: seconds that judging will take.

        Raises:
            OutOfTimeError: when the allowance does not suffice.
        """
        image, began = self.photographs[i], allowance.clock()
        generator = image_generators(self.seed, [self.keys[i]], image.device)
        share = self.size(0) / self.sizes() if i == 0 else 1.0
        with suppressed():
            step = allowance.watch(share, after)
            why = explainer(image, self.target_of(i), generator=generator, progress=step)
        explained = allowance.clock()
        passes = Passes(*(why.diagnostics[0].get(f"{kind}_passes", 0) for kind in ("forward", "backward")))
        known = len(self.played)
        score = self._score(why, i)
        judged = allowance.clock() - explained if len(self.played) > known else None
        return Turn(score, passes, explained - began, judged)

    def _score(self, why: Explanation, i: int) -> float:
        """Of one map; one that ranks the cells as an earlier one did has the earlier one's."""
        side = (self.resolution, self.resolution)
        cells = why.cells if why.resolution == side else why.at(side)
        key = (i, cell_ranks(cells).to("cpu", torch.int32).numpy().tobytes())
        if key not in self.played:
            image = self.photographs[i]
            found = deletion_insertion(self.model, image, cells.to(image), why.explained, chunk_size=self.chunk_size)
            areas = found.difference if self.score == "insertion_minus_deletion" else getattr(found, self.score).area
            self.played[key] = float(areas[0])
        return self.played[key]

    def target_of(self, i: int) -> Target:
        """Of one photograph."""
        if isinstance(self.target, Sequence):
            return int(self.target[i])
        return target_of(self.target, torch.tensor([i], device=self.photographs[i].device))
