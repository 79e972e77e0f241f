r"""Choice: methods ranked by their mean score on the same images, and tests of their differences.

Means, and differences to the best method, have bootstrap intervals over the images. Every pair of methods is tested on the
differences per image, with a correction for all pairs (:mod:`faithmap.metrics.statistics`). With n images a sign-flip test
gives no p below :math:`2 / 2^n`, so that no difference is significant with few images. The number of images that would
distinguish two methods is estimated from the observed differences,

.. math:: n = \Bigl( \frac{z_{1 - \alpha / 2} + z_{0.8}}{\bar d / s} \Bigr)^2

with :math:`\bar d` and s their mean and standard deviation, z the quantiles of the normal distribution, and :math:`\alpha` the
level divided by the number of pairs: with this number a difference of that size is found with probability 0.8.
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

ScoreName: TypeAlias = Literal["jury", "insertion_minus_deletion", "insertion", "deletion"]

SCORES: Mapping[str, bool] = MappingProxyType(
    {"jury": True, "insertion_minus_deletion": True, "insertion": True, "deletion": False}
)
"""Name of each score to whether a high one is good."""

LEVEL = 0.05
"""Corrected p below which two methods differ."""

DRAWS = 20_000
"""Minimum number of sign patterns of a test, if there are too many to enumerate."""

DRAWS_A_PAIR = 100
"""Sign patterns per pair, so that their number alone does not keep a corrected p above 1/100."""

POWER = 0.8
"""Probability that the estimated number of images finds a difference."""

MAX_IMAGES = 1000
"""Estimates above this number of images are not stated exactly."""

CHEAPER = 0.5
"""An indistinguishable method is named as cheaper if its time is below this share of the best method's time."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """One method on n images.

    >>> import torch
    >>> Ranked("gradcam", control=False, scores=torch.tensor([0.25, 0.75]), passes=Passes(1, 1), seconds=0.1).mean
    0.5

    Attributes:
        name: name of the method.
        control: whether the method is a control, which ignores the model.
        scores: one score for each image.
        passes: mean number of passes per image.
        seconds: mean time per image, without the evaluation of its map.
    """

    name: str
    control: bool
    scores: Float[Tensor, " n"]
    passes: Passes
    seconds: float

    @property
    def mean(self) -> float:
        """Mean score."""
        return float(self.scores.mean())

    @cached_property
    def interval(self) -> Interval | None:
        """Interval of the mean; None for a single image."""
        return bootstrap(self.scores) if len(self.scores) > 1 else None

    def to(self, other: Ranked) -> Interval | None:
        """Interval of the mean difference per image, this method minus the other; None for a single image.

        Args:
            other: another method, evaluated on the same images.
        """
        return bootstrap(self.scores - other.scores) if len(self.scores) > 1 else None


@dataclass(frozen=True)
class LeftOut:
    """A method that was not evaluated on all images.

    >>> LeftOut("rise", "would exceed the budget", seconds=90.0).name
    'rise'

    Attributes:
        name: name of the method.
        reason: reason for which it was left out.
        seconds: estimated time of all images; None if unknown.
    """

    name: str
    reason: str
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Choice:
    """The result of a selection.

    >>> import torch
    >>> rows = [Ranked(name, False, torch.full((9,), score), Passes(1, 1), 0.1) for name, score in (("a", 0.5), ("b", 0.25))]
    >>> choice = Choice("insertion", tuple(rows), (), budget=60.0, seconds=2.0)
    >>> choice.best.name, choice.p("a", "b") < 0.05
    ('a', True)

    Attributes:
        score: name of the score by which the methods are ranked.
        ranking: all evaluated methods, the best first, controls included.
        left_out: the methods that were not evaluated, with the reasons.
        budget: the time budget, in seconds.
        seconds: the time that was spent, in seconds.
        jurors: of the score "jury": those whose removal none of the methods optimised.
    """

    score: ScoreName
    ranking: tuple[Ranked, ...]
    left_out: tuple[LeftOut, ...]
    budget: float
    seconds: float
    jurors: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ranking[0].scores)

    @property
    def higher_is_better(self) -> bool:
        """Whether a high score is good."""
        return SCORES[self.score]

    @property
    def best(self) -> Ranked:
        """The best method that is no control."""
        return next(method for method in self.ranking if not method.control)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every pair, the better method first, Holm-corrected over all pairs."""
        scores = {method.name: method.scores.double() for method in self.ranking}
        return tuple(compare(scores, draws=max(DRAWS, DRAWS_A_PAIR * self.pairs)))

    @property
    def pairs(self) -> int:
        """Number of pairs of methods."""
        return math.comb(len(self.ranking), 2)

    def differ(self, first: str, second: str) -> bool:
        """Whether the difference of two methods is significant.

        Args:
            first: name of a method.
            second: name of another one.
        """
        return self.p(first, second) < LEVEL

    def p(self, first: str, second: str) -> float:
        """The corrected p of a pair; 1 for a method with itself.

        Args:
            first: name of a method.
            second: name of another one.
        """
        found = (c.corrected_p for c in self.comparisons if {c.first, c.second} == {first, second})
        return next(found, 1.0)

    @property
    def indistinguishable(self) -> tuple[Ranked, ...]:
        """The methods, without controls, that are statistically indistinguishable from the best."""
        others = (method for method in self.ranking if not method.control and method is not self.best)
        return tuple(method for method in others if not self.differ(self.best.name, method.name))

    @property
    def cheaper(self) -> Ranked | None:
        """The cheapest indistinguishable method, if it is much cheaper than the best."""
        cheapest = min(self.indistinguishable, key=lambda method: method.seconds, default=None)
        return cheapest if cheapest is not None and cheapest.seconds < CHEAPER * self.best.seconds else None

    @property
    def unbeaten(self) -> tuple[Ranked, ...]:
        """The controls than which the best method is not significantly better."""
        best = self.ranking.index(self.best)
        return tuple(
            m for i, m in enumerate(self.ranking) if m.control and (i < best or not self.differ(m.name, self.best.name))
        )

    @property
    def images_needed(self) -> int:
        """Minimum number of images with which a difference of equal sign on every image is significant."""
        return math.floor(1 + math.log2(max(1, self.pairs) / LEVEL)) + 1

    @property
    def enough(self) -> bool:
        """Whether there are enough images for any difference to be significant."""
        return len(self) >= self.images_needed

    def images_to_distinguish(self, first: Ranked, second: Ranked) -> int | None:
        """Estimated number of similar images that would distinguish two methods; None for fewer than 3, or equal means.

        Args:
            first: a method of the ranking.
            second: another one.
        """
        differences = (first.scores - second.scores).double()
        if len(differences) < 3 or float(differences.mean()) == 0:
            return None
        normal, alpha = NormalDist(), LEVEL / max(1, self.pairs)
        effect = float(differences.std() / differences.mean().abs())
        estimated = ((normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(POWER)) * effect) ** 2
        at_least = len(self) + (0 if self.differ(first.name, second.name) else 1)
        return max(self.images_needed, at_least, math.ceil(estimated))
