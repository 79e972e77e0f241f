"""A paper's numbers, and ours of the same method, resolution and metric below each.

The numbers are laid side by side, not tested: the images, the weights and the code differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from faithmap.bench.report.analysis import Analysis, Entry, Section
from faithmap.bench.report.folder import PublishedRow, PublishedTable
from faithmap.bench.report.tables import Cell, Grid
from faithmap.bench.report.text import NONE, number

_COSTS = {"seconds": "mean", "forward": "forward", "backward": "backward", "passes": "passes"}


@dataclass(frozen=True)
class Beside:
    """One published number and ours; None where there is none."""

    table: str
    model: str
    method: str
    column: str
    metric: str
    published: float | str | None
    ours: float | None


def beside(analysis: Analysis) -> Iterator[tuple[PublishedTable, Section, list[Beside]]]:
    """Every published table with each model that it can stand beside: the one that it names, or all where that is not there."""
    for table in analysis.run.published:
        named = [section for section in analysis.sections if table.model and _plain(section.model.name) == _plain(table.model)]
        for section in named or analysis.sections:
            yield table, section, list(_pairs(table, section))


def grid(table: PublishedTable, section: Section, found: list[Beside]) -> Grid:
    """As a table: the published numbers, ours below."""
    at = {(one.method, one.column, one.metric): one for one in found}
    rows = []
    for row in table.rows:
        cells = [[at[row.method, column, metric] for metric in table.metrics] for column in table.columns]
        rows.append([Cell(row.method), *(_cell(entries) for entries in cells)])
    other = "" if table.model is None or _plain(table.model) == _plain(section.model.name) else f" Published of {table.model}."
    what = " / ".join(table.metrics)
    note = f"{what}; published above, this run's {section.model.name} below.{other} {table.note}".strip()
    return Grid(table.name, ["method", *table.columns], rows, note)


def _pairs(table: PublishedTable, section: Section) -> Iterator[Beside]:
    for row in table.rows:
        for column, values in zip(table.columns, row.values, strict=True):
            entry = _ours(row, column, section)
            for i, metric in enumerate(table.metrics):
                published = None if values is None else values[i]
                yield Beside(table.name, section.model.name, row.method, column, metric, published, _value(entry, metric))


def _ours(row: PublishedRow, column: str, section: Section) -> Entry | None:
    """The method of that name or id at that resolution; ``28`` and ``28x28`` are the same."""
    wanted = _plain(row.ours or row.method)
    sides = re.findall(r"\d+", column)
    for group in section.groups:
        if group.cells is not None and sides and group.cells == (int(sides[0]), int(sides[-1])):
            for entry in group.entries:
                if wanted in (_plain(entry.name), _plain(entry.id)):
                    return entry
    return None


def _value(entry: Entry | None, metric: str) -> float | None:
    if entry is None:
        return None
    if metric in _COSTS:
        value: float | None = getattr(entry.cost, _COSTS[metric])
        return value
    score = entry.scores.get(metric)
    return None if score is None else score.mean


def _cell(entries: list[Beside]) -> Cell:
    published = [one.published if isinstance(one.published, str) else number(one.published, 4) for one in entries]
    above = NONE if all(one.published is None for one in entries) else " / ".join(published)
    below = "" if all(one.ours is None for one in entries) else " / ".join(number(one.ours, 4) for one in entries)
    return Cell(above, below)


def _plain(name: str) -> str:
    """Letters and digits alone: ``I-GOS++`` is ``igos_plus_plus``, ``Grad-CAM`` is ``GradCAM``."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "plus"))
