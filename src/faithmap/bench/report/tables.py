"""The tables of a report, each once: HTML and Markdown are two ways of writing the same cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from faithmap.bench.report.analysis import Analysis, Entry, Group, Section
from faithmap.bench.report.columns import GAMES, protocols
from faithmap.bench.report.numbers import Pair, Score
from faithmap.bench.report.ranks import better
from faithmap.bench.report.text import NONE, amount, number, p_value
from faithmap.text import spoken


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, a smaller line below it, and how it is marked: best, better, worse or nothing."""

    text: str
    below: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Grid:
    """A table: the first column names the rows."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


Reach = Callable[[Score, int], str]
"""How far a mean may be off, in words, to so many decimals."""


def interval(score: Score, digits: int) -> str:
    """The 95 % interval."""
    return NONE if score.count < 2 else f"{number(score.low, digits)} to {number(score.high, digits)}"


def standard_error(score: Score, digits: int) -> str:
    """The standard error."""
    return NONE if score.count < 2 else f"± {number(score.standard_error, digits)}"


def decimals(values: Iterable[float]) -> int:
    """That a column needs to show three digits of its largest value; three at the least, for most scores are shares.

    >>> decimals([0.4, 0.001]), decimals([0.0012, -0.0003]), decimals([0.0])
    (3, 5, 3)
    """
    largest = max(map(abs, values), default=0.0)
    return 3 if not 0 < largest < 0.1 else min(9, 2 - math.floor(math.log10(largest)))


def games(section: Section, metrics: Sequence[str], reach: Reach, prefix: str = "") -> Grid | None:
    """The papers' table: methods by resolutions, deletion / insertion; the prefix says of which protocol."""
    shown = [prefix + game for game in GAMES if prefix + game in metrics]
    if not shown:
        return None
    names = dict.fromkeys(entry.name for entry in section.entries)
    cells = {(e.name, group.resolution): _scores(group, e, shown, reach) for group in section.groups for e in group.entries}
    rows = [[Cell(name), *(cells.get((name, group.resolution), Cell(NONE)) for group in section.groups)] for name in names]
    title = " / ".join(f"{game} {_arrow(section.groups[0], game)}" for game in shown)
    return Grid(title, ["method", *(group.resolution for group in section.groups)], rows)


def others(section: Section, metrics: Sequence[str], reach: Reach) -> Grid | None:
    """All other metrics: methods and resolutions by metrics."""
    played = {prefix + game for prefix in protocols(metrics) for game in GAMES}
    shown = [metric for metric in metrics if metric not in played]
    if not shown:
        return None
    digits = {
        metric: decimals(score.mean for entry in section.entries if (score := entry.scores.get(metric)) is not None)
        for metric in shown
    }
    rows = []
    for group in section.groups:
        for entry in group.entries:
            scores = [_scores(group, entry, [metric], reach, digits[metric]) for metric in shown]
            rows.append([Cell(entry.name), Cell(group.resolution), *scores])
    arrows = [f"{metric} {_arrow(section.groups[0], metric)}".strip() for metric in shown]
    return Grid("Other metrics" if played else "Metrics", ["method", "resolution", *arrows], rows)


def matrix(group: Group, metric: str) -> Grid:
    """Each row's method minus each column's, marked where the difference is shown."""
    tests = group.tests[metric]
    found = {(pair.first, pair.second): pair for pair in tests}
    names = [entry.name for entry in group.entries if any(entry.name in pair for pair in found)]
    digits, higher = decimals(pair.difference for pair in tests), group.directions[metric]
    rows = [[Cell(row), *(_against(found, row, column, higher, digits) for column in names)] for row in names]
    counts = " to ".join(
        f"{count:,}" for count in sorted({min(pair.count for pair in tests), max(pair.count for pair in tests)})
    )
    images, pairs = "image" + "s" * (counts != "1"), "pair" + "s" * (len(tests) != 1)
    note = f"{counts} {images}; p by sign flips, Holm-corrected for {len(tests)} {pairs}."
    return Grid(f"{metric}, {_words(higher)}", ["row minus column", *names], rows, note)


def ranks(group: Group) -> Grid | None:
    """Ranks by each metric, and their mean."""
    if not group.ranks or len(group.entries) < 2:
        return None
    order = [*group.mean_ranks, *(entry.name for entry in group.entries if entry.name not in group.mean_ranks)]
    rows = []
    for name in order:
        each = [by.get(name) for by in group.ranks.values()]
        cells = [Cell(NONE) if rank is None else Cell(f"{rank:g}", mark="best" if rank == 1 else "") for rank in each]
        rows.append([Cell(name), *cells, Cell(number(group.mean_ranks.get(name), 2))])
    return Grid("Ranks", ["method", *group.ranks, "mean"], rows)


