"""What the report says, in order: the parts that the HTML page and the Markdown file are both written from."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from faithmap.bench.report import charts, tables
from faithmap.bench.report.analysis import Analysis, MethodEntry, ModelSection, ResolutionGroup, pareto
from faithmap.bench.report.example_images import ExampleImages
from faithmap.bench.report.results import GAMES, protocols
from faithmap.bench.report.tables import ReportTable, SpreadText, TableCell
from faithmap.text import one_line
from faithmap.viz.browser import colours, display, script
from faithmap.viz.overlay import COLORMAP


@dataclass
class GroupPart:
    """What is shown of the methods of one resolution."""

    name: str
    methods: list[tuple[str, str]]
    tests: list[ReportTable]
    more_tests: list[ReportTable]
    ranks: list[ReportTable]
    contradictions: list[tuple[str, list[str]]]
    curves: list[Markup]
    costs: list[Markup]
    fronts: list[str]


@dataclass
class ModelPart:
    """What is shown of a model."""

    name: str
    tables: list[ReportTable]
    groups: list[GroupPart]
    runtime: ReportTable
    album: ExampleImages
    published: list[ReportTable] = field(default_factory=list)


@dataclass
class ReportPage:
    """All of a report."""

    title: str
    facts: list[tuple[str, str]]
    alarms: list[str]
    models: list[ModelPart]
    troubles: list[ReportTable]
    settings: list[ReportTable]
    spread: str
    published: str


def make_page(
    analysis: Analysis, albums: Sequence[ExampleImages], spread: Literal["interval", "error"] = "interval"
) -> ReportPage:
    """Lay out a report.

    Args:
        analysis: what it says.
        albums: one a model.
        spread: what stands below a mean: its 95 % interval, or its standard error.
    """
    reach = tables.interval if spread == "interval" else tables.standard_error
    parts = [_model(analysis, section, album, reach) for section, album in zip(analysis.sections, albums, strict=True)]
    by_name = {section.model.name: part for section, part in zip(analysis.sections, parts, strict=True)}
    for table, section, found in tables.beside(analysis):
        by_name[section.model.name].published.append(tables.published_grid(table, section, found))
    troubles = [tables.failures(analysis), tables.failed_images(analysis), tables.warnings(analysis)]
    plan = analysis.run.plan
    return ReportPage(
        title=plan.name or analysis.run.folder.name,
        facts=_facts(analysis),
        alarms=_alarms(analysis),
        models=parts,
        troubles=[grid for grid in troubles if grid is not None],
        settings=_settings(analysis),
        spread="the 95 % interval" if spread == "interval" else "the standard error",
        published=_source(analysis),
    )


def _model(analysis: Analysis, section: ModelSection, album: ExampleImages, reach: SpreadText) -> ModelPart:
    found = [tables.games(section, analysis.metrics, reach, prefix) for prefix in protocols(analysis.metrics)]
    found.append(tables.others(section, analysis.metrics, reach))
    groups = [_group(analysis, group) for group in section.groups] if analysis.metrics else []
    return ModelPart(section.model.name, [grid for grid in found if grid], groups, tables.runtime(section), album)


def _group(analysis: Analysis, group: ResolutionGroup) -> GroupPart:
    grids = {metric: tables.matrix(group, metric) for metric in group.tests if group.tests[metric]}
    first = [analysis.headline] if analysis.headline in grids else list(grids)[:1]
    drawn = [
        _costs(analysis, group, *axis) for axis in (("passes", "passes, forward and backward"), ("mean", "seconds an image"))
    ]
    return GroupPart(
        name=group.resolution,
        methods=[(entry.name, charts.style_of(analysis.colours[entry.name])) for entry in group.entries],
        tests=[grids[metric] for metric in first if metric],
        more_tests=[grid for metric, grid in grids.items() if metric not in first],
        ranks=[grid for grid in (tables.ranks(group), tables.agreement(group)) if grid],
        contradictions=_contradictions(group),
        curves=[chart for game in _games(analysis) if (chart := _curves(analysis, group, game)) is not None],
        costs=[chart for chart, _ in drawn if chart is not None],
        fronts=[front for _, front in drawn if front],
    )


def _games(analysis: Analysis) -> list[str]:
    return [prefix + game for prefix in protocols(analysis.metrics) for game in GAMES]


def _contradictions(group: ResolutionGroup) -> list[tuple[str, list[str]]]:
    """By each two metrics: how many pairs of methods they contradict each other about, and which."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in group.contradictions:
        sentence = f"{one.method} is better than {one.other} by {one.better_by}, and worse by {one.worse_by}"
        found.setdefault((one.better_by, one.worse_by), []).append(sentence)
    return [
        (f"{a} and {b}: {len(said)} of {len(group.tests[a])} pairs of methods", said)
        for (a, b), said in sorted(found.items(), key=lambda item: -len(item[1]))
    ]


def _curves(analysis: Analysis, group: ResolutionGroup, game: str) -> Markup | None:
    means = [(entry, entry.series.curves[game].mean) for entry in group.entries if game in entry.series.curves]
    lines = [charts.CurveLine(e.name, analysis.colours[e.name], mean) for e, mean in means if mean is not None]
    return charts.curves(f"mean {game} curve", lines) if lines else None


