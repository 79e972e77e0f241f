r"""Analyse the results of a run: means with intervals, paired tests, ranks, costs. Plain data, before tables and charts.

Scores at different resolutions are not comparable. Methods are therefore tested, ranked and drawn in groups of one model and
one resolution: that of the deletion and insertion tests if it is the same for all methods, else that of the method, else that
of its heatmaps.

Bootstrap intervals and sign-flip tests are those of :mod:`faithmap.metrics.statistics`. From :data:`MANY` images on, the sums
that they draw are normal by the central limit theorem, and the normal distribution replaces the draws: the interval is the
standard error times its quantile; the paired test is

.. math:: p = \operatorname{erfc}\left(\Big|\sum d\Big| \Big/ \sqrt{2 \sum d^2}\right)

A rank is that of the mean over images, 1 for the best; equal means share the mean of their ranks. The agreement of two
metrics is Kendall's tau-b (Kendall 1945) of their ranks: with C pairs of methods in the same order, D in opposite order, P
pairs in total, of which :math:`T_1` and :math:`T_2` are ties of the one and of the other metric,

.. math:: \tau_b = \frac{C - D}{\sqrt{(P - T_1) (P - T_2)}}
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

from faithmap.bench.report.results import AREAS, Indices, MethodResults, Numbers, RunResults, difference, protocols
from faithmap.bench.report.run_record import ReportedRun, RunMethod, RunModel, Shape
from faithmap.metrics.statistics import bootstrap, compare, holm, paired, summarise

MANY = 2000
"""Images from which on the normal distribution replaces resampling."""
LEVEL = 0.95
DRAWS = 20_000
RESAMPLES = 5_000
ALPHA = 0.05
"""A corrected p below it shows a difference between two methods."""


@dataclass(frozen=True)
class MeanScore:
    """A mean over images, its standard error and its 95 % interval; NaN for a single image."""

    mean: float
    standard_error: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class PairedTest:
    """The first method minus the second, on the images that both have; p corrected for all pairs of the table."""

    first: str
    second: str
    difference: float
    standard_error: float
    p: float
    corrected_p: float
    count: int

    def winner(self, *, higher_is_better: bool) -> str | None:
        """The method that is shown to be better; None if the two are statistically indistinguishable."""
        if self.corrected_p >= ALPHA or self.difference == 0:
            return None
        return self.first if (self.difference > 0) == higher_is_better else self.second


@dataclass(frozen=True)
class Contradiction:
    """The paired tests show that a method is better than another by one metric, and worse by a second one."""

    method: str
    other: str
    better_by: str
    worse_by: str


@dataclass(frozen=True)
class MethodCost:
    """Cost of a method per image; None if it was not measured.

    Attributes:
        forward: mean number of forward passes.
        backward: mean number of backward passes.
        median: median of the seconds.
        mean: mean of the seconds.
        slow: 95th percentile of the seconds.
        metrics: mean seconds of all metrics together.
        memory: largest peak memory, in bytes.
        count: images with a time.
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
        """Forward plus backward passes."""
        known = [number for number in (self.forward, self.backward) if number is not None]
        return sum(known) if known else None


@dataclass(frozen=True, eq=False)
class MethodEntry:
    """A method on a model; ``name`` is unique in its group. ``resampled``: its maps were, before their cells were ranked."""

    id: str
    name: str
    cells: Shape | None
    results: MethodResults
    scores: dict[str, MeanScore | None]
    cost: MethodCost
    resampled: bool = False


@dataclass
class ResolutionGroup:
    """The methods of one model at one resolution."""

    model: str
    cells: Shape | None
    entries: list[MethodEntry] = field(default_factory=list)
    directions: dict[str, bool] = field(default_factory=dict)

    @property
    def resolution(self) -> str:
        """For readers."""
        return resolution_name(self.cells)

    @cached_property
    def tests(self) -> dict[str, list[PairedTest]]:
        """Paired tests of all pairs of methods, by metric."""
        methods = {entry.name: entry.results for entry in self.entries}
        return {metric: tests for metric in self.directions if (tests := paired_tests(methods, metric))}

    @cached_property
    def ranks(self) -> dict[str, dict[str, float]]:
        """Rank of each method, by metric; without metrics that combine two others."""
        return {metric: ranks(self._means(metric), higher_is_better=higher) for metric, higher in self._single.items()}

    @property
    def mean_ranks(self) -> dict[str, float]:
        """Mean rank of the methods that every metric ranks, the best first."""
        ranked = [e.name for e in self.entries if self.ranks and all(e.name in ranks for ranks in self.ranks.values())]
        means = {name: sum(ranks[name] for ranks in self.ranks.values()) / len(self.ranks) for name in ranked}
        return dict(sorted(means.items(), key=lambda item: item[1]))

    @property
    def agreement(self) -> dict[tuple[str, str], float]:
        """Kendall's tau of every two metrics."""
        return {(a, b): kendall_tau(self.ranks[a], self.ranks[b]) for a, b in combinations(self.ranks, 2)}

    @cached_property
    def contradictions(self) -> list[Contradiction]:
        """All contradictions between two metrics."""
        return contradictions(self.tests, self._single)

    @property
    def _single(self) -> dict[str, bool]:
        combined = {difference(prefix) for prefix in protocols(self.directions)}
        return {metric: higher for metric, higher in self.directions.items() if metric not in combined}

    def _means(self, metric: str) -> dict[str, float]:
        return {e.name: s.mean for e in self.entries if (s := e.scores.get(metric)) is not None}


