"""The content of the report, in order, and its HTML page, which makes no network request.

Style and script are part of the page. A content security policy in its head allows only these two, by their SHA-256, and
images that are part of the page: even a name that jinja2 had not escaped would neither run nor load anything.
"""

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
from faithmap.bench.report.analysis import Analysis, MeanScore, MethodEntry, ModelSection, ResolutionGroup, pareto_front
from faithmap.bench.report.example_images import ExampleImages
from faithmap.bench.report.results import AREAS, protocols
from faithmap.bench.report.tables import ReportTable, SpreadText, TableCell
from faithmap.errors import one_line
from faithmap.viz.browser import colours, display, script
from faithmap.viz.figure import COLORMAP

_TEMPLATES = files("faithmap.bench.report") / "templates"


@dataclass
class GroupPart:
    """The methods of one resolution."""

    name: str
    methods: list[tuple[str, str]]
    tests: list[ReportTable]
    more_tests: list[ReportTable]
    ranks: list[ReportTable]
    contradictions: list[tuple[str, list[str]]]
    curves: list[Markup]
    costs: list[Markup]
    front_texts: list[str]


@dataclass
class ModelPart:
    """One model."""

    name: str
    tables: list[ReportTable]
    groups: list[GroupPart]
    runtime: ReportTable
    examples: ExampleImages
    published: list[ReportTable] = field(default_factory=list)


@dataclass
class ReportPage:
    """The whole report."""

    title: str
    facts: list[tuple[str, str]]
    notices: list[str]
    models: list[ModelPart]
    messages: list[ReportTable]
    settings: list[ReportTable]
    spread: str
    published: str


def make_page(
    analysis: Analysis, examples: Sequence[ExampleImages], spread: Literal["interval", "error"] = "interval"
) -> ReportPage:
    """Lay out a report.

    Args:
        analysis: of the run.
        examples: example images of each model.
        spread: what is below a mean: its 95 % interval, or its standard error.
    """
    spread_text = tables.interval if spread == "interval" else tables.standard_error
    parts = [
        _model_part(analysis, section, images, spread_text) for section, images in zip(analysis.sections, examples, strict=True)
    ]
    by_name = {section.model.name: part for section, part in zip(analysis.sections, parts, strict=True)}
    for table, section, values in tables.published_values(analysis):
        by_name[section.model.name].published.append(tables.published_grid(table, section, values))
    messages = [tables.failures(analysis), tables.failed_images(analysis), tables.warnings(analysis)]
    return ReportPage(
        title=analysis.run.plan.name or analysis.run.folder.name,
        facts=_facts(analysis),
        notices=_notices(analysis),
        models=parts,
        messages=[table for table in messages if table is not None],
        settings=_settings(analysis),
        spread="the 95 % interval" if spread == "interval" else "the standard error",
        published=_published_source(analysis),
    )


def as_html(page: ReportPage) -> str:
    """The HTML page."""
    style, code = _template("style.css"), f"{script()}\n{_template('script.js')}"
    allowed = f"img-src data:; style-src {_csp_hash(style)}; script-src {_csp_hash(code)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    loader = FunctionLoader(_template)
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=loader, trim_blocks=True, lstrip_blocks=True)
    environment.filters["line"] = one_line
    cards = [
        {"height": image.height, "width": image.width, "maps": list(image.maps)}
        for model in page.models
        for image in model.examples.images
    ]
    return environment.get_template("report.html").render(
        page=page, policy=policy, style=style, script=code, show=_colouring(), cards=cards
    )


def _colouring() -> Mapping[str, Any]:
    """The rules of :mod:`faithmap.viz.figure`, for the script."""
    return {"colours": colours(COLORMAP), **display()}


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _model_part(analysis: Analysis, section: ModelSection, examples: ExampleImages, spread_text: SpreadText) -> ModelPart:
    found = [tables.areas(section, analysis.metrics, spread_text, prefix) for prefix in protocols(analysis.metrics)]
    found.append(tables.others(section, analysis.metrics, spread_text))
    groups = [_group_part(analysis, group) for group in section.groups] if analysis.metrics else []
    return ModelPart(section.model.name, [table for table in found if table], groups, tables.runtime(section), examples)


def _group_part(analysis: Analysis, group: ResolutionGroup) -> GroupPart:
    tests = {metric: tables.matrix(group, metric) for metric in group.tests if group.tests[metric]}
    first = [analysis.headline] if analysis.headline in tests else list(tests)[:1]
    cost_charts = [
        _cost_chart(analysis, group, cost, axis)
        for cost, axis in (("passes", "passes, forward and backward"), ("mean", "seconds per image"))
    ]
    areas = [prefix + area for prefix in protocols(analysis.metrics) for area in AREAS]
    return GroupPart(
        name=group.resolution,
        methods=[(entry.name, charts.style_of(analysis.colours[entry.name])) for entry in group.entries],
        tests=[tests[metric] for metric in first if metric],
        more_tests=[table for metric, table in tests.items() if metric not in first],
        ranks=[table for table in (tables.ranks(group), tables.agreement(group)) if table],
        contradictions=_contradictions(group),
        curves=[chart for area in areas if (chart := _curve_chart(analysis, group, area)) is not None],
        costs=[chart for chart, _ in cost_charts if chart is not None],
        front_texts=[text for _, text in cost_charts if text],
    )


