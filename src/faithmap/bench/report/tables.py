"""The tables of a report, for HTML and Markdown: scores, tests, ranks, costs, failures, and published numbers beside the run's.

Published numbers are shown next to the run's and not tested: images, weights and code differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from faithmap.bench.report.analysis import Analysis, MeanScore, MethodEntry, ModelSection, PairedTest, ResolutionGroup
from faithmap.bench.report.results import AREAS, protocols
from faithmap.bench.report.run_record import PublishedRow, PublishedTable, shape_of
from faithmap.errors import duration

NONE = "-"
"""Stands for a missing number."""


def number(value: float | None, digits: int = 3) -> str:
    """A number with that many decimals.

    >>> number(-0.00001), number(0.1234), number(None)
    ('0.000', '0.123', '-')
    """
    if value is None or math.isnan(value):
        return NONE
    return f"{round(value, digits) + 0.0:.{digits}f}"


def amount(value: float | None) -> str:
    """A number to three digits, for quantities without a natural scale.

    >>> amount(12345.6), amount(0.01234), amount(None)
    ('12,346', '0.0123', '-')
    """
    if value is None or math.isnan(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def p_value(p: float) -> str:
    """A p-value to two digits.

    >>> p_value(0.0421), p_value(1e-9)
    ('0.042', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


@dataclass(frozen=True)
class TableCell:
    """Text of a cell, a smaller line below it, and its mark: best, better, worse or none."""

    text: str
    below: str = ""
    mark: str = ""


@dataclass(frozen=True)
class ReportTable:
    """A table: the first column names the rows."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    note: str = ""


SpreadText = Callable[[MeanScore, int], str]
"""Formats the uncertainty of a mean with that many decimals."""


def interval(score: MeanScore, digits: int) -> str:
    """The 95 % interval."""
    return NONE if score.count < 2 else f"{number(score.low, digits)} to {number(score.high, digits)}"


def standard_error(score: MeanScore, digits: int) -> str:
    """The standard error."""
    return NONE if score.count < 2 else f"± {number(score.standard_error, digits)}"


def decimals(values: Iterable[float]) -> int:
    """Decimals that show three digits of the largest value of a column; at least three, since most scores are shares.

    >>> decimals([0.4, 0.001]), decimals([0.0012, -0.0003]), decimals([0.0])
    (3, 5, 3)
    """
    largest = max(map(abs, values), default=0.0)
    return 3 if not 0 < largest < 0.1 else min(9, 2 - math.floor(math.log10(largest)))


def areas(section: ModelSection, metrics: Sequence[str], reach: SpreadText, prefix: str = "") -> ReportTable | None:
    """The papers' table: methods by resolutions, deletion / insertion; the prefix selects the protocol."""
    displayed = [prefix + area for area in AREAS if prefix + area in metrics]
    if not displayed:
        return None
    names = dict.fromkeys(entry.name for entry in section.entries)
    cells = {(e.name, group.resolution): _scores(group, e, displayed, reach) for group in section.groups for e in group.entries}
    rows = [
        [TableCell(name), *(cells.get((name, group.resolution), TableCell(NONE)) for group in section.groups)] for name in names
    ]
    title = " / ".join(f"{metric} {_arrow(section.groups[0], metric)}" for metric in displayed)
    return ReportTable(title, ["method", *(group.resolution for group in section.groups)], rows)


def others(section: ModelSection, metrics: Sequence[str], reach: SpreadText) -> ReportTable | None:
    """All other metrics: methods and resolutions by metrics."""
    in_areas = {prefix + area for prefix in protocols(metrics) for area in AREAS}
    displayed = [metric for metric in metrics if metric not in in_areas]
    if not displayed:
        return None
    digits = {
        metric: decimals(score.mean for entry in section.entries if (score := entry.scores.get(metric)) is not None)
        for metric in displayed
    }
    rows = []
    for group in section.groups:
        for entry in group.entries:
            scores = [_scores(group, entry, [metric], reach, digits[metric]) for metric in displayed]
            rows.append([TableCell(entry.name), TableCell(group.resolution), *scores])
    arrows = [f"{metric} {_arrow(section.groups[0], metric)}".strip() for metric in displayed]
    return ReportTable("Other metrics" if in_areas else "Metrics", ["method", "resolution", *arrows], rows)


def matrix(group: ResolutionGroup, metric: str) -> ReportTable:
    """Difference of each row's method to each column's, marked if the test shows it."""
    tests = group.tests[metric]
    found = {(pair.first, pair.second): pair for pair in tests}
    names = [entry.name for entry in group.entries if any(entry.name in pair for pair in found)]
    digits, higher = decimals(pair.difference for pair in tests), group.directions[metric]
    rows = [[TableCell(row), *(_against(found, row, column, higher, digits) for column in names)] for row in names]
    counts = " to ".join(
        f"{count:,}" for count in sorted({min(pair.count for pair in tests), max(pair.count for pair in tests)})
    )
    images, pairs = "image" + "s" * (counts != "1"), "pair" + "s" * (len(tests) != 1)
    note = f"{counts} {images}; p by sign flips, Holm-corrected for {len(tests)} {pairs}."
    return ReportTable(f"{metric}, {_words(higher)}", ["row minus column", *names], rows, note)


def ranks(group: ResolutionGroup) -> ReportTable | None:
    """Rank by each metric, and the mean rank."""
    if not group.ranks or len(group.entries) < 2:
        return None
    order = [*group.mean_ranks, *(entry.name for entry in group.entries if entry.name not in group.mean_ranks)]
    rows = []
    for name in order:
        each = [by.get(name) for by in group.ranks.values()]
        cells = [TableCell(NONE) if rank is None else TableCell(f"{rank:g}", mark="best" if rank == 1 else "") for rank in each]
        rows.append([TableCell(name), *cells, TableCell(number(group.mean_ranks.get(name), 2))])
    return ReportTable("Ranks", ["method", *group.ranks, "mean"], rows)


def agreement(group: ResolutionGroup) -> ReportTable | None:
    """Kendall's tau of every two metrics."""
    if len(group.ranks) < 2 or len(group.entries) < 3:
        return None
    both = {**group.agreement, **{(b, a): value for (a, b), value in group.agreement.items()}}
    rows = [[TableCell(a), *(_tau(both[a, b]) if a != b else TableCell(NONE) for b in group.ranks)] for a in group.ranks]
    return ReportTable(
        "Agreement of metrics on the order of methods",
        ["Kendall's tau", *group.ranks],
        rows,
        "1: same order; -1: opposite order.",
    )


def runtime(section: ModelSection) -> ReportTable:
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
        seconds = [NONE if s is None else duration(s) for s in (cost.median, cost.mean, cost.slow, cost.metrics)]
        memory = NONE if cost.memory is None else f"{cost.memory / 2**20:,.0f} MiB"
        group = next(group for group in section.groups if entry in group.entries)
        texts = [group.resolution, amount(cost.forward), amount(cost.backward), *seconds, memory, f"{cost.count:,}"]
        rows.append([TableCell(entry.name), *map(TableCell, texts)])
    return ReportTable(
        "Cost per image", head, rows, "Passes are means; times are those of the method, and of all metrics together."
    )


def failures(analysis: Analysis) -> ReportTable | None:
    """Number of failures by error, the most frequent first."""
    return _count_table("Failures", "error", analysis.results.failed.most_common())


def warnings(analysis: Analysis) -> ReportTable | None:
    """Number of warnings by text."""
    return _count_table("Warnings", "warning", analysis.results.warnings.most_common())


def failed_images(analysis: Analysis) -> ReportTable | None:
    """The first failed images."""
    listed = analysis.results.failures
    rows = [[TableCell(f.image), TableCell(f.model), TableCell(f.method), TableCell(f.error)] for f in listed]
    total = analysis.results.failed.total()
    note = f"The first {len(rows)} of {total:,}; failures.csv lists all." if total > len(rows) else ""
    return ReportTable("Failed images", ["image", "model", "method", "error"], rows, note) if rows else None


def _count_table(title: str, what: str, counts: Sequence[tuple[tuple[str, str, str], int]]) -> ReportTable | None:
    rows = [
        [TableCell(model), TableCell(method), TableCell(text), TableCell(f"{count:,}")]
        for (model, method, text), count in counts
    ]
    return ReportTable(title, ["model", "method", what, "images"], rows) if rows else None


def _scores(
    group: ResolutionGroup, entry: MethodEntry, metrics: Sequence[str], reach: SpreadText, digits: int = 3
) -> TableCell:
    """One or several metrics of a method; the best of the resolution is marked."""
    found = [entry.scores.get(metric) for metric in metrics]
    if all(score is None for score in found):
        return TableCell(NONE)
    best = [_is_best(group, entry, metric) for metric in metrics]
    text = " / ".join(
        NONE if score is None else number(score.mean, digits) + "*" * mark for score, mark in zip(found, best, strict=True)
    )
    below = " / ".join(NONE if score is None else reach(score, digits) for score in found)
    return TableCell(text, below, "best" if all(best) else "")


def _is_best(group: ResolutionGroup, entry: MethodEntry, metric: str) -> bool:
    means = [score.mean for other in group.entries if (score := other.scores.get(metric)) is not None]
    mine = entry.scores.get(metric)
    if metric not in group.directions or mine is None or len(means) < 2:
        return False
    best = max(means) if group.directions[metric] else min(means)
    return math.isclose(mine.mean, best, rel_tol=1e-6)


def _against(found: dict[tuple[str, str], PairedTest], row: str, column: str, higher: bool, digits: int) -> TableCell:
    """A test with the sign of the row's method minus the column's."""
    pair, sign = (found[row, column], 1) if (row, column) in found else (found.get((column, row)), -1)
    if pair is None or row == column:
        return TableCell(NONE if row != column else "")
    winner = pair.winner(higher_is_better=higher)
    mark = "" if winner is None else "better" if winner == row else "worse"
    return TableCell(_signed(sign * pair.difference, digits), f"p {p_value(pair.corrected_p)}", mark)


def _signed(value: float, digits: int = 3) -> str:
    """A difference with that many decimals; zero has no sign.

    >>> _signed(-0.25), _signed(-0.0001), _signed(-0.0001, 4)
    ('-0.250', '0.000', '-0.0001')
    """
    return f"{value:+.{digits}f}" if round(value, digits) else number(0, digits)


def _tau(value: float) -> TableCell:
    return TableCell(number(value, 2), mark="worse" if value < 0 else "")


def _arrow(group: ResolutionGroup, metric: str) -> str:
    return {True: "↑", False: "↓", None: ""}[group.directions.get(metric)]


def _words(higher: bool) -> str:
    return "higher is better" if higher else "lower is better"


_COSTS = {"seconds": "mean", "forward": "forward", "backward": "backward", "passes": "passes"}


@dataclass(frozen=True)
class PublishedValue:
    """A published value and this run's; None if missing."""

    table: str
    model: str
    method: str
    resolution: str
    metric: str
    published: float | str | None
    ours: float | None


def published_values(analysis: Analysis) -> Iterator[tuple[PublishedTable, ModelSection, list[PublishedValue]]]:
    """Each published table with the model that it names, or with all models if this run does not have that model."""
    for table in analysis.run.published.tables if analysis.run.published else ():
        named = [section for section in analysis.sections if table.model and _plain(section.model.name) == _plain(table.model)]
        for section in named or analysis.sections:
            yield table, section, list(_pairs(table, section))


def published_grid(table: PublishedTable, section: ModelSection, found: list[PublishedValue]) -> ReportTable:
    """Methods by resolutions: the published values, and this run's below."""
    at = {(one.method, one.resolution, one.metric): one for one in found}
    methods, columns = (list(dict.fromkeys(names)) for names in ([o.method for o in found], [o.resolution for o in found]))
    rows = []
    for method in methods:
        cells = [[at.get((method, column, metric)) for metric in table.metrics] for column in columns]
        rows.append([TableCell(method), *(_cell([one for one in entries if one is not None]) for entries in cells)])
    other = "" if table.model is None or _plain(table.model) == _plain(section.model.name) else f"Published for {table.model}."
    means = ", means over classes" if table.over == "classes" else ""
    what = f"{' / '.join(table.metrics)}{means}: above as published, below {section.model.name} of this run."
    return ReportTable(
        table.title,
        ["method", *(column or "value" for column in columns)],
        rows,
        " ".join(filter(None, (what, other, table.note))),
    )


def _pairs(table: PublishedTable, section: ModelSection) -> Iterator[PublishedValue]:
    for row in table.rows:
        entry = _ours(row, section)
        for metric in table.metrics:
            published = row.values.get(metric)
            yield PublishedValue(
                table.title, section.model.name, row.label, row.resolution, metric, published, _value(entry, metric, table)
            )


def _ours(row: PublishedRow, section: ModelSection) -> MethodEntry | None:
    """The method that the row names, or that has its label; of several resolutions that of the row (``28`` is ``28x28``)."""
    wanted = {_plain(row.method)} if row.method else {_plain(row.label)}
    fits = [entry for entry in section.entries if wanted & {_plain(entry.id), _plain(entry.name)}]
    size = shape_of(row.resolution)
    return next((entry for entry in fits if size is None or size in (entry.cells, entry.results.shape)), None)


def _value(entry: MethodEntry | None, metric: str, table: PublishedTable) -> float | None:
    if entry is None:
        return None
    if metric in _COSTS:
        value: float | None = getattr(entry.cost, _COSTS[metric])
        return value
    if table.over == "classes":
        return entry.results.mean_over_classes(metric)
    score = entry.scores.get(metric)
    return None if score is None else score.mean


def _cell(entries: list[PublishedValue]) -> TableCell:
    published = [_written(one, one.published) for one in entries]
    above = NONE if all(one.published is None for one in entries) else " / ".join(published)
    below = "" if all(one.ours is None for one in entries) else " / ".join(_written(one, one.ours) for one in entries)
    return TableCell(above, below)


def _written(one: PublishedValue, value: float | str | None) -> str:
    """Four decimals as in the papers; costs to three digits."""
    if isinstance(value, str):
        return value
    return amount(value) if one.metric in _COSTS else number(value, 4)


def _plain(name: str) -> str:
    """Lower-case letters and digits only: ``I-GOS++`` equals ``igos_plus_plus``, ``Grad-CAM`` equals ``GradCAM``."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "plus"))
