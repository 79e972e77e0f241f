"""What the rows say: everything that the tables and charts show, as plain data, before anything is written.

Scores at different resolutions are not comparable. Methods are therefore tested, ranked and drawn in groups of one model and
one resolution: the one that all games were played at, or the one that the plan gives the method, or that of its heatmaps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray

from faithmap.bench.report.results import GAMES, MethodResults, Numbers, RunResults, difference, protocols
from faithmap.bench.report.run_record import ModelRecord, ReportedRun, Size
from faithmap.metrics.statistics import bootstrap, compare, holm, paired, summarise


@dataclass(frozen=True, eq=False)
class MethodEntry:
    """One method on one model."""

    id: str
    name: str
    cells: Size | None
    series: MethodResults
    scores: dict[str, MeanScore | None]
    cost: MethodCost


@dataclass
class ResolutionGroup:
    """The methods of one model at one resolution."""

    model: str
    cells: Size | None
    entries: list[MethodEntry] = field(default_factory=list)
    directions: dict[str, bool] = field(default_factory=dict)

    @property
    def resolution(self) -> str:
        """In words."""
        return resolution_name(self.cells)

    @cached_property
    def tests(self) -> dict[str, list[PairedTest]]:
        """Every pair of methods by name, by each metric."""
        methods = {entry.name: entry.series for entry in self.entries}
        return {metric: found for metric in self.directions if (found := pairs(methods, metric))}

    @cached_property
    def ranks(self) -> dict[str, dict[str, float]]:
        """Each method's rank by each metric that is no combination of two others."""
        return {metric: ranked(self._means(metric), higher_is_better=higher) for metric, higher in self._single.items()}

    @property
    def mean_ranks(self) -> dict[str, float]:
        """Of the methods that every metric ranks, the best first."""
        everywhere = [e.name for e in self.entries if self.ranks and all(e.name in ranks for ranks in self.ranks.values())]
        means = {name: sum(ranks[name] for ranks in self.ranks.values()) / len(self.ranks) for name in everywhere}
        return dict(sorted(means.items(), key=lambda item: item[1]))

    @property
    def agreement(self) -> dict[tuple[str, str], float]:
        """Kendall's tau of every two metrics."""
        return {(a, b): tau(self.ranks[a], self.ranks[b]) for i, a in enumerate(self.ranks) for b in list(self.ranks)[i + 1 :]}

    @cached_property
    def contradictions(self) -> list[Contradiction]:
        """Where one metric shows the contrary of what another shows."""
        return contradictions(self.tests, self._single)

    @property
    def _single(self) -> dict[str, bool]:
        combined = {difference(prefix) for prefix in protocols(self.directions)}
        return {metric: higher for metric, higher in self.directions.items() if metric not in combined}

    def _means(self, metric: str) -> dict[str, float]:
        return {e.name: s.mean for e in self.entries if (s := e.scores.get(metric)) is not None}


@dataclass(frozen=True)
class ModelSection:
    """All of one model: its methods at all resolutions."""

    model: ModelRecord
    groups: Sequence[ResolutionGroup]

    @property
    def entries(self) -> list[MethodEntry]:
        """Of all groups."""
        return [entry for group in self.groups for entry in group.entries]


@dataclass(frozen=True)
class Analysis:
    """A run, understood.

    Attributes:
        metrics: the columns that are shown, the games first.
        directions: of the metrics that have one; True where higher is better.
        colours: a number for each method's name, the same in all charts.
    """

    run: ReportedRun
    table: RunResults
    sections: Sequence[ModelSection]
    metrics: Sequence[str]
    directions: dict[str, bool]
    colours: dict[str, int]

    @property
    def headline(self) -> str | None:
        """The metric that charts show as faithfulness: insertion minus deletion where both were played."""
        both = [difference(prefix) for prefix in protocols(self.metrics) if difference(prefix) in self.directions]
        return next(iter([*both, *self.directions]), None)

    @property
    def images(self) -> int:
        """That have a row, with numbers or without."""
        return len({int(i) for section in self.sections for e in section.entries for i in e.series.index})


