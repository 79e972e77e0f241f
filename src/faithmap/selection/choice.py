r"""Choice: methods ranked by their mean score on the same photographs, and what can be said of their differences.

Means come with a bootstrap interval over the photographs, and so does each method's difference to the best. Whether two methods
differ is tested pair by pair, on the differences photograph by photograph, and corrected for all pairs
(:mod:`faithmap.metrics.statistics`). With n photographs a sign-flip test gives no p below :math:`2 / 2^n`, so that few of them
show no difference at all. How many would tell two methods apart is reckoned from the differences seen,

.. math:: n = \Bigl( \frac{z_{1 - \alpha / 2} + z_{0.8}}{\bar d / s} \Bigr)^2

with :math:`\bar d` and s their mean and standard deviation, z the quantiles of the normal distribution, and :math:`\alpha` the
level divided by the number of pairs: so many find a difference of that size four times out of five.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
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
"""Sign patterns of a test, where there are too many to count, at the least."""

DRAWS_A_PAIR = 100
"""With as many more, no corrected p is kept above 1/100 by the number of patterns alone."""

POWER = 0.8
"""Chance that a difference is found by the photographs that are reckoned to be needed."""

MOST = 1000
"""Photographs; what more would be needed for is not worth telling."""

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
    def interval(self) -> Interval | None:
        """Where the mean lies; None with a single photograph, which says nothing of others."""
        return bootstrap(self.scores) if len(self.scores) > 1 else None

    def to(self, other: Ranked) -> Interval | None:
        """Where the mean of the differences, own less other, lies; from the differences photograph by photograph."""
        return bootstrap(self.scores - other.scores) if len(self.scores) > 1 else None


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
    def higher_is_better(self) -> bool:
        """Whether a high score is good."""
        return SCORES[self.score]

    @property
    def best(self) -> Ranked:
        """The first that is no control."""
        return next(method for method in self.ranking if not method.control)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every pair, better one first, Holm-corrected over all of them."""
        scores = {method.name: method.scores.double() for method in self.ranking}
        return tuple(compare(scores, draws=max(DRAWS, DRAWS_A_PAIR * self.pairs)))

    @property
    def pairs(self) -> int:
        """Of methods, each of which is tested."""
        return math.comb(len(self.ranking), 2)

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
        return math.floor(1 + math.log2(max(1, self.pairs) / LEVEL)) + 1

    @property
    def enough(self) -> bool:
        """Whether there are so many."""
        return len(self) >= self.photographs_needed

    def photographs_to_tell(self, first: Ranked, second: Ranked) -> int | None:
        """So many would tell two methods apart, if others show what these show; None of fewer than 3, or if alike."""
        differences = (first.scores - second.scores).double()
        if len(differences) < 3 or float(differences.mean()) == 0:
            return None
        normal, alpha = NormalDist(), LEVEL / max(1, self.pairs)
        effect = float(differences.std() / differences.mean().abs())
        reckoned = ((normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(POWER)) * effect) ** 2
        return max(self.photographs_needed, len(self) + (0 if self.differ(first.name, second.name) else 1), math.ceil(reckoned))