def agreement(group: Group) -> Grid | None:
    """Kendall's tau of every two metrics."""
    if len(group.ranks) < 2 or len(group.entries) < 3:
        return None
    both = {**group.agreement, **{(b, a): value for (a, b), value in group.agreement.items()}}
    rows = [[Cell(a), *(_tau(both[a, b]) if a != b else Cell(NONE) for b in group.ranks)] for a in group.ranks]
    return Grid(
        "How far metrics order the methods alike", ["Kendall's tau", *group.ranks], rows, "1: alike; -1: the other way round."
    )


def runtime(section: Section) -> Grid:
    """Passes, seconds and memory."""
    head = [
        "method",
        "resolution",
        "forward",
        "backward",
        "median",
        "mean",
        "95th percentile",
        "metrics",
        "peak memory",
        "images",
    ]
    rows = []
    for entry in section.entries:
        cost = entry.cost
        seconds = [NONE if s is None else spoken(s) for s in (cost.median, cost.mean, cost.slow, cost.metrics)]
        memory = NONE if cost.memory is None else f"{cost.memory / 2**20:,.0f} MiB"
        group = next(group for group in section.groups if entry in group.entries)
        texts = [group.resolution, amount(cost.forward), amount(cost.backward), *seconds, memory, f"{cost.count:,}"]
        rows.append([Cell(entry.name), *map(Cell, texts)])
    return Grid(
        "An image's cost", head, rows, "Passes are means; times are seconds of the method, and of all metrics together."
    )


def failures(analysis: Analysis) -> Grid | None:
    """What failed and how often, the most frequent first."""
    return _counted("Failures", "error", analysis.table.failed.most_common())


def warnings(analysis: Analysis) -> Grid | None:
    """What was warned of and how often."""
    return _counted("Warnings", "warning", analysis.table.warnings.most_common())


def failed_images(analysis: Analysis) -> Grid | None:
    """The first images that failed."""
    listed = analysis.table.failures
    rows = [[Cell(f.image), Cell(f.model), Cell(f.method), Cell(f.error)] for f in listed]
    total = analysis.table.failed.total()
    note = f"The first {len(rows)} of {total:,}; failures.csv has all." if total > len(rows) else ""
    return Grid("Images that failed", ["image", "model", "method", "error"], rows, note) if rows else None


def _counted(title: str, what: str, counts: Sequence[tuple[tuple[str, str, str], int]]) -> Grid | None:
    rows = [[Cell(model), Cell(method), Cell(text), Cell(f"{count:,}")] for (model, method, text), count in counts]
    return Grid(title, ["model", "method", what, "images"], rows) if rows else None


def _scores(group: Group, entry: Entry, metrics: Sequence[str], reach: Reach, digits: int = 3) -> Cell:
    """One metric or several of an entry, the best of its resolution marked."""
    found = [entry.scores.get(metric) for metric in metrics]
    if all(score is None for score in found):
        return Cell(NONE)
    best = [_is_best(group, entry, metric) for metric in metrics]
    text = " / ".join(
        NONE if score is None else number(score.mean, digits) + "*" * mark for score, mark in zip(found, best, strict=True)
    )
    below = " / ".join(NONE if score is None else reach(score, digits) for score in found)
    return Cell(text, below, "best" if all(best) else "")


def _is_best(group: Group, entry: Entry, metric: str) -> bool:
    means = [score.mean for other in group.entries if (score := other.scores.get(metric)) is not None]
    mine = entry.scores.get(metric)
    if metric not in group.directions or mine is None or len(means) < 2:
        return False
    best = max(means) if group.directions[metric] else min(means)
    return math.isclose(mine.mean, best, rel_tol=1e-6)


def _against(found: dict[tuple[str, str], Pair], row: str, column: str, higher: bool, digits: int) -> Cell:
    """A pair, seen from the row."""
    pair, sign = (found[row, column], 1) if (row, column) in found else (found.get((column, row)), -1)
    if pair is None or row == column:
        return Cell(NONE if row != column else "")
    winner = better(pair, higher_is_better=higher)
    mark = "" if winner is None else "better" if winner == row else "worse"
    return Cell(_signed(sign * pair.difference, digits), f"p {p_value(pair.corrected_p)}", mark)


def _signed(value: float, digits: int = 3) -> str:
    """To so many decimals; what is 0 to these has no sign.

    >>> _signed(-0.25), _signed(-0.0001), _signed(-0.0001, 4)
    ('-0.250', '0.000', '-0.0001')
    """
    return f"{value:+.{digits}f}" if round(value, digits) else number(0, digits)


def _tau(value: float) -> Cell:
    return Cell(number(value, 2), mark="worse" if value < 0 else "")


def _arrow(group: Group, metric: str) -> str:
    return {True: "↑", False: "↓", None: ""}[group.directions.get(metric)]


def _words(higher: bool) -> str:
    return "higher is better" if higher else "lower is better"
