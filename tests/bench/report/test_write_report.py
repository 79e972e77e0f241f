"""A report is complete or absent, replaces only an older report, and refuses bad input with one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bench.run_writer import RunWriter, failed, row
from cyclopts import App

import faithmap.bench.report as report_package
import faithmap.cli as cli
from faithmap.bench.report import write_report
from faithmap.cli.bench import report
from faithmap.errors import USER_ERROR, UserError


@pytest.mark.parametrize("few", [{}, {"deletion": 0.5}, {"sparseness": 0.5}], ids=["no metric", "one area", "no direction"])
def test_a_run_with_few_columns_has_a_report(writer: RunWriter, few: dict[str, float]) -> None:
    writer.start(["a"], {"sparseness": None})
    writer.unit("a", [row("a", 0, **few)])
    written = write_report(writer.folder)
    assert (written.images, written.methods, written.failures) == (1, 1, 0)


def test_a_run_without_metrics_compares_nothing(writer: RunWriter) -> None:
    writer.start(["a", "b"], {})
    for name in ("a", "b"):
        writer.unit(name, [row(name, 0, seconds=2.0, metric_seconds=None)])
    folder = write_report(writer.folder).folder
    for text in ((folder / "report.html").read_text(), (folder / "report.md").read_text()):
        assert "the best method of its resolution" not in text
        assert "Only one method" not in text
        assert "2 s" in text


def test_a_run_of_failures_has_a_report(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [failed("a", 0, "broken")])
    assert write_report(writer.folder).failures == 1


def no_run(writer: RunWriter) -> None:
    writer.folder.mkdir()


def no_rows(writer: RunWriter) -> None:
    writer.start(["a"])


def unknown_schema(writer: RunWriter) -> None:
    writer.start(["a"], schema=7)


def no_json(writer: RunWriter) -> None:
    writer.start(["a"])
    (writer.folder / "run.json").write_text("{")


def no_methods(writer: RunWriter) -> None:
    writer.start([])
    (writer.folder / "run.json").write_text(json.dumps({**writer.plan, "methods": "none"}))


def truncated(writer: RunWriter) -> None:
    writer.start(["a"])
    path = writer.unit("a", [row("a", 0, deletion=0.5)])
    path.write_bytes(path.read_bytes()[:-40])


def damaged(writer: RunWriter) -> None:
    writer.start(["a"])
    path = writer.unit("a", [row("a", i, deletion=0.5) for i in range(50)])
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(400) + data[404:])


def foreign(writer: RunWriter) -> None:
    writer.start(["a"])
    pq.write_table(pa.table({"x": [1]}), writer.folder / "units" / "a.parquet")


def strangers(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [row("b", 0, deletion=0.5)])


def bad_published(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [row("a", 0, deletion=0.5)])
    (writer.folder / "published.json").write_text('{"tables": [{"title": "x"}]}')


def of_another_kind(writer: RunWriter) -> None:
    writer.start(["a"])
    path = writer.unit("a", [row("a", 0, deletion=0.5)])
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index("error"), "error", pa.array([1])), path)


def no_view(writer: RunWriter) -> None:
    writer.start(["a"], models=[{"name": "net", "geometry": {"resize": 0}}])
    writer.unit("a", [row("a", 0, deletion=0.5)])


BAD: dict[Callable[[RunWriter], None], str] = {
    of_another_kind: "a.parquet: its column 'error' has another type; `faithmap bench run` did not write this file",
    no_view: "run.json: models.0.geometry.resize",
    no_run: "is no run: it has no run.json",
    no_rows: "has no results yet",
    unknown_schema: "its schema is 7, but this version reads schema 1",
    no_json: "is not valid JSON",
    no_methods: "methods: Input should be a valid list",
    truncated: "a.parquet: is no intact Parquet file",
    damaged: "a.parquet: is no intact Parquet file",
    foreign: "has no column 'model'",
    strangers: "no row belongs to a model and a method of the plan",
    bad_published: "published.json: tables.0.metrics: Field required",
}


@pytest.mark.parametrize("breaks", BAD, ids=lambda breaks: breaks.__name__)
def test_bad_input_is_one_line_and_writes_nothing(writer: RunWriter, breaks: Callable[[RunWriter], None]) -> None:
    breaks(writer)
    initial = sorted(writer.folder.rglob("*"))
    with pytest.raises(UserError, match=re.escape(BAD[breaks])) as caught:
        report(writer.folder)
    assert "\n" not in str(caught.value)
    assert sorted(writer.folder.rglob("*")) == initial


@pytest.mark.parametrize(
    "odd",
    [
        {"heatmap_shape": [7]},
        {"rows_at": [1.0, 2.0]},
        {"seconds": -1.0, "forward": -5},
        {"size": [0, 0]},
        {"heatmap_scale": math.nan},
    ],
    ids=lambda odd: next(iter(odd)),
)
def test_impossible_values_are_tolerated(writer: RunWriter, odd: dict[str, Any]) -> None:
    writer.start(["a", "b"])
    for name in ("a", "b"):
        writer.unit(name, [row(name, i, deletion=0.5, insertion=0.6, **(odd if name == "a" else {})) for i in range(2)])
    assert write_report(writer.folder).images == 2


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run"):
        report(tmp_path / "nowhere")


def test_the_command_prints_a_summary(
    writer: RunWriter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cli.make_app
    monkeypatch.setattr(cli, "make_app", lambda: _with_report(made()))
    assert cli.main(["report", str(writer.folder)]) == USER_ERROR
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    writer.start(["a"])
    writer.unit("a", [row("a", 0, deletion=0.5), failed("a", 1, "broken")])
    assert cli.main(["report", str(writer.folder), "--spread", "error", "--examples", "0"]) == 0
    assert capsys.readouterr().out == f"1 method, 2 images, 1 failure\nreport  {writer.folder / 'report' / 'report.html'}\n"


def _with_report(app: App) -> App:
    app.command(report)
    return app


def test_only_an_older_report_is_replaced(writer: RunWriter, tmp_path: Path) -> None:
    writer.start(["a"])
    writer.unit("a", [row("a", 0, deletion=0.5)])
    folder = write_report(writer.folder).folder
    (folder / "report.html").write_text("old")
    assert write_report(writer.folder).folder == folder
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files than a report"):
        write_report(writer.folder)
    assert (folder / "notes.txt").read_text() == "mine"
    out = tmp_path / "deep" / "er"
    assert write_report(writer.folder, out).folder == out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "run"]


def test_a_full_disk_leaves_the_older_report(writer: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.start(["a"])
    writer.unit("a", [row("a", 0, deletion=0.5)])
    folder = write_report(writer.folder).folder
    initial = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(path: Path, text: str | Iterable[str]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_package, "_write", full)
    with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\)"):
        write_report(writer.folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == initial
    assert sorted(path.name for path in writer.folder.iterdir()) == ["report", "run.json", "units"]


def test_the_older_report_is_restored_if_it_cannot_be_replaced(writer: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.start(["a"])
    writer.unit("a", [row("a", 0, deletion=0.5)])
    folder = write_report(writer.folder).folder
    (folder / "report.html").write_text("the older one")
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(ValueError, match="Permission denied"):
        write_report(writer.folder)
    assert (folder / "report.html").read_text() == "the older one"
    assert sorted(path.name for path in writer.folder.iterdir()) == ["report", "run.json", "units"]
