"""What the rows say: everything that the tables and charts show, as plain data, before anything is written.

Scores at different resolutions are not comparable. Methods are therefore tested, ranked and drawn in groups of one model and
one resolution: the one that all games were played at, or the one that the plan gives the method, or that of its heatmaps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from faithmap.bench.report.columns import GAMES, difference, protocols
from faithmap.bench.report.costs import Cost, cost
from faithmap.bench.report.folder import Model, Run, Size
from faithmap.bench.report.numbers import Pair, Score, pairs, score
from faithmap.bench.report.ranks import Contradiction, contradictions, ranked, tau
from faithmap.bench.report.rows import Table
from faithmap.bench.report.series import Series


@dataclass(frozen=True, eq=False)
class Entry:
    """One method on one model."""

    id: str
    name: str
    cells: Size | None
    series: Series
    scores: dict[str, Score | None]
    cost: Cost


@dataclass
class Group:
    """The methods of one model at one resolution."""

    model: str
    cells: Size | None
    entries: list[Entry] = field(default_factory=list)
    directions: dict[str, bool] = field(default_factory=dict)

    @property
    def resolution(self) -> str:
        """In words."""
        return resolution_name(self.cells)

    @cached_property
    def tests(self) -> dict[str, list[Pair]]:
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
class Section:
    """All of one model: its methods at all resolutions."""

    model: Model
    groups: Sequence[Group]

    @property
    def entries(self) -> list[Entry]:
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

    run: Run
    table: Table
    sections: Sequence[Section]
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


def analyse(run: Run, table: Table) -> Analysis:
    """Group, summarise and count."""
    metrics = _metrics(table)
    directions = {prefix + game: game == "insertion" for prefix in protocols(metrics) for game in GAMES}
    directions |= {m.id: m.higher_is_better for m in run.plan.metrics if m.higher_is_better is not None}
    directions |= {difference(prefix): True for prefix in protocols(metrics)}
    known = {metric: directions[metric] for metric in metrics if metric in directions}
    sections = [Section(model, _groups(run, table, model, metrics, known)) for model in run.plan.models]
    sections = [section for section in sections if section.groups]
    names = dict.fromkeys(entry.name for section in sections for entry in section.entries)
    return Analysis(run, table, sections, metrics, known, {name: i for i, name in enumerate(names)})


def resolution_name(cells: Size | None) -> str:
    """Rows by columns.

    >>> resolution_name((28, 28))
    '28x28'
    """
    return "each map's own" if cells is None else f"{cells[0]}x{cells[1]}"


def _metrics(table: Table) -> list[str]:
    """Those that have a number anywhere."""
    there = {name for series in table.series.values() for name in series.numbers if len(series.values(name)[0])}
    played = protocols(table.metrics)
    games = [name for prefix in played for name in (*(prefix + game for game in GAMES), difference(prefix)) if name in there]
    return [*games, *(name for name in table.metrics if name in there and name not in games)]


def _groups(run: Run, table: Table, model: Model, metrics: list[str], directions: dict[str, bool]) -> list[Group]:
    """The finest resolution first, as the papers do. Where a method's name is another's too, or its id, ids tell them apart."""
    found = [(method, table.series.get((model.name, method.id))) for method in run.plan.methods]
    games = [run.plan.played_at(prefix + game) for prefix in protocols(metrics) for game in GAMES if prefix + game in metrics]
    played = games[0] if games and None not in games else None
    there = [(method, series, played or method.cells or series.cells) for method, series in found if series is not None]
    shared = Counter((method.title, cells) for method, _, cells in there)
    groups: dict[Size | None, Group] = {}
    for method, series, cells in there:
        alone = shared[method.title, cells] == 1 and not any(
            other.id == method.title for other, *_ in there if other is not method
        )
        name = method.title if alone else method.id
        scores = {metric: score(series.values(metric)[1]) for metric in metrics}
        group = groups.setdefault(cells, Group(model.name, cells, directions=directions))
        group.entries.append(Entry(method.id, name, cells, series, scores, cost(series)))
    return sorted(groups.values(), key=lambda group: group.cells or (0, 0), reverse=True)