def _contradictions(group: ResolutionGroup) -> list[tuple[str, list[str]]]:
    """For each two metrics: the share of pairs of methods that they contradict each other about, and which."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in group.contradictions:
        sentence = f"{one.method} is better than {one.other} by {one.better_by}, and worse by {one.worse_by}"
        found.setdefault((one.better_by, one.worse_by), []).append(sentence)
    return [
        (f"{a} and {b}: {len(sentences)} of {len(group.tests[a])} pairs of methods", sentences)
        for (a, b), sentences in sorted(found.items(), key=lambda item: -len(item[1]))
    ]


def _curve_chart(analysis: Analysis, group: ResolutionGroup, area: str) -> Markup | None:
    curves = [(entry, entry.results.curves[area].mean) for entry in group.entries if area in entry.results.curves]
    lines = [charts.CurveLine(e.name, analysis.colours[e.name], mean) for e, mean in curves if mean is not None]
    return charts.curves(f"mean {area} curve", lines) if lines else None


def _cost_chart(analysis: Analysis, group: ResolutionGroup, cost: str, axis: str) -> tuple[Markup | None, str]:
    """The chart and its Pareto front in words; nothing for a single method."""
    metric = analysis.headline
    if metric is None:
        return None, ""
    sign = 1 if analysis.directions[metric] else -1
    found: list[tuple[MethodEntry, float, MeanScore]] = [
        (entry, price, score)
        for entry in group.entries
        if (price := getattr(entry.cost, cost) or 0) > 0 and (score := entry.scores[metric]) is not None
    ]
    if len(found) < 2:
        return None, ""
    front = pareto_front({entry.name: (price, sign * score.mean) for entry, price, score in found})
    points = [
        charts.CostPoint(e.name, analysis.colours[e.name], price, s.mean, s.low, s.high, e.name in front)
        for e, price, s in found
    ]
    text = f"Pareto front by {axis}: {', '.join(front)}."
    return charts.costs(f"{metric} against {'time' if cost == 'mean' else cost}", axis, points), text


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    plan, data, paper = analysis.run.plan, analysis.run.plan.data, analysis.run.published
    images = f"{analysis.images:,}" + (f" of {data.images:,}" if data.images is not None else "")
    units = f"{len(analysis.run.files):,}" + (f" of {plan.units:,}" if plan.units is not None else "")
    facts = [
        ("created", plan.created or ""),
        ("data", " ".join(filter(None, (data.kind, data.path)))),
        ("images", images),
        ("units", units),
        ("seed", "" if plan.seed is None else str(plan.seed)),
        ("failures", f"{analysis.results.failed.total():,}"),
        ("paper", _published_source(analysis) if paper is not None and not paper.tables else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _notices(analysis: Analysis) -> list[str]:
    """What restricts the meaning of the numbers."""
    results, plan, units = analysis.results, analysis.run.plan, len(analysis.run.files)
    notices = []
    if plan.units is not None and units < plan.units:
        notices.append(
            f"The run is not complete: {units:,} of {plan.units:,} units are finished. Resume it with faithmap bench run."
        )
    if results.failed:
        notices.append(f"Failed rows, which are in no table: {results.failed.total():,}. See Failures.")
    if results.unplanned:
        notices.append(f"Ignored rows of a model or method that is not in the plan: {results.unplanned:,}.")
    if results.repeated:
        notices.append(f"Values that exist twice, of which the one of the last file is used: {results.repeated:,}.")
    return notices


def _published_source(analysis: Analysis) -> str:
    paper = analysis.run.published
    return "" if paper is None else ". ".join(part.rstrip(".") for part in (paper.title, paper.source, paper.note) if part)


def _settings(analysis: Analysis) -> list[ReportTable]:
    plan = analysis.run.plan
    methods = [
        [m.id, m.class_name or m.name, "" if m.resolution is None else str(m.resolution), _settings_text(m.settings)]
        for m in plan.methods
    ]
    metrics = [
        [m.id, m.name, {True: "higher", False: "lower", None: ""}[m.higher_is_better], _settings_text(m.settings)]
        for m in plan.metrics
    ]
    grids = [
        _text_table("Models", ["model", "digest"], [[m.name, m.digest] for m in plan.models]),
        _text_table("Methods", ["method", "class", "resolution", "settings"], methods),
        _text_table("Metrics", ["metric", "name", "better", "settings"], metrics),
        _text_table("Data", ["field", "value"], [[k, str(v)] for k, v in plan.data.model_dump().items() if v is not None]),
        _text_table("Versions", ["software", "version"], [[name, str(version)] for name, version in plan.versions.items()]),
    ]
    return [grid for grid in grids if grid.rows]


def _text_table(title: str, head: list[str], rows: Sequence[Sequence[str]]) -> ReportTable:
    return ReportTable(title, head, [[TableCell(text) for text in row] for row in rows])


def _settings_text(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value, default=str)}" for name, value in settings.items())