@dataclass(frozen=True)
class ModelSection:
    """The methods of one model at all resolutions."""

    model: RunModel
    groups: Sequence[ResolutionGroup]

    @property
    def entries(self) -> list[MethodEntry]:
        """The entries of all groups."""
        return [entry for group in self.groups for entry in group.entries]


@dataclass(frozen=True)
class Analysis:
    """The analysis of a run.

    Attributes:
        run: the run.
        results: its rows.
        sections: one per model.
        metrics: columns that are shown, deletion and insertion first.
        directions: True if higher is better; only metrics with a direction.
        colours: number of each method's colour, the same in all charts.
    """

    run: ReportedRun
    results: RunResults
    sections: Sequence[ModelSection]
    metrics: Sequence[str]
    directions: dict[str, bool]
    colours: dict[str, int]

    @property
    def headline(self) -> str | None:
        """The metric that stands for faithfulness in charts: insertion minus deletion if measured."""
        differences = [difference(prefix) for prefix in protocols(self.metrics) if difference(prefix) in self.directions]
        return next(iter([*differences, *self.directions]), None)

    @property
    def images(self) -> int:
        """Number of images with a row, with or without numbers."""
        return len({int(i) for section in self.sections for e in section.entries for i in e.results.images})


def analyse(run: ReportedRun, results: RunResults) -> Analysis:
    """Group the methods of a run, and summarise their results."""
    metrics = _metrics_with_numbers(results)
    directions = {prefix + area: area == "insertion" for prefix in protocols(metrics) for area in AREAS}
    directions |= {m.id: m.higher_is_better for m in run.plan.metrics if m.higher_is_better is not None}
    directions |= {difference(prefix): True for prefix in protocols(metrics)}
    known = {metric: directions[metric] for metric in metrics if metric in directions}
    sections = [ModelSection(model, _groups(run, results, model, metrics, known)) for model in run.plan.models]
    sections = [section for section in sections if section.groups]
    names = dict.fromkeys(entry.name for section in sections for entry in section.entries)
    return Analysis(run, results, sections, metrics, known, {name: i for i, name in enumerate(names)})


def resolution_name(cells: Shape | None) -> str:
    """Rows by columns.

    >>> resolution_name((28, 28))
    '28x28'
    """
    return "each map's own" if cells is None else f"{cells[0]}x{cells[1]}"


def _metrics_with_numbers(results: RunResults) -> list[str]:
    present = {name for method in results.methods.values() for name in method.frame if len(method.values(str(name))[0])}
    areas = [
        name
        for prefix in protocols(results.metrics)
        for name in (*(prefix + area for area in AREAS), difference(prefix))
        if name in present
    ]
    return [*areas, *(name for name in results.metrics if name in present and name not in areas)]


def _groups(
    run: ReportedRun, results: RunResults, model: RunModel, metrics: list[str], directions: dict[str, bool]
) -> list[ResolutionGroup]:
    """The groups of a model, the finest resolution first, as in the papers."""
    tested = [
        run.plan.cells_of_test(prefix + area) for prefix in protocols(metrics) for area in AREAS if prefix + area in metrics
    ]
    common = tested[0] if tested and None not in tested else None
    resampled = common is not None or any(metric.settings.get("protocol") == "igos_resampled" for metric in run.plan.metrics)
    methods = [
        (method, found, common or method.cells or found.shape)
        for method in run.plan.methods
        if (found := results.methods.get((model.name, method.id))) is not None
    ]
    names = _unique_names([(method, cells) for method, _, cells in methods])
    groups: dict[Shape | None, ResolutionGroup] = {}
    for method, found, cells in methods:
        scores = {metric: mean_score(found.values(metric)[1]) for metric in metrics}
        group = groups.setdefault(cells, ResolutionGroup(model.name, cells, directions=directions))
        group.entries.append(MethodEntry(method.id, names[method.id], cells, found, scores, method_cost(found), resampled))
    return sorted(groups.values(), key=lambda group: group.cells or (0, 0), reverse=True)


def _unique_names(methods: Sequence[tuple[RunMethod, Shape | None]]) -> dict[str, str]:
    """Titles by id; the id itself if the title is that of another method of the resolution, or another method's id."""
    count = Counter((method.title, cells) for method, cells in methods)
    ids = {method.id for method, _ in methods}
    return {
        method.id: method.id if count[method.title, cells] > 1 or method.title in ids - {method.id} else method.title
        for method, cells in methods
    }


def mean_score(values: Numbers) -> MeanScore | None:
    """The summary of finite values; None if there are none."""
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


