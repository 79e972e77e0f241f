"""Tables mark the best method and shown differences, and have published values above those of the run."""

from __future__ import annotations

from typing import Any

import pytest
from bench.run_writer import RunWriter, row, texts

from faithmap.bench.report.tables import TableCell


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


def test_the_table_of_deletion_and_insertion_marks_the_best(writer: RunWriter) -> None:
    two_methods(writer)
    page = writer.page("error")
    areas = page.models[0].tables[0]
    assert areas.head == ["method", "4x4"]
    assert texts(areas) == [["a", "0.200* / 0.600"], ["b", "0.400 / 0.700*"]]
    assert [line[1].below for line in areas.rows] == ["± 0.100 / ± 0.100", "± 0.200 / ± 0.200"]
    others = page.models[0].tables[1]
    assert others.head == ["method", "resolution", "insertion - deletion ↑", "infidelity ↓"]
    # equal means are both the best, also where rounding tells them apart
    assert texts(others) == [["a", "4x4", "0.400*", "1.500*"], ["b", "4x4", "0.300", "1.500*"]]


def test_the_matrix_has_the_difference_of_row_minus_column(writer: RunWriter) -> None:
    writer.start(["a", "b"])
    for name, low in (("a", 0.1), ("b", 0.3)):
        writer.unit(name, [row(name, i, deletion=low + 0.01 * i, insertion=0.5) for i in range(10)])
    page = writer.page()
    deletion, insertion = page.models[0].groups[0].more_tests
    assert deletion.title == "deletion, lower is better"
    cells = [[(cell.text, cell.mark) for cell in line[1:]] for line in deletion.rows]
    assert cells == [[("", ""), ("-0.200", "better")], [("+0.200", "worse"), ("", "")]]
    assert deletion.rows[0][2].below == f"p {2 / 2**10:.2g}"
    assert insertion.rows[0][2] == TableCell("0.000", "p 1")


def test_only_a_corrected_p_colours_a_cell(writer: RunWriter) -> None:
    """Six images give p = 2 / 64, which is 0.09 among three pairs."""
    writer.start(["a", "b", "c"])
    for number, name in enumerate("abc"):
        writer.unit(name, [row(name, i, deletion=0.1 * number) for i in range(6)])
    matrix = writer.page().models[0].groups[0].tests[0]
    assert {cell.mark for line in matrix.rows for cell in line} == {""}
    assert matrix.rows[0][1 + 1].below == "p 0.094"


def test_a_matrix_has_the_number_of_images_of_its_pairs(writer: RunWriter) -> None:
    writer.start(["a", "b", "c"])
    for name, count in (("a", 3), ("b", 3), ("c", 2)):
        writer.unit(name, [row(name, i, deletion=0.1) for i in range(count)])
    matrix = writer.page().models[0].groups[0].tests[0]
    assert matrix.note == "2 to 3 images; p by sign flips, Holm-corrected for 3 pairs."


def test_a_second_protocol_has_its_own_table_and_curves(writer: RunWriter) -> None:
    writer.start(["a"], {"deletion": False, "rise_deletion": False, "rise_insertion": True})
    curve = {"rise_insertion_curve": [0.0, 1.0], "rise_curve_fractions": [0.0, 1.0]}
    writer.unit("a", [row("a", 0, deletion=0.5, rise_deletion=0.2, rise_insertion=0.6, **curve)])
    found = writer.analysis()
    assert found.metrics == ["deletion", "rise_deletion", "rise_insertion", "rise_insertion - rise_deletion"]
    page = writer.page()
    heads = [grid.title for grid in page.models[0].tables]
    assert heads == ["deletion ↓", "rise_deletion ↓ / rise_insertion ↑", "Other metrics"]
    assert found.sections[0].entries[0].results.curves["rise_insertion"].count == 1
    assert len(page.models[0].groups[0].curves) == 1


def test_published_values_are_above_those_of_the_run(writer: RunWriter) -> None:
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
    page = writer.page()
    first, second = page.models[0].published
    assert first.head == ["method", "4x4", "4", "9x9"]
    cells = [[(cell.text, cell.below) for cell in line] for line in first.rows]
    assert cells[0] == [("A+", ""), ("0.0336 / 0.5246", "0.2500 / 0.5000"), ("-", ""), ("-", "")]
    assert cells[1] == [("the second", ""), ("-", ""), ("0.1000 / -", "0.5000 / 1.0000"), ("0.3000 / -", "")]
    assert first.note == "deletion / insertion: above as published, below net of this run. Published for VGG."
    assert texts(second) == [["A+", "< 1"]]
    assert second.rows[0][1].below == "0.5"
    assert page.published == "a paper. of 1999"


@pytest.mark.parametrize(
    "tables", [[], [{"title": "Table 1", "metrics": ["deletion"], "rows": [{"label": "a", "values": {}}]}]]
)
def test_a_paper_without_numbers_is_named_in_the_facts(writer: RunWriter, tables: list[dict[str, Any]]) -> None:
    writer.start(["a"], published={"source": "a paper", "note": "It gives none.", "tables": tables})
    writer.unit("a", [row("a", 0, deletion=0.5)])
    page = writer.page()
    assert dict(page.facts).get("paper") == (None if tables else "a paper. It gives none")
    assert bool(page.models[0].published) == bool(tables)


def test_a_published_table_over_classes_has_means_over_classes(writer: RunWriter) -> None:
    one = {"label": "a", "resolution": None, "values": {"hit": 0.5}}
    table = {"title": "VOC", "over": "classes", "metrics": ["hit"], "rows": [one]}
    writer.start(["a"], {"hit": True}, published={"tables": [table]})
    hits = [(3, 1.0), (3, 1.0), (3, 1.0), (7, 0.0), (7, 1.0), (9, None)]
    writer.unit("a", [row("a", i, target=target, hit=hit) for i, (target, hit) in enumerate(hits)])
    found = writer.analysis()
    (grid,) = writer.page().models[0].published
    assert [(cell.text, cell.below) for cell in grid.rows[0]] == [("a", ""), ("0.5000", "0.7500")]
    assert grid.note == "hit, means over classes: above as published, below net of this run."
    hit = found.sections[0].entries[0].scores["hit"]
    assert hit is not None
    assert hit.mean == pytest.approx(0.8)
    assert "target" not in found.metrics