def _costs(analysis: Analysis, group: ResolutionGroup, cost: str, axis: str) -> tuple[Markup | None, str]:
    """The chart, and its front in words; nothing of one method alone."""
    metric = analysis.headline
    if metric is None:
        return None, ""
    sign = 1 if analysis.directions[metric] else -1
    there = {e: price for e in group.entries if (price := getattr(e.cost, cost) or 0) > 0 and e.scores[metric] is not None}
    if len(there) < 2:
        return None, ""
    front = pareto({e.name: (price, sign * _score(e, metric).mean) for e, price in there.items()})
    points = [
        charts.CostPoint(e.name, analysis.colours[e.name], price, s.mean, s.low, s.high, e.name in front)
        for e, price in there.items()
        for s in [_score(e, metric)]
    ]
    words = f"By {axis}, no method beats: {', '.join(front)}."
    return charts.costs(f"{metric} against {'time' if cost == 'mean' else cost}", axis, points), words


def _score(entry: MethodEntry, metric: str) -> Any:
    return entry.scores[metric]


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    plan = analysis.run.plan
    data = plan.data
    images = f"{analysis.images:,}" + (f" of {data.images:,}" if data.images is not None else "")
    units = f"{len(analysis.run.files):,}" + (f" of {plan.units:,}" if plan.units is not None else "")
    facts = [
        ("created", plan.created or ""),
        ("data", " ".join(filter(None, (data.kind, data.path)))),
        ("images", images),
        ("units", units),
    ]
    facts += [("seed", "" if plan.seed is None else str(plan.seed)), ("failures", f"{analysis.table.failed.total():,}")]
    paper = analysis.run.published
    if paper is not None and not paper.tables:
        facts.append(("paper", _source(analysis)))  # no table is there to say why
    return [(name, value) for name, value in facts if value]


def _alarms(analysis: Analysis) -> list[str]:
    """What makes the numbers less than they seem."""
    table, plan = analysis.table, analysis.run.plan
    said = []
    if plan.units is not None and len(analysis.run.files) < plan.units:
        there = len(analysis.run.files)
        said.append(
            f"The run is not complete: {there:,} of {plan.units:,} units are there. Run faithmap bench run again to go on."
        )
    if table.failed:
        said.append(f"Rows that failed, and are in no table: {table.failed.total():,}. See Failures.")
    if table.strangers:
        said.append(f"Rows of a model or method that the plan does not hold, which were left out: {table.strangers:,}.")
    if table.repeated:
        said.append(f"Numbers that were there twice, of which the one of the last file counts: {table.repeated:,}.")
    return said


def _source(analysis: Analysis) -> str:
    """Where the published numbers are from."""
    paper = analysis.run.published
    return "" if paper is None else ". ".join(part.rstrip(".") for part in (paper.title, paper.source, paper.note) if part)


def _settings(analysis: Analysis) -> list[ReportTable]:
    plan = analysis.run.plan
    methods = [
        [m.id, m.class_name or m.name, "" if m.resolution is None else str(m.resolution), _plain(m.settings)]
        for m in plan.methods
    ]
    metrics = [
        [m.id, m.name, {True: "higher", False: "lower", None: ""}[m.higher_is_better], _plain(m.settings)] for m in plan.metrics
    ]
    grids = [
        _grid("Models", ["model", "digest"], [[m.name, m.digest] for m in plan.models]),
        _grid("Methods", ["method", "class", "resolution", "settings"], methods),
        _grid("Metrics", ["metric", "name", "better", "settings"], metrics),
        _grid("Data", ["what", "value"], [[k, str(v)] for k, v in plan.data.model_dump().items() if v is not None]),
        _grid("Versions", ["what", "version"], [[name, str(version)] for name, version in plan.versions.items()]),
    ]
    return [grid for grid in grids if grid.rows]


def _grid(title: str, head: list[str], rows: Sequence[Sequence[str]]) -> ReportTable:
    return ReportTable(title, head, [[TableCell(text) for text in row] for row in rows])


def _plain(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value, default=str)}" for name, value in settings.items())


_TEMPLATES = files("faithmap.bench.report") / "templates"


def as_html(page: ReportPage) -> str:
    """The page."""
    style, play = _text("style.css"), f"{script()}\n{_text('script.js')}"
    allowed = f"img-src data:; style-src {_digest(style)}; script-src {_digest(play)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    loader = FunctionLoader(_text)
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=loader, trim_blocks=True, lstrip_blocks=True)
    environment.filters["line"] = one_line
    template = environment.get_template("report.html")
    return template.render(page=page, policy=policy, style=style, script=play, show=_show(), cards=_cards(page))


def _cards(page: ReportPage) -> list[dict[str, Any]]:
    """What the script needs of each card, in the order of the page."""
    return [
        {"height": card.height, "width": card.width, "maps": list(card.maps)}
        for model in page.models
        for card in model.album.cards
    ]


def _show() -> Mapping[str, Any]:
    """How maps are coloured: the rules of :mod:`faithmap.viz.overlay`."""
    return {"colours": colours(COLORMAP), **display()}


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