def paired_tests(methods: Mapping[str, MethodResults], metric: str) -> list[PairedTest]:
    """Test every pair of methods image by image; pairs without a common image are left out."""
    columns = {name: results.values(metric) for name, results in methods.items()}
    columns = {name: column for name, column in columns.items() if len(column[0])}
    same_images = len({images.tobytes() for images, _ in columns.values()}) == 1
    if same_images and len(next(iter(columns.values()))[0]) < MANY:
        samples = {name: torch.from_numpy(values.copy()) for name, (_, values) in columns.items()}
        return [
            PairedTest(c.first, c.second, c.paired.mean, c.paired.standard_error, c.paired.p, c.corrected_p, c.paired.count)
            for c in compare(samples, draws=DRAWS)
        ]
    found = [(a, b, _differences(columns[a], columns[b])) for a, b in combinations(columns, 2)]
    found = [(a, b, differences) for a, b, differences in found if len(differences)]
    p = [_p_value(differences) for _, _, differences in found]
    corrected = holm(torch.tensor(p, dtype=torch.float64)).tolist()
    tests = []
    for (a, b, differences), raw, safe in zip(found, p, corrected, strict=True):
        summary = summarise(torch.from_numpy(differences))
        tests.append(PairedTest(a, b, summary.mean, summary.standard_error, raw, safe, summary.count))
    return tests


def _differences(first: tuple[Indices, Numbers], second: tuple[Indices, Numbers]) -> Numbers:
    _, at_first, at_second = np.intersect1d(first[0], second[0], assume_unique=True, return_indices=True)
    differences: Numbers = first[1][at_first] - second[1][at_second]
    return differences


def _p_value(differences: Numbers) -> float:
    """Of the hypothesis that the mean is 0."""
    if len(differences) < MANY:
        sample = torch.from_numpy(differences)
        return paired(sample, torch.zeros_like(sample), draws=DRAWS).p
    spread = math.sqrt(2 * float(np.square(differences).sum()))
    return math.erfc(abs(float(differences.sum())) / spread) if spread else 1.0


def ranks(means: Mapping[str, float], *, higher_is_better: bool) -> dict[str, float]:
    """The rank of each method.

    >>> ranks({"a": 0.5, "b": 0.9, "c": 0.5}, higher_is_better=True)
    {'a': 2.5, 'b': 1.0, 'c': 2.5}
    """
    sign = -1 if higher_is_better else 1
    ordered = [sign * mean for mean in means.values()]
    return {
        name: 1 + sum(other < sign * mean for other in ordered) + (sum(other == sign * mean for other in ordered) - 1) / 2
        for name, mean in means.items()
    }


def kendall_tau(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Kendall's tau-b of the methods that both metrics rank; NaN if one of them ranks all equally.

    >>> kendall_tau({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "c": 2})
    0.3333333333333333
    """
    shared = [name for name in first if name in second]
    signs = [(_sign(first[a] - first[b]), _sign(second[a] - second[b])) for a, b in combinations(shared, 2)]
    untied = math.sqrt(sum(one != 0 for one, _ in signs) * sum(other != 0 for _, other in signs))
    return sum(one * other for one, other in signs) / untied if untied else math.nan


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def contradictions(tests: Mapping[str, Sequence[PairedTest]], directions: Mapping[str, bool]) -> list[Contradiction]:
    """All contradictions between metrics with a direction."""
    winners: dict[str, dict[frozenset[str], str]] = {}
    for metric, higher in directions.items():
        found = {frozenset((t.first, t.second)): t.winner(higher_is_better=higher) for t in tests.get(metric, ())}
        winners[metric] = {pair: name for pair, name in found.items() if name is not None}
    return [
        Contradiction(winner, winners[worse][pair], metric, worse)
        for metric, worse in combinations(winners, 2)
        for pair, winner in winners[metric].items()
        if winners[worse].get(pair, winner) != winner
    ]


def method_cost(results: MethodResults) -> MethodCost:
    """The cost of a method, from its rows."""
    seconds, memory = results.values("seconds")[1], results.values("peak_memory")[1]
    median, slow = (float(value) for value in np.quantile(seconds, (0.5, 0.95))) if len(seconds) else (None, None)
    return MethodCost(
        forward=_mean(results, "forward"),
        backward=_mean(results, "backward"),
        median=median,
        mean=_mean(results, "seconds"),
        slow=slow,
        metrics=_mean(results, "metric_seconds"),
        memory=float(memory.max()) if len(memory) else None,
        count=len(seconds),
    )


def _mean(results: MethodResults, name: str) -> float | None:
    values = results.values(name)[1]
    return float(values.mean()) if len(values) else None


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The methods that no other method dominates: none is as cheap and more faithful, or as faithful and cheaper.

    Args:
        points: cost (lower is better) and faithfulness (higher is better) of each method.

    Returns:
        The names, the cheapest first.

    >>> pareto_front({"a": (1, 0.3), "b": (5, 0.2), "c": (9, 0.7)})
    ['a', 'c']
    """
    best = [
        name
        for name, (cost, worth) in points.items()
        if not any(c <= cost and w >= worth and (c, w) != (cost, worth) for c, w in points.values())
    ]
    return sorted(best, key=lambda name: points[name])
