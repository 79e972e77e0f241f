r"""Choice: methods ranked by their mean score on the same photographs, and what can be said of their differences.

Means come with a bootstrap interval over the photographs, and so does each method's difference to the best. Whether two methods
differ is tested pair by pair, on the differences photograph by photograph, and corrected for all pairs
(:mod:`faithmap.metrics.statistics`). With n photographs a sign-flip test gives no p below :math:`2 / 2^n`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from faithmap.methods.base import Passes
from faithmap.metrics.statistics import Comparison, Interval, bootstrap, compare

ScoreName: TypeAlias = Literal["insertion_minus_deletion", "insertion", "deletion"]

SCORES: Mapping[str, bool] = MappingProxyType({"insertion_minus_deletion": True, "insertion": True, "deletion": False})
"""By name; whether a high one is good."""

LEVEL = 0.05
"""Corrected p below which two methods are said to differ."""

DRAWS = 20_000
"""Sign patterns of a test, where there are too many to count: p is known to half a thousandth, and there are many pairs."""

NAMED = 5
"""Methods that a sentence names; of more it gives the number."""

CHEAPER = 0.5
"""A method that costs less than this part of the best one's time is worth naming, if the two do not differ."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """One method on n photographs.

    Attributes:
        name: in the registry.
        control: whether it knows nothing of the model.
        scores: of each photograph.
        passes: mean of an image.
        seconds: mean of an image, without the games that judge it.
    """

    name: str
    control: bool
    scores: Float[Tensor, " n"]
    passes: Passes
    seconds: float

    @property
    def mean(self) -> float:
        """Over the photographs."""
        return float(self.scores.mean())

    @cached_property
    def interval(self) -> Interval:
        """Where the mean lies."""
        return bootstrap(self.scores)

    def ahead_of(self, other: Ranked) -> Interval:
        """Where the mean of the differences lies, photograph by photograph."""
        return bootstrap(self.scores - other.scores)


@dataclass(frozen=True)
class LeftOut:
    """A method that was not run to the end, why, and what all photographs would take, in seconds, where that is known."""

    name: str
    reason: str
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Choice:
    """What came out.

    Attributes:
        score: by name.
        ranking: all methods that were run, the best first, controls among them.
        left_out: the others.
        budget: in seconds, that was given.
        seconds: that were spent.
    """

    score: ScoreName
    ranking: tuple[Ranked, ...]
    left_out: tuple[LeftOut, ...]
    budget: float
    seconds: float

    def __len__(self) -> int:
        """Photographs."""
        return len(self.ranking[0].scores)

    @property
    def best(self) -> Ranked:
        """The first that is no control."""
        return next(method for method in self.ranking if not method.control)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every pair, better one first, Holm-corrected over all of them."""
        return tuple(compare({method.name: method.scores.double() for method in self.ranking}, draws=DRAWS))

    def differ(self, first: str, second: str) -> bool:
        """Whether two methods differ by more than chance."""
        return self.p(first, second) < LEVEL

    def p(self, first: str, second: str) -> float:
        """The corrected p of a pair; 1 of a method with itself."""
        found = (c.corrected_p for c in self.comparisons if {c.first, c.second} == {first, second})
        return next(found, 1.0)

    @property
    def alike(self) -> tuple[Ranked, ...]:
        """The methods, controls aside, that cannot be told from the best."""
        others = (method for method in self.ranking if not method.control and method is not self.best)
        return tuple(method for method in others if not self.differ(self.best.name, method.name))

    @property
    def cheaper(self) -> Ranked | None:
        """The cheapest of those, if it is much cheaper than the best."""
        cheapest = min(self.alike, key=lambda method: method.seconds, default=None)
        return cheapest if cheapest is not None and cheapest.seconds < CHEAPER * self.best.seconds else None

    @property
    def unbeaten(self) -> tuple[Ranked, ...]:
        """The controls that the best does not beat."""
        best = self.ranking.index(self.best)
        return tuple(
            m for i, m in enumerate(self.ranking) if m.control and (i < best or not self.differ(m.name, self.best.name))
        )

    @property
    def photographs_needed(self) -> int:
        """So many can show a difference at all, if it is there on every one of them."""
        pairs = math.comb(len(self.ranking), 2)
        return math.floor(1 + math.log2(max(1, pairs) / LEVEL)) + 1

    def advice(self) -> Iterator[str]:
        """What to do, in sentences."""
        best, (low, high) = self.best, (self.best.interval.low, self.best.interval.high)
        cost = f"{best.passes.forward} forward and {best.passes.backward} backward passes, {best.seconds:.2g} s an image"
        yield f"use {best.name}: {self.score.replace('_', ' ')} {best.mean:.3f} ({low:.3f} to {high:.3f}), {cost}"
        if self.cheaper is not None:
            p = self.p(best.name, self.cheaper.name)
            cheaper, cost = self.cheaper.name, f"{self.cheaper.seconds:.2g} s an image"
            yield f"it does not differ from {cheaper} (p = {p:.2g}), which takes {cost}"
        others = [method.name for method in self.alike if method is not self.cheaper]
        if others:
            names = " or ".join(others) if len(others) <= NAMED else f"{len(others)} others"
            yield f"{'nor from' if self.cheaper else 'it does not differ from'} {names}"
        if self.unbeaten:
            names = " and ".join(method.name for method in self.unbeaten)
            yield f"it is not shown to beat {names}: a control, which knows nothing of the model"
        if len(self) < self.photographs_needed:
            yield (
                f"{len(self)} photograph{'s' * (len(self) > 1)} cannot show a difference between {len(self.ranking)} methods; "
                f"give {self.photographs_needed} or more"
            )
