"""The tables as CSV with full precision, one number per line, for other programs."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO

from faithmap.bench.report.analysis import Analysis
from faithmap.bench.report.results import GRID, failures
from faithmap.bench.report.tables import published_values
from faithmap.errors import one_line

Value = str | float | int | None


def csv_files(analysis: Analysis) -> dict[str, Iterator[str]]:
    """File names and lines; the lines are made while they are written."""
    return {
        "scores.csv": _scores(analysis),
        "pairs.csv": _pairs(analysis),
        "ranks.csv": _ranks(analysis),
        "agreement.csv": _agreement(analysis),
        "runtime.csv": _runtime(analysis),
        "curves.csv": _curves(analysis),
        "failures.csv": _failures(analysis),
        "warnings.csv": _text(
            ["model", "method", "warning", "images"], ([*key, count] for key, count in analysis.results.warnings.most_common())
        ),
        "published.csv": _published(analysis),
    }


def _scores(analysis: Analysis) -> Iterator[str]:
    head = ["model", "method", "name", "resolution", "metric", "mean", "standard_error", "low", "high", "images"]
    return _text(
        head,
        (
            [g.model, e.id, e.name, g.resolution, metric, s.mean, s.standard_error, s.low, s.high, s.count]
            for section in analysis.sections
            for g in section.groups
            for e in g.entries
            for metric, s in e.scores.items()
            if s is not None
        ),
    )


def _pairs(analysis: Analysis) -> Iterator[str]:
    head = ["model", "resolution", "metric", "first", "second", "difference", "standard_error", "p", "corrected_p", "images"]
    return _text(
        head,
        (
            [g.model, g.resolution, metric, p.first, p.second, p.difference, p.standard_error, p.p, p.corrected_p, p.count]
            for section in analysis.sections
            for g in section.groups
            for metric, tests in g.tests.items()
            for p in tests
        ),
    )


def _ranks(analysis: Analysis) -> Iterator[str]:
    return _text(
        ["model", "resolution", "metric", "method", "rank"],
        (
            [g.model, g.resolution, metric, method, rank]
            for section in analysis.sections
            for g in section.groups
            for metric, ranks in g.ranks.items()
            for method, rank in ranks.items()
        ),
    )


def _agreement(analysis: Analysis) -> Iterator[str]:
    return _text(
        ["model", "resolution", "metric", "other", "kendall_tau"],
        (
            [g.model, g.resolution, *pair, tau]
            for section in analysis.sections
            for g in section.groups
            for pair, tau in g.agreement.items()
        ),
    )


def _runtime(analysis: Analysis) -> Iterator[str]:
    head = ["forward", "backward", "median", "mean", "slow", "metrics", "memory", "count"]
    names = [
        "forward",
        "backward",
        "median_seconds",
        "mean_seconds",
        "p95_seconds",
        "metric_seconds",
        "peak_memory_bytes",
        "images",
    ]
    return _text(
        ["model", "method", "name", "resolution", *names],
        (
            [g.model, e.id, e.name, g.resolution, *(getattr(e.cost, name) for name in head)]
            for section in analysis.sections
            for g in section.groups
            for e in g.entries
        ),
    )


def _curves(analysis: Analysis) -> Iterator[str]:
    return _text(
        ["model", "method", "name", "resolution", "curve", "fraction", "mean_score", "images"],
        (
            [g.model, e.id, e.name, g.resolution, area, round(float(fraction), 2), float(score), curve.count]
            for section in analysis.sections
            for g in section.groups
            for e in g.entries
            for area, curve in e.results.curves.items()
            if (mean := curve.mean) is not None
            for fraction, score in zip(GRID, mean, strict=True)
        ),
    )


def _failures(analysis: Analysis) -> Iterator[str]:
    head = ["model", "method", "image", "index", "error"]
    return _text(head, ([f.model, f.method, f.image, f.index, f.error] for f in failures(analysis.run)))


def _published(analysis: Analysis) -> Iterator[str]:
    return _text(
        ["table", "model", "method", "resolution", "metric", "published", "ours"],
        (
            [one.table, one.model, one.method, one.resolution, one.metric, one.published, one.ours]
            for _, _, found in published_values(analysis)
            for one in found
        ),
    )


def _text(head: Sequence[str], rows: Iterable[Sequence[Value]]) -> Iterator[str]:
    yield _line(head)
    for row in rows:
        yield _line([_cell(value) for value in row])


def _line(cells: Sequence[str | float]) -> str:
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _cell(value: Value) -> str | float | int:
    """Numbers as they are; text without formulas; empty for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return csv_text(value) if isinstance(value, str) else value


def csv_text(text: str) -> str:
    """Text on one line, with an apostrophe before what a spreadsheet would take for a formula.

    >>> csv_text("=1+1"), csv_text("cat.jpg")
    ("'=1+1", 'cat.jpg')
    """
    text = one_line(text)
    return "'" + text if text.lstrip()[:1] in set("=+-@") | {"\uff1d", "\uff0b", "\uff0d", "\uff20"} else text
