"""The report as Markdown, for a repository or an issue: the tables of the page. Untrusted text is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator

from faithmap.bench.report.page import GroupPart, ModelPart, ReportPage
from faithmap.bench.report.tables import ReportTable, TableCell
from faithmap.errors import one_line

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&$])")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_MARKS = {"best": "**{}**", "better": "**{}**", "worse": "_{}_", "": "{}"}


def as_markdown(page: ReportPage) -> str:
    """The report without charts and images."""
    return "\n".join(_lines(page)).rstrip() + "\n"


def _lines(page: ReportPage) -> Iterator[str]:
    yield f"# {markdown(page.title)}"
    yield ""
    yield from (f"- {name}: {markdown(value)}" for name, value in page.facts)
    yield ""
    for notice in page.notices:
        yield from (f"> {markdown(notice)}", "")
    for model in page.models:
        yield from _model(model, page.spread, page.published)
    for title, grids in (("Failures and warnings", page.messages), ("Settings and versions", page.settings)):
        if grids:
            yield from (f"## {title}", "")
            for grid in grids:
                yield from _grid(grid)


def _model(model: ModelPart, spread: str, source: str) -> Iterator[str]:
    yield from (f"## {markdown(model.name)}", "")
    for grid in model.tables:
        yield from _grid(grid)
    if model.tables:
        yield from (f"\\* the best method of its resolution. In brackets: {spread}.", "")
    if model.published:
        yield from ("### Published numbers", "", markdown(source), "")
        for grid in model.published:
            yield from _grid(grid, level=4)
    for group in model.groups:
        yield from _group(group)
    yield from _grid(model.runtime)


def _group(group: GroupPart) -> Iterator[str]:
    yield from (f"### At {markdown(group.name)}", "")
    for grid in (*group.tests, *group.more_tests, *group.ranks):
        yield from _grid(grid, level=4)
    if group.contradictions:
        yield from ("#### Contradictions between metrics", "")
        yield from (f"- {markdown(title)}: {markdown('; '.join(found))}" for title, found in group.contradictions)
        yield ""
    yield from (f"- {markdown(text)}" for text in group.front_texts)
    yield ""


def _grid(grid: ReportTable, level: int = 3) -> Iterator[str]:
    yield from (f"{'#' * level} {markdown(grid.title)}", "")
    yield f"| {' | '.join(map(markdown, grid.head))} |"
    yield "|" + " --- |" * len(grid.head)
    yield from (f"| {' | '.join(map(_cell, row))} |" for row in grid.rows)
    yield ""
    if grid.note:
        yield from (markdown(grid.note), "")


def _cell(cell: TableCell) -> str:
    text = _MARKS[cell.mark].format(markdown(cell.text)) if cell.text else ""
    return f"{text} ({markdown(cell.below)})" if cell.below else text


def markdown(text: str) -> str:
    r"""Text on one line, without meaning to Markdown or HTML.

    >>> print(markdown("<b>|a_b|"))
    &lt;b&gt;\|a\_b\|
    """
    return _SPECIAL.sub(lambda found: _ENTITIES.get(found[1], "\\" + found[1]), one_line(text))