def analyse(run: ReportedRun, table: RunResults) -> Analysis:
    """Group, summarise and count."""
    metrics = _metrics(table)
    directions = {prefix + game: game == "insertion" for prefix in protocols(metrics) for game in GAMES}
    directions |= {m.id: m.higher_is_better for m in run.plan.metrics if m.higher_is_better is not None}
    directions |= {difference(prefix): True for prefix in protocols(metrics)}
    known = {metric: directions[metric] for metric in metrics if metric in directions}
    sections = [ModelSection(model, _groups(run, table, model, metrics, known)) for model in run.plan.models]
    sections = [section for section in sections if section.groups]
    names = dict.fromkeys(entry.name for section in sections for entry in section.entries)
    return Analysis(run, table, sections, metrics, known, {name: i for i, name in enumerate(names)})


def resolution_name(cells: Size | None) -> str:
    """Rows by columns.

    >>> resolution_name((28, 28))
    '28x28'
    """
    return "each map's own" if cells is None else f"{cells[0]}x{cells[1]}"


def _metrics(table: RunResults) -> list[str]:
    """Those that have a number anywhere."""
    there = {name for series in table.series.values() for name in series.numbers if len(series.values(name)[0])}
    played = protocols(table.metrics)
    games = [name for prefix in played for name in (*(prefix + game for game in GAMES), difference(prefix)) if name in there]
    return [*games, *(name for name in table.metrics if name in there and name not in games)]


def _groups(
    run: ReportedRun, table: RunResults, model: ModelRecord, metrics: list[str], directions: dict[str, bool]
) -> list[ResolutionGroup]:
    """The finest resolution first, as the papers do. Where a method's name is another's too, or its id, ids tell them apart."""
    found = [(method, table.series.get((model.name, method.id))) for method in run.plan.methods]
    games = [run.plan.played_at(prefix + game) for prefix in protocols(metrics) for game in GAMES if prefix + game in metrics]
    played = games[0] if games and None not in games else None
    there = [(method, series, played or method.cells or series.cells) for method, series in found if series is not None]
    shared = Counter((method.title, cells) for method, _, cells in there)
    groups: dict[Size | None, ResolutionGroup] = {}
    for method, series, cells in there:
        alone = shared[method.title, cells] == 1 and not any(
            other.id == method.title for other, *_ in there if other is not method
        )
        name = method.title if alone else method.id
        scores = {metric: score(series.values(metric)[1]) for metric in metrics}
        group = groups.setdefault(cells, ResolutionGroup(model.name, cells, directions=directions))
        group.entries.append(MethodEntry(method.id, name, cells, series, scores, cost(series)))
    return sorted(groups.values(), key=lambda group: group.cells or (0, 0), reverse=True)


MANY = 2000
LEVEL = 0.95
DRAWS = 20_000
RESAMPLES = 5_000


@dataclass(frozen=True)
class MeanScore:
    """A mean over images, its standard error, and where it lies with 95 % confidence; NaN for a single image."""

    mean: float
    standard_error: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class PairedTest:
    """One method minus another on the images that both have; p corrected for all pairs of the same table."""

    first: str
    second: str
    difference: float
    standard_error: float
    p: float
    corrected_p: float
    count: int


def score(values: Numbers) -> MeanScore | None:
    """The summary of finite values; None where there are none."""
    if len(values) == 0:
        return None
    sample = torch.from_numpy(np.asarray(values, np.float64))
    summary = summarise(sample)
    if len(values) == 1:
        low = high = math.nan
    elif len(values) < MANY:
        interval = bootstrap(sample, level=LEVEL, resamples=RESAMPLES)
        low, high = interval.low, interval.high
    else:
        reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * summary.standard_error
        low, high = summary.mean - reach, summary.mean + reach
    return MeanScore(summary.mean, summary.standard_error, low, high, len(values))


