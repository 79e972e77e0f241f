"""Every number of the tables against one that was worked out by hand."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from bench.run_writer import RunWriter, failed, row
from numpy.testing import assert_allclose

from faithmap.bench.report import charts
from faithmap.bench.report.analysis import Analysis, analyse, pairs, pareto, score
from faithmap.bench.report.example_images import ExampleImages, choose
from faithmap.bench.report.page import make_page
from faithmap.bench.report.results import MethodResults, read_rows
from faithmap.bench.report.run_record import open_run
from faithmap.bench.report.tables import ReportTable, TableCell


def analysed(writer: RunWriter) -> Analysis:
    run = open_run(writer.folder)
    return analyse(run, read_rows(run))


def texts(grid: ReportTable) -> list[list[str]]:
    return [[cell.text for cell in line] for line in grid.rows]


def series(values: list[float], index: list[int] | None = None) -> MethodResults:
    at = np.array(range(len(values)) if index is None else index)
    return MethodResults(at, at, at, {"m": np.array(values)}, None, {})


def two_methods(writer: RunWriter) -> None:
    writer.start(["a", "b"])
    for name, deletion, insertion in (("a", (0.1, 0.3), (0.5, 0.7)), ("b", (0.2, 0.6), (0.9, 0.5))):
        writer.unit(
            name,
            [
                row(name, i, deletion=deletion[i], insertion=insertion[i], infidelity=1.0 + i + 1e-12 * (name == "a"))
                for i in range(2)
            ],
        )


def test_the_papers_table(writer: RunWriter) -> None:
    two_methods(writer)
    page = make_page(analysed(writer), [ExampleImages([], [])], "error")
    games = page.models[0].tables[0]
    assert games.head == ["method", "4x4"]
    assert texts(games) == [["a", "0.200* / 0.600"], ["b", "0.400 / 0.700*"]]
    assert [line[1].below for line in games.rows] == ["± 0.100 / ± 0.100", "± 0.200 / ± 0.200"]
    others = page.models[0].tables[1]
    assert others.head == ["method", "resolution", "insertion - deletion ↑", "infidelity ↓"]
    # equal means are both the best, also where rounding tells them apart
    assert texts(others) == [["a", "4x4", "0.400*", "1.500*"], ["b", "4x4", "0.300", "1.500*"]]


def test_an_interval_holds_the_mean_and_is_that_of_the_library() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.9])
    found = score(values)
    assert found is not None
    assert found.mean == pytest.approx(0.4)
    assert found.standard_error == pytest.approx(math.sqrt((0.09 + 0 + 0.04 + 0.25) / 3 / 4))
    assert 0.1 <= found.low < 0.4 < found.high <= 0.9
    assert score(np.empty(0)) is None
    lone = score(np.array([0.5]))
    assert lone is not None
    assert math.isnan(lone.low)


def test_many_images_take_the_normal_law() -> None:
    values = np.tile([0.0, 1.0], 1250)
    found = score(values)
    assert found is not None
    reach = 1.959964 * 0.5 * math.sqrt(2500 / 2499) / math.sqrt(2500)
    assert_allclose((found.low, found.high), (0.5 - reach, 0.5 + reach), rtol=1e-6)
    differences = np.where(np.arange(2500) < 1300, 1.0, -1.0)  # sum 100 of steps of 1: 2 standard deviations
    (pair,) = pairs({"a": series(list(differences)), "b": series([0.0] * 2500)}, "m")
    assert pair.p == pytest.approx(0.0455, abs=1e-4)
    assert pair.difference == pytest.approx(0.04)


def test_pairs_are_sign_flips_on_shared_images() -> None:
    a, b, c = series([1.0, 2.0, 3.0, 9.0], [0, 1, 2, 3]), series([0.0, 0.0, 0.0], [0, 1, 2]), series([5.0], [7])
    (pair,) = pairs({"a": a, "b": b, "c": c}, "m")
    assert (pair.first, pair.second, pair.count) == ("a", "b", 3)
    assert pair.difference == pytest.approx(2)
    assert pair.p == 2 / 8


def test_pairs_are_corrected_for_all_of_them() -> None:
    methods = {"a": series([1.0, 2.0, 3.0]), "b": series([0.0, 0.0, 0.0]), "c": series([0.0, 0.0, 0.0])}
    found = {(pair.first, pair.second): (pair.p, pair.corrected_p) for pair in pairs(methods, "m")}
    assert found == {("a", "b"): (0.25, 0.75), ("a", "c"): (0.25, 0.75), ("b", "c"): (1.0, 1.0)}


def test_nan_is_no_number() -> None:
    (pair,) = pairs({"a": series([1.0, math.nan, 3.0]), "b": series([0.0, 5.0, math.inf])}, "m")
    assert (pair.count, pair.difference) == (1, 1.0)


def test_the_matrix_is_seen_from_the_row(writer: RunWriter) -> None:
    writer.start(["a", "b"])
    for name, low in (("a", 0.1), ("b", 0.3)):
        writer.unit(name, [row(name, i, deletion=low + 0.01 * i, insertion=0.5) for i in range(10)])
    page = make_page(analysed(writer), [ExampleImages([], [])])
    deletion, insertion = page.models[0].groups[0].more_tests
    assert deletion.title == "deletion, lower is better"
    cells = [[(cell.text, cell.mark) for cell in line[1:]] for line in deletion.rows]
    assert cells == [[("", ""), ("-0.200", "better")], [("+0.200", "worse"), ("", "")]]
    assert deletion.rows[0][2].below == f"p {2 / 2**10:.2g}"
    assert insertion.rows[0][2] == TableCell("0.000", "p 1")


def test_metrics_that_contradict_each_other_are_named(writer: RunWriter) -> None:
    writer.start(["a", "b", "c"])
    scores = {"a": (0.1, 0.2, 3.0), "b": (0.2, 0.4, 2.0), "c": (0.3, 0.3, 1.0)}
    for name, (deletion, insertion, infidelity) in scores.items():
        rows = [row(name, i, deletion=deletion, insertion=insertion + 1e-3 * i, infidelity=infidelity) for i in range(10)]
        writer.unit(name, rows)
    found = analysed(writer)
    (group,) = found.sections[0].groups
    assert group.ranks == {
        "deletion": {"a": 1, "b": 2, "c": 3},
        "insertion": {"a": 3, "b": 1, "c": 2},
        "infidelity": {"a": 3, "b": 2, "c": 1},
    }
    assert group.mean_ranks == pytest.approx({"b": 5 / 3, "c": 2, "a": 7 / 3})
    taus = {("deletion", "insertion"): -1 / 3, ("deletion", "infidelity"): -1, ("insertion", "infidelity"): 1 / 3}
    assert group.agreement == pytest.approx(taus)
    told = {(c.method, c.other, c.better_by, c.worse_by) for c in group.contradictions}
    assert ("a", "b", "deletion", "insertion") in told
    assert ("b", "c", "insertion", "infidelity") in told
    assert len(told) == 2 + 3 + 1
    page = make_page(found, [ExampleImages([], [])])
    assert page.models[0].groups[0].contradictions[0][0] == "deletion and infidelity: 3 of 3 pairs of methods"


def test_costs_and_the_front(writer: RunWriter) -> None:
    writer.start(["a", "b", "c"])
    for name, worth, forward, seconds in (("a", 0.3, 1, (1.0, 3.0)), ("b", 0.2, 10, (2.0, 2.0)), ("c", 0.7, 100, (8.0, 9.0))):
        rows = [
            row(
                name,
                i,
                deletion=0.1,
                insertion=0.1 + worth,
                forward=forward,
                backward=0,
                seconds=seconds[i],
                peak_memory=2**20 * (i + 1),
            )
            for i in range(2)
        ]
        writer.unit(name, rows)
    found = analysed(writer)
    cost = found.sections[0].entries[0].cost
    assert (cost.median, cost.mean, cost.passes, cost.memory, cost.count) == (2.0, 2.0, 1.0, 2**21, 2)
    assert cost.slow == pytest.approx(2.9)
    page = make_page(found, [ExampleImages([], [])])
    assert page.models[0].groups[0].fronts == [
        "By passes, forward and backward, no method beats: a, c.",
        "By seconds an image, no method beats: a, c.",
    ]
    assert texts(page.models[0].runtime)[0] == ["a", "4x4", "1", "0", "2 s", "2 s", "2.9 s", "0.1 s", "2 MiB", "2"]
    assert pareto({"a": (1, 1), "b": (1, 1), "c": (1, 0.5)}) == ["a", "b"]


def test_mean_curves_of_different_fractions(writer: RunWriter) -> None:
    writer.start(["a"])
    rows = [
        row("a", 0, deletion=0.5, deletion_curve=[1.0, 0.0], curve_fractions=[0.0, 1.0]),
        row("a", 1, deletion=0.25, deletion_curve=[1.0, 0.0, 0.0], curve_fractions=[0.0, 0.5, 1.0]),
        failed("a", 2, "broken"),
    ]
    writer.unit("a", rows)
    (entry,) = analysed(writer).sections[0].entries
    curve = entry.series.curves["deletion"]
    assert curve.mean is not None
    assert_allclose(curve.mean[[0, 25, 50, 100]], [1, (0.75 + 0.5) / 2, (0.5 + 0) / 2, 0], atol=1e-7)
    assert curve.count == 2


def test_a_second_protocol_has_its_own_table_and_curves(writer: RunWriter) -> None:
    writer.start(["a"], {"deletion": False, "rise_deletion": False, "rise_insertion": True})
    curve = {"rise_insertion_curve": [0.0, 1.0], "rise_curve_fractions": [0.0, 1.0]}
    writer.unit("a", [row("a", 0, deletion=0.5, rise_deletion=0.2, rise_insertion=0.6, **curve)])
    found = analysed(writer)
    assert found.metrics == ["deletion", "rise_deletion", "rise_insertion", "rise_insertion - rise_deletion"]
    page = make_page(found, [ExampleImages([], [])])
    heads = [grid.title for grid in page.models[0].tables]
    assert heads == ["deletion ↓", "rise_deletion ↓ / rise_insertion ↑", "Other metrics"]
    assert found.sections[0].entries[0].series.curves["rise_insertion"].count == 1
    assert len(page.models[0].groups[0].curves) == 1


def test_units_of_the_same_images_are_laid_together(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("1", [row("a", i, deletion=0.1 * i) for i in (2, 0)])
    writer.unit("2", [row("a", i, infidelity=float(i), deletion=9.0 if i == 2 else None) for i in (0, 2)])
    found = analysed(writer)
    (entry,) = found.sections[0].entries
    assert entry.series.index.tolist() == [0, 2]
    assert entry.series.numbers["deletion"].tolist() == [0.0, 9.0]
    assert entry.series.numbers["infidelity"].tolist() == [0.0, 2.0]
    assert found.table.repeated == 1
    assert found.images == 2


def test_failures_and_warnings_are_counted_and_in_no_mean(writer: RunWriter) -> None:
    writer.start(["a"], units=3)
    rows = [
        row("a", 0, deletion=0.5, warnings=["dim"]),
        row("a", 1, deletion=0.7, warnings=["dim", "flat"]),
        failed("a", 2, "damaged"),
    ]
    writer.unit("a", rows)
    writer.unit("z", [row("stranger", 0, deletion=0.0)])
    found = analysed(writer)
    page = make_page(found, [ExampleImages([], [])])
    assert texts(page.models[0].tables[0]) == [["a", "0.600"]]
    assert [texts(grid) for grid in page.troubles] == [
        [["net", "a", "damaged", "1"]],
        [["2.png", "net", "a", "damaged"]],
        [["net", "a", "dim", "2"], ["net", "a", "flat", "1"]],
    ]
    assert page.alarms == [
        "The run is not complete: 2 of 3 units are there. Run faithmap bench run again to go on.",
        "Rows that failed, and are in no table: 1. See Failures.",
        "Rows of a model or method that the plan does not hold, which were left out: 1.",
    ]


@pytest.mark.parametrize(("given", "head"), [({"resolution": 28}, "28x28"), ({"resolution": None}, "4x4")])
def test_a_resolution_is_the_plans_or_the_maps(writer: RunWriter, given: dict[str, int | None], head: str) -> None:
    writer.start([{"id": "a", "name": "a", "label": "A", **given}])
    writer.unit("a", [failed("a", 1, "broken"), row("a", 0, deletion=0.5)])
    writer.unit("b", [failed("a", 2, "broken")])  # its map would have one cell
    assert analysed(writer).sections[0].groups[0].resolution == head


def test_games_at_one_resolution_make_one_group(writer: RunWriter) -> None:
    methods = [{"id": f"a-{side}", "name": "a", "resolution": side} for side in (28, 14)]
    writer.start(methods)
    writer.plan["metrics"][0]["settings"] = {"resolution": 7}
    (writer.folder / "run.json").write_text(json.dumps(writer.plan))
    for side in (28, 14):
        writer.unit(str(side), [row(f"a-{side}", 0, deletion=0.5)])
    (group,) = analysed(writer).sections[0].groups
    assert (group.resolution, [entry.name for entry in group.entries]) == ("7x7", ["a-28", "a-14"])


def test_games_of_which_one_is_at_one_resolution_do_not(writer: RunWriter) -> None:
    writer.start([{"id": f"a-{side}", "name": "a", "resolution": side} for side in (28, 14)])
    one = writer.plan["metrics"][0]
    writer.plan["metrics"] += [{**one, "id": "rise_deletion", "settings": {"resolution": 7}}]
    (writer.folder / "run.json").write_text(json.dumps(writer.plan))
    for side in (28, 14):
        writer.unit(str(side), [row(f"a-{side}", 0, deletion=0.5, rise_deletion=0.4)])
    assert [group.resolution for group in analysed(writer).sections[0].groups] == ["28x28", "14x14"]


def test_a_label_that_is_anothers_id_is_no_name(writer: RunWriter) -> None:
    writer.start([{"id": "a", "label": "b"}, {"id": "b", "label": "twice"}, {"id": "c", "label": "twice"}])
    for name, deletion in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        writer.unit(name, [row(name, i, deletion=deletion + i / 100) for i in range(2)])
    (group,) = analysed(writer).sections[0].groups
    assert [entry.name for entry in group.entries] == ["a", "b", "c"]
    assert len(group.tests["deletion"]) == 3


def test_published_numbers_stand_above_ours(writer: RunWriter) -> None:
    rows = [
        {"method": None, "label": "A+", "resolution": "4x4", "values": {"deletion": 0.0336, "insertion": 0.5246}},
        {"method": "b", "label": "the second", "resolution": "4", "values": {"deletion": 0.1}},
        {"method": "b", "label": "the second", "resolution": "9x9", "values": {"deletion": 0.3}},
    ]
    seconds = [{"label": "A+", "values": {"seconds": "< 1"}}]
    tables = [
        {"title": "Table 1", "model": "VGG", "metrics": ["deletion", "insertion"], "rows": rows},
        {"title": "Table 3", "metrics": ["seconds"], "rows": seconds},
    ]
    methods = [{"id": "x", "name": "a_plus"}, {"id": "b", "name": "b"}]
    writer.start(methods, published={"source": "a paper", "note": "of 1999", "tables": tables})
    for name, low in (("x", 0.25), ("b", 0.5)):
        writer.unit(name, [row(name, 0, deletion=low, insertion=2 * low)])
    page = make_page(analysed(writer), [ExampleImages([], [])])
    first, second = page.models[0].published
    assert first.head == ["method", "4x4", "4", "9x9"]
    cells = [[(cell.text, cell.below) for cell in line] for line in first.rows]
    assert cells[0] == [("A+", ""), ("0.0336 / 0.5246", "0.2500 / 0.5000"), ("-", ""), ("-", "")]
    assert cells[1] == [("the second", ""), ("-", ""), ("0.1000 / -", "0.5000 / 1.0000"), ("0.3000 / -", "")]
    assert first.note == "deletion / insertion: published above, net of this run below. Published of VGG."
    assert texts(second) == [["A+", "< 1"]]
    assert second.rows[0][1].below == "0.5"
    assert page.published == "a paper. of 1999"


@pytest.mark.parametrize(
    "tables", [[], [{"title": "Table 1", "metrics": ["deletion"], "rows": [{"label": "a", "values": {}}]}]]
)
def test_a_paper_without_numbers_is_named_in_one_line(writer: RunWriter, tables: list[dict]) -> None:
    writer.start(["a"], published={"source": "a paper", "note": "It gives none.", "tables": tables})
    writer.unit("a", [row("a", 0, deletion=0.5)])
    page = make_page(analysed(writer), [ExampleImages([], [])])
    assert dict(page.facts).get("paper") == (None if tables else "a paper. It gives none")
    assert bool(page.models[0].published) == bool(tables)


def test_a_table_of_means_over_classes_has_ours_over_classes(writer: RunWriter) -> None:
    one = {"label": "a", "resolution": None, "values": {"hit": 0.5}}
    table = {"title": "VOC", "over": "classes", "metrics": ["hit"], "rows": [one]}
    writer.start(["a"], {"hit": True}, published={"tables": [table]})
    hits = [(3, 1.0), (3, 1.0), (3, 1.0), (7, 0.0), (7, 1.0), (9, None)]
    writer.unit("a", [row("a", i, target=target, hit=hit) for i, (target, hit) in enumerate(hits)])
    found = analysed(writer)
    (grid,) = make_page(found, [ExampleImages([], [])]).models[0].published
    assert [(cell.text, cell.below) for cell in grid.rows[0]] == [("a", ""), ("0.5000", "0.7500")]
    assert grid.note == "hit, means over classes: published above, net of this run below."
    assert found.sections[0].entries[0].scores["hit"].mean == pytest.approx(0.8)
    assert "target" not in found.metrics


def test_images_are_chosen_by_the_mean_over_methods(writer: RunWriter) -> None:
    writer.start(["a", "b"])
    worth = {"a": (0.5, 0.9, 0.1, 0.8, 0.4), "b": (0.5, 0.8, 0.0, 0.0, 0.5)}
    for name, each in worth.items():
        writer.unit(name, [row(name, 10 + i, deletion=0.0, insertion=each[i]) for i in range(5)])
    section = analysed(writer).sections[0]
    chosen = choose(section, "insertion - deletion", True, 1)
    assert [(one.index, one.reason) for one in chosen] == [
        (11, "among the best"),
        (12, "among the worst"),
        (13, "where the methods differ most"),
    ]
    assert chosen[0].score == pytest.approx(0.85)
    assert [one.index for one in choose(section, "deletion", False, 9)] == [10, 14, 11, 13, 12]
    assert choose(section, None, True, 1) == []


def test_pairs_on_different_images_are_corrected_too() -> None:
    methods = {"a": series([1.0, 2.0, 3.0]), "b": series([0.0, 0.0, 0.0]), "c": series([1.0, 2.0], [0, 1])}
    found = {(pair.first, pair.second): (pair.p, pair.corrected_p, pair.count) for pair in pairs(methods, "m")}
    assert found == {("a", "b"): (0.25, 0.75, 3), ("a", "c"): (1.0, 1.0, 2), ("b", "c"): (0.5, 1.0, 2)}


def test_only_a_corrected_p_colours_a_cell(writer: RunWriter) -> None:
    """Six images give p = 2 / 64, which is 0.09 among three pairs."""
    writer.start(["a", "b", "c"])
    for number, name in enumerate("abc"):
        writer.unit(name, [row(name, i, deletion=0.1 * number) for i in range(6)])
    matrix = make_page(analysed(writer), [ExampleImages([], [])]).models[0].groups[0].tests[0]
    assert {cell.mark for line in matrix.rows for cell in line} == {""}
    assert matrix.rows[0][1 + 1].below == "p 0.094"


def test_hidden_files_are_none_of_the_run(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [row("a", 0, deletion=0.5)])
    (writer.folder / "units" / ".b.parquet").write_text("half written")
    assert analysed(writer).images == 1


def test_the_chart_of_costs() -> None:
    """One power of ten lies between 10 and 100; the front steps from a to c, and b is under it."""
    points = [
        charts.CostPoint("a", 0, 10.0, 0.25, math.nan, math.nan, front=True),
        charts.CostPoint("b", 1, 20.0, 0.125, 0.0, 0.25, front=False),
        charts.CostPoint("<c>", 9, 100.0, 0.5, math.nan, math.nan, front=True),
    ]
    drawn = charts.costs("worth", "passes", points)
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)" class="([^"]*)"><title>([^<]*)', drawn)
    found = {name: (float(x), float(y), float(r), style) for x, y, r, style, name in circles}
    assert {name: (r, style) for name, (_, _, r, style) in found.items()} == {
        "a": (6, "dot c0 d0"),
        "b": (4.5, "dot c1 d0"),
        "&lt;c&gt;": (6, "dot c1 d1"),
    }
    (ax, ay, *_), (bx, by, *_), (cx, cy, *_) = found["a"], found["b"], found["&lt;c&gt;"]
    assert (bx - ax) / (cx - ax) == pytest.approx(math.log10(2), abs=1e-3)
    assert (by - ay) / (cy - ay) == pytest.approx(-0.5, abs=1e-3)
    front = re.findall(r'<polyline points="([^"]*)" class="front"', drawn)[0].split()
    assert front[:4] == [f"{ax},{ay}", f"{ax},{ay}", f"{cx},{ay}", f"{cx},{cy}"]
    assert len(re.findall('class="bar', drawn)) == 1


def test_no_two_ticks_of_costs_say_the_same() -> None:
    """Between 1 and 2 passes there is a tick at 1.5."""
    points = [charts.CostPoint(name, 0, cost, cost, math.nan, math.nan, front=True) for name, cost in (("a", 1.0), ("b", 2.0))]
    below = re.findall(r'y="273" text-anchor="middle" class="tick">([^<]*)', charts.costs("worth", "passes", points))
    assert below == ["0.8", "1", "1.5", "2", "3"]


def test_the_chart_of_curves_shows_the_scores() -> None:
    drawn = charts.curves("mean deletion curve", [charts.CurveLine("a", 0, np.linspace(1, 0, 101))])
    points = re.findall(r'points="([^"]*)"', drawn)[0].split()
    (left, top), (right, bottom) = (tuple(map(float, points[i].split(","))) for i in (0, -1))
    middle = tuple(map(float, points[50].split(",")))
    assert middle == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=0.02)
    assert left < right
    assert top < bottom


def test_a_matrix_says_how_many_images_its_pairs_have(writer: RunWriter) -> None:
    writer.start(["a", "b", "c"])
    for name, count in (("a", 3), ("b", 3), ("c", 2)):
        writer.unit(name, [row(name, i, deletion=0.1) for i in range(count)])
    matrix = make_page(analysed(writer), [ExampleImages([], [])]).models[0].groups[0].tests[0]
    assert matrix.note == "2 to 3 images; p by sign flips, Holm-corrected for 3 pairs."


@pytest.mark.parametrize("worths", [(0.1, 0.1), (0.1, 0.1 + 1e-17), (0.0, 0.0), (1e-12, 2e-12), (-3e5, 4e5), (1, 1 + 1e-15)])
def test_axes_hold_any_values(worths: tuple[float, float]) -> None:
    points = [charts.CostPoint(str(i), i, 1.0, worth, math.nan, math.nan, front=True) for i, worth in enumerate(worths)]
    drawn = charts.costs("worth", "passes", points)
    places = [float(y) for y in re.findall(r'cy="([-\d.]+)"', drawn)]
    assert all(20 < y < charts.HEIGHT for y in places)
    assert charts.curves("flat", [charts.CurveLine("a", 0, np.full(101, worths[0]))])
