"""Rows are read and merged per image, curves averaged, messages counted, in bounded memory."""

from __future__ import annotations

import tracemalloc

from bench.run_writer import RunWriter, failed, row, texts
from numpy.testing import assert_allclose

from faithmap.bench.report.results import failures
from faithmap.bench.report.run_record import open_run


def test_rows_of_the_same_image_are_merged(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("1", [row("a", i, deletion=0.1 * i) for i in (2, 0)])
    writer.unit("2", [row("a", i, infidelity=float(i), deletion=9.0 if i == 2 else None) for i in (0, 2)])
    found = writer.analysis()
    (entry,) = found.sections[0].entries
    assert entry.results.images.tolist() == [0, 2]
    assert entry.results.frame["deletion"].tolist() == [0.0, 9.0]
    assert entry.results.frame["infidelity"].tolist() == [0.0, 2.0]
    assert found.results.repeated == 1
    assert found.images == 2


def test_mean_curves_of_different_fractions_are_put_on_one_grid(writer: RunWriter) -> None:
    writer.start(["a"])
    rows = [
        row("a", 0, deletion=0.5, deletion_curve=[1.0, 0.0], curve_fractions=[0.0, 1.0]),
        row("a", 1, deletion=0.25, deletion_curve=[1.0, 0.0, 0.0], curve_fractions=[0.0, 0.5, 1.0]),
        failed("a", 2, "broken"),
    ]
    writer.unit("a", rows)
    (entry,) = writer.analysis().sections[0].entries
    curve = entry.results.curves["deletion"]
    assert curve.mean is not None
    assert_allclose(curve.mean[[0, 25, 50, 100]], [1, (0.75 + 0.5) / 2, (0.5 + 0) / 2, 0], atol=1e-7)
    assert curve.count == 2


def test_failures_and_warnings_are_counted_and_left_out_of_means(writer: RunWriter) -> None:
    writer.start(["a"], units=3)
    rows = [
        row("a", 0, deletion=0.5, warnings=["dim"]),
        row("a", 1, deletion=0.7, warnings=["dim", "flat"]),
        failed("a", 2, "damaged"),
    ]
    writer.unit("a", rows)
    writer.unit("z", [row("stranger", 0, deletion=0.0)])
    page = writer.page()
    assert texts(page.models[0].tables[0]) == [["a", "0.600"]]
    assert [texts(grid) for grid in page.messages] == [
        [["net", "a", "damaged", "1"]],
        [["2.png", "net", "a", "damaged"]],
        [["net", "a", "dim", "2"], ["net", "a", "flat", "1"]],
    ]
    assert page.notices == [
        "The run is not complete: 2 of 3 units are finished. Resume it with faithmap bench run.",
        "Failed rows, which are in no table: 1. See Failures.",
        "Ignored rows of a model or method that is not in the plan: 1.",
    ]


def test_hidden_files_are_ignored(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [row("a", 0, deletion=0.5)])
    (writer.folder / "units" / ".b.parquet").write_text("half written")
    assert writer.analysis().images == 1


def test_memory_does_not_grow_with_the_number_of_failures(writer: RunWriter) -> None:
    writer.start(["a"])
    peaks = []
    for units in (1, 8):
        for unit in range(units):
            writer.unit(f"{unit}", [failed("a", 2000 * unit + i, "broken") for i in range(2000)])
        run = open_run(writer.folder)
        sum(1 for _ in failures(run))  # what only a first time keeps
        tracemalloc.start()
        assert sum(1 for _ in failures(run)) == 2000 * units
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0], peaks