def pairs(methods: dict[str, MethodResults], metric: str) -> list[PairedTest]:
    """Every pair of methods, image by image; pairs without an image in common are left out."""
    columns = {name: series.values(metric) for name, series in methods.items()}
    columns = {name: column for name, column in columns.items() if len(column[0])}
    alike = len({index.tobytes() for index, _ in columns.values()}) == 1
    if alike and len(next(iter(columns.values()))[0]) < MANY:
        samples = {name: torch.from_numpy(values.copy()) for name, (_, values) in columns.items()}
        return [
            PairedTest(c.first, c.second, c.paired.mean, c.paired.standard_error, c.paired.p, c.corrected_p, c.paired.count)
            for c in compare(samples, draws=DRAWS)
        ]
    found = [(a, b, _difference(columns[a], columns[b])) for a, b in combinations(columns, 2)]
    found = [(a, b, difference) for a, b, difference in found if len(difference)]
    p = [_test(difference) for _, _, difference in found]
    corrected = holm(torch.tensor(p, dtype=torch.float64)).tolist()
    results = []
    for (a, b, differences), raw, safe in zip(found, p, corrected, strict=True):
        summary = summarise(torch.from_numpy(differences))
        results.append(PairedTest(a, b, summary.mean, summary.standard_error, raw, safe, summary.count))
    return results


def _difference(first: tuple[NDArray[np.int64], Numbers], second: tuple[NDArray[np.int64], Numbers]) -> Numbers:
    _, ours, theirs = np.intersect1d(first[0], second[0], assume_unique=True, return_indices=True)
    difference: Numbers = first[1][ours] - second[1][theirs]
    return difference


def _test(difference: Numbers) -> float:
    """That the mean is 0, by sign flips; by their normal law for many images."""
    if len(difference) < MANY:
        sample = torch.from_numpy(difference)
        return paired(sample, torch.zeros_like(sample), draws=DRAWS).p
    spread = math.sqrt(2 * float(np.square(difference).sum()))
    return math.erfc(abs(float(difference.sum())) / spread) if spread else 1.0


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


def better(pair: PairedTest, *, higher_is_better: bool) -> str | None:
    """The method of a pair that is shown to be better, None where they cannot be told apart."""
    if pair.corrected_p >= ALPHA or pair.difference == 0:
        return None
    return pair.first if (pair.difference > 0) == higher_is_better else pair.second


def contradictions(tests: Mapping[str, Sequence[PairedTest]], directions: Mapping[str, bool]) -> list[Contradiction]:
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


@dataclass(frozen=True)
class MethodCost:
    """Of one method, an image; None where it was not measured.

    Attributes:
        forward: passes on average; ``backward`` likewise.
        median: seconds; ``mean`` and ``slow``, the 95th percentile, likewise.
        metrics: seconds of all metrics together, on average.
        memory: the largest peak, in bytes.
        count: images that have a time.
    """

    forward: float | None
    backward: float | None
    median: float | None
    mean: float | None
    slow: float | None
    metrics: float | None
    memory: float | None
    count: int

    @property
    def passes(self) -> float | None:
        """Forward and backward together."""
        known = [number for number in (self.forward, self.backward) if number is not None]
        return sum(known) if known else None


def cost(series: MethodResults) -> MethodCost:
    """From the rows."""
    seconds = series.values("seconds")[1]
    memory = series.values("peak_memory")[1]
    median, slow = (float(value) for value in np.quantile(seconds, (0.5, 0.95))) if len(seconds) else (None, None)
    return MethodCost(
        forward=_mean(series, "forward"),
        backward=_mean(series, "backward"),
        median=median,
        mean=_mean(series, "seconds"),
        slow=slow,
        metrics=_mean(series, "metric_seconds"),
        memory=float(memory.max()) if len(memory) else None,
        count=len(seconds),
    )


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The methods that no other beats: none is as cheap and more faithful, or as faithful and cheaper. The cheapest first.

    Args:
        points: each method's cost, lower is better, and its faithfulness, higher is better.

    >>> pareto({"a": (1, 0.3), "b": (5, 0.2), "c": (9, 0.7)})
    ['a', 'c']
    """
    best = [
        name
        for name, (price, worth) in points.items()
        if not any(p <= price and w >= worth and (p, w) != (price, worth) for p, w in points.values())
    ]
    return sorted(best, key=lambda name: points[name])


def _mean(series: MethodResults, name: str) -> float | None:
    values = series.values(name)[1]
    return float(values.mean()) if len(values) else None
