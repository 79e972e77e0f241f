r"""The order of methods by each metric, and where two metrics contradict each other.

A rank is that of the mean over images, 1 for the best, equal means sharing the mean of their ranks. How far two metrics order
the methods alike is Kendall's tau-b (Kendall 1945): of all pairs of methods, those ordered alike less those ordered the other
way,

.. math:: \tau_b = \frac{C - D}{\sqrt{(P - T_1) (P - T_2)}}

with P pairs, of which :math:`T_1` and :math:`T_2` are tied by the one and by the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from faithmap.bench.report.numbers import Pair

ALPHA = 0.05
"""Below this corrected p two methods are said to differ."""


@dataclass(frozen=True)
class Contradiction:
    """By one metric a method is better than another, by a second metric it is worse, both shown by the paired test."""

    method: str
    other: str
    better_by: str
    worse_by: str


def ranked(means: Mapping[str, float], *, higher_is_better: bool) -> dict[str, float]:
    """Each method's rank.

    >>> ranked({"a": 0.5, "b": 0.9, "c": 0.5}, higher_is_better=True)
    {'a': 2.5, 'b': 1.0, 'c': 2.5}
    """
    sign = -1 if higher_is_better else 1
    ordered = [sign * mean for mean in means.values()]
    return {
        name: 1 + sum(other < sign * mean for other in ordered) + (sum(other == sign * mean for other in ordered) - 1) / 2
        for name, mean in means.items()
    }


def tau(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Kendall's tau-b of the methods that both rank; NaN where one of them ranks none.

    >>> tau({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "c": 2})
    0.3333333333333333
    """
    shared = [name for name in first if name in second]
    signs = [(_sign(first[a] - first[b]), _sign(second[a] - second[b])) for a, b in combinations(shared, 2)]
    untied = math.sqrt(sum(one != 0 for one, _ in signs) * sum(other != 0 for _, other in signs))
    return sum(one * other for one, other in signs) / untied if untied else math.nan


def better(pair: Pair, *, higher_is_better: bool) -> str | None:
    """The method of a pair that is shown to be better, None where they cannot be told apart."""
    if pair.corrected_p >= ALPHA or pair.difference == 0:
        return None
    return pair.first if (pair.difference > 0) == higher_is_better else pair.second


def contradictions(tests: Mapping[str, Sequence[Pair]], directions: Mapping[str, bool]) -> list[Contradiction]:
    """Every case, of metrics that have a direction."""
    winners: dict[str, dict[frozenset[str], str]] = {}
    for metric, higher in directions.items():
        found = {frozenset((pair.first, pair.second)): better(pair, higher_is_better=higher) for pair in tests.get(metric, ())}
        winners[metric] = {pair: name for pair, name in found.items() if name is not None}
    return [
        Contradiction(winner, winners[worse][pair], metric, worse)
        for metric, worse in combinations(winners, 2)
        for pair, winner in winners[metric].items()
        if winners[worse].get(pair, winner) != winner
    ]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
