"""A paper's numbers, and ours of the same method, resolution and metric below each.

The numbers are laid side by side, not tested: the images, the weights and the code differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from faithmap.bench.report.analysis import Analysis, Entry, Section
from faithmap.bench.report.folder import PublishedRow, PublishedTable, size_of
from faithmap.bench.report.tables import Cell, Grid
from faithmap.bench.report.text import NONE, amount, number

_COSTS = {"seconds": "mean", "forward": "forward", "backward": "backward", "passes": "passes"}


@dataclass(frozen=True)
class Beside:
    """One published number and ours; None where there is none."""

    table: str
    model: str
    method: str
    resolution: str
    metric: str
    published: float | str | None
    ours: float | None


def beside(analysis: Analysis) -> Iterator[tuple[PublishedTable, Section, list[Beside]]]:
    """Every published table with each model that it can stand beside: the one that it names, or all where that is not there."""
    for table in analysis.run.published.tables if analysis.run.published else ():
        named = [section for section in analysis.sections if table.model and _plain(section.model.name) == _plain(table.model)]
        for section in named or analysis.sections:
            yield table, section, list(_pairs(table, section))


def grid(table: PublishedTable, section: Section, found: list[Beside]) -> Grid:
    """Methods by resolutions: the published numbers, ours below."""
    at = {(one.method, one.resolution, one.metric): one for one in found}
    methods, columns = (list(dict.fromkeys(names)) for names in ([o.method for o in found], [o.resolution for o in found]))
    rows = []
    for method in methods:
        cells = [[at.get((method, column, metric)) for metric in table.metrics] for column in columns]
        rows.append([Cell(method), *(_cell([one for one in entries if one is not None]) for entries in cells)])
    other = "" if table.model is None or _plain(table.model) == _plain(section.model.name) else f"Published of {table.model}."
    means = ", means over classes" if table.over == "classes" else ""
    what = f"{' / '.join(table.metrics)}{means}: published above, {section.model.name} of this run below."
    return Grid(
        table.title,
        ["method", *(column or "value" for column in columns)],
        rows,
        " ".join(filter(None, (what, other, table.note))),
    )


def _pairs(table: PublishedTable, section: Section) -> Iterator[Beside]:
    for row in table.rows:
        entry = _ours(row, section)
        for metric in table.metrics:
            published = row.values.get(metric)
            yield Beside(
                table.title, section.model.name, row.label, row.resolution, metric, published, _value(entry, metric, table)
            )


def _ours(row: PublishedRow, section: Section) -> Entry | None:
    """The method that the row names, else the one of that label; of several resolutions the row's (``28`` is ``28x28``)."""
    wanted = {_plain(row.method)} if row.method else {_plain(row.label)}
    fits = [entry for entry in section.entries if wanted & {_plain(entry.id), _plain(entry.name)}]
    size = size_of(row.resolution)
    return next((entry for entry in fits if size is None or size in (entry.cells, entry.series.cells)), None)


def _value(entry: Entry | None, metric: str, table: PublishedTable) -> float | None:
    if entry is None:
        return None
    if metric in _COSTS:
        value: float | None = getattr(entry.cost, _COSTS[metric])
        return value
    if table.over == "classes":
        return entry.series.mean_over_classes(metric)
    score = entry.scores.get(metric)
    return None if score is None else score.mean


def _cell(entries: list[Beside]) -> Cell:
    published = [_written(one, one.published) for one in entries]
    above = NONE if all(one.published is None for one in entries) else " / ".join(published)
    below = "" if all(one.ours is None for one in entries) else " / ".join(_written(one, one.ours) for one in entries)
    return Cell(above, below)


def _written(one: Beside, value: float | str | None) -> str:
    """Four decimals, as the papers do; costs to three digits."""
    if isinstance(value, str):
        return value
    return amount(value) if one.metric in _COSTS else number(value, 4)


def _plain(name: str) -> str:
    """Letters and digits alone: ``I-GOS++`` is ``igos_plus_plus``, ``Grad-CAM`` is ``GradCAM``."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "plus"))
