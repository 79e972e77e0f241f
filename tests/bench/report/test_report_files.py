"""What is written: it trusts no name, asks the network for nothing, and is complete or absent."""

from __future__ import annotations

import base64
import csv
import hashlib
import html.parser
import json
import math
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bench.run_writer import RunWriter, failed, row
from PIL import Image

import faithmap.cli as cli
from faithmap.bench.report import output, write_report
from faithmap.bench.report.results import failures
from faithmap.bench.report.run_record import open_run
from faithmap.bench.report.tables import csv_text, markdown
from faithmap.cli.bench import report
from faithmap.errors import USER_ERROR, UserError

SCRIPT = "<script>alert(1)</script>.png"
QUOTE = "\"'><img src=x onerror=alert(2)> & `|`"
FORMULA = "=HYPERLINK(1)"


class ReportPage(html.parser.HTMLParser):
    """All elements of a page with their attributes, and the text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inside: str | None = None
        self.code: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.inside = tag if tag in ("script", "style") else self.inside

    def handle_endtag(self, tag: str) -> None:
        self.inside = None if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        (self.words if self.inside is None else self.code).append(data)


def hostile(writer: RunWriter) -> None:
    """A run whose every word is an attack."""
    methods = [
        {"id": name, "name": name, "label": label, "settings": {QUOTE: QUOTE}} for name, label in (("a", SCRIPT), ("b", QUOTE))
    ]
    rows = [{"label": FORMULA, "resolution": SCRIPT, "values": {"deletion": QUOTE}}]
    published = {"source": SCRIPT, "tables": [{"title": SCRIPT, "metrics": ["deletion"], "rows": rows}]}
    data = {"kind": SCRIPT, "path": str(writer.folder.parent / "photos"), "images": 12}
    metrics = {"deletion": False, "insertion": True, SCRIPT: True}
    writer.start(methods, metrics, name=f"</title>{SCRIPT}", data=data, published=published, versions={SCRIPT: QUOTE})
    (writer.folder.parent / "photos" / "<script>alert(1)<").mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(
        writer.folder.parent / "photos" / SCRIPT
    )
    for number, name in enumerate("ab"):
        common: dict[str, Any] = {"label": QUOTE, "image": SCRIPT, "warnings": [SCRIPT]}
        rows = [row(name, i, deletion=0.1 * number, insertion=0.5, **{SCRIPT: 0.1 * i}, **common) for i in range(10)]
        writer.unit(name, [*rows, failed(name, 10, QUOTE, FORMULA), failed(name, 11, "-1\n@2")])


def test_no_name_becomes_an_element(writer: RunWriter) -> None:
    hostile(writer)
    page = ReportPage((write_report(writer.folder).folder / "report.html").read_text())
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 3
    assert len([1 for tag, a in page.elements if tag == "script" and a.get("type") == "application/json"]) == 2
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.elements for name in attributes)
    assert all(str(a["src"]).startswith("data:image/jpeg;base64,") for tag, a in page.elements if tag == "img")
    assert not {"iframe", "object", "embed", "form", "base", "audio", "video"} & set(tags)
    words = " ".join(page.words)
    assert SCRIPT in words
    assert QUOTE in words


def test_the_page_asks_nobody_for_anything(writer: RunWriter) -> None:
    hostile(writer)
    text = (write_report(writer.folder).folder / "report.html").read_text()
    page = ReportPage(text)
    links = [str(a.get(key)) for _, a in page.elements for key in ("src", "href", "data", "action", "srcset") if a.get(key)]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|WebSocket|import\(", " ".join(page.code))
    policy = next(str(a["content"]) for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[-1]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_cards_data_is_whole(writer: RunWriter) -> None:
    hostile(writer)
    text = (write_report(writer.folder).folder / "report.html").read_text()
    cards = json.loads(re.findall(r'id="cards">(.*?)</script>', text, re.DOTALL)[0])
    assert [entry["name"] for entry in cards[0]["maps"]] == [SCRIPT, QUOTE]


def test_markdown_is_text(writer: RunWriter) -> None:
    hostile(writer)
    text = (write_report(writer.folder).folder / "report.md").read_text()
    assert "<" not in text
    plain = [line for line in text.splitlines() if line.startswith("| ")]
    assert plain
    heads = [i for i, line in enumerate(text.splitlines()) if line.startswith("| ---")]
    lines = text.splitlines()
    for i in heads:
        columns = lines[i].count(" --- ")
        assert len(re.findall(r"(?<!\\)\|", lines[i - 1])) == columns + 1
        assert len(re.findall(r"(?<!\\)\|", lines[i + 1])) == columns + 1


def test_no_cell_is_a_formula(writer: RunWriter) -> None:
    hostile(writer)
    folder = write_report(writer.folder).folder
    rows = {path.name: list(csv.reader(path.read_text().splitlines())) for path in folder.glob("*.csv")}
    for name, table in rows.items():
        assert len({len(line) for line in table}) == 1, name
        for line in table[1:]:
            for cell in line:
                assert cell[:1] not in "=+@\t\r" or not cell, cell
                assert not cell.startswith("-") or float(cell) < 0, cell
    assert rows["failures.csv"][1] == ["net", "a", "'" + FORMULA, "10", QUOTE]
    assert rows["failures.csv"][2][-1] == "'-1\\n@2"
    first = dict(zip(*rows["pairs.csv"][:2], strict=True))
    assert float(first["difference"]) == pytest.approx(-0.1)


def test_csv_holds_every_number_in_full(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [row("a", i, deletion=(1 / 3, 1.0)[i], insertion=0.5) for i in range(2)])
    folder = write_report(writer.folder).folder
    table = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    assert [line["metric"] for line in table] == ["deletion", "insertion", "insertion - deletion"]
    assert float(table[0]["mean"]) == pytest.approx(2 / 3, abs=1e-15)
    assert float(table[0]["standard_error"]) == pytest.approx(1 / 3, abs=1e-15)


@pytest.mark.parametrize("lone", [{}, {"deletion": 0.5}, {"sparseness": 0.5}], ids=["no metric", "one game", "no direction"])
def test_little_is_enough(writer: RunWriter, lone: dict[str, float]) -> None:
    writer.start(["a"], {"sparseness": None})
    writer.unit("a", [row("a", 0, **lone)])
    written = write_report(writer.folder)
    assert (written.images, written.methods, written.failures) == (1, 1, 0)


def test_a_run_for_time_alone_compares_nothing(writer: RunWriter) -> None:
    writer.start(["a", "b"], {})
    for name in ("a", "b"):
        writer.unit(name, [row(name, 0, seconds=2.0, metric_seconds=None)])
    folder = write_report(writer.folder).folder
    for text in ((folder / "report.html").read_text(), (folder / "report.md").read_text()):
        assert "the best of its column" not in text
        assert "One method alone" not in text
        assert "2 s" in text


def test_all_failed(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [failed("a", 0, "broken")])
    assert write_report(writer.folder).failures == 1


def test_every_failure_is_in_its_file_and_the_page_names_the_first(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [failed("a", i, f"broken by {i % 3}") for i in range(2500)])
    writer.unit("b", [row("a", 2500, deletion=0.5), failed("stranger", 0, "not ours")])
    folder = write_report(writer.folder).folder
    table = list(csv.DictReader((folder / "failures.csv").read_text().splitlines()))
    assert [int(line["index"]) for line in table] == list(range(2500))
    assert table[-1] == {"model": "net", "method": "a", "image": "2499.png", "index": "2499", "error": "broken by 0"}
    page = (folder / "report.html").read_text()
    assert "The first 50 of 2,500; failures.csv has all." in page
    assert "49.png" in page
    assert "50.png" not in page


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


def test_a_hundred_photographs_and_six_methods_are_small(writer: RunWriter) -> None:
    """Noise is what JPEG compresses worst, and 224 x 224 the finest map."""
    names = [f"m{i}" for i in range(6)]
    writer.start(names, data={"path": str(writer.folder.parent / "photos")})
    (writer.folder.parent / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (12, 256, 256, 3), np.uint8)
    heatmap = np.eye(224, dtype=np.float16)
    curves: dict[str, Any] = {key: np.linspace(0, 1, 225) for key in ("deletion_curve", "insertion_curve", "curve_fractions")}
    for i in range(12):
        Image.fromarray(noise[i]).save(writer.folder.parent / "photos" / f"{i}.png")
    for m, name in enumerate(names):
        big = {"heatmap": heatmap, "size": [224, 224], **curves}
        rows = [row(name, i, image=f"{i % 12}.png", deletion=0.001 * i * m, insertion=0.5, **big) for i in range(100)]
        writer.unit(name, rows)
    assert 7_000_000 < write_report(writer.folder, shown=9).bytes < 10_000_000


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
    import pyarrow as pa
    import pyarrow.parquet as pq

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


BAD = {
    of_another_kind: "a.parquet: its column 'error' holds something else; it is none of the files",
    no_view: "run.json: models.0.geometry.resize",
    no_run: "is no run: it holds no run.json",
    no_rows: "holds no results yet",
    unknown_schema: "its schema is 7, and 1 is understood",
    no_json: "is no JSON",
    no_methods: "methods: Input should be a valid list",
    truncated: "a.parquet: is no intact Parquet file",
    damaged: "a.parquet: is no intact Parquet file",
    foreign: "has no column 'model'",
    strangers: "no row is of a model and a method of the plan",
    bad_published: "published.json: tables.0.metrics: Field required",
}


@pytest.mark.parametrize("breaks", BAD, ids=lambda breaks: breaks.__name__)
def test_bad_input_is_one_line_and_writes_nothing(writer: RunWriter, breaks: Any) -> None:
    breaks(writer)
    before = sorted(writer.folder.rglob("*"))
    with pytest.raises(UserError, match=re.escape(BAD[breaks])) as caught:
        report(writer.folder)
    assert "\n" not in str(caught.value)
    assert sorted(writer.folder.rglob("*")) == before


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
def test_numbers_that_cannot_be_are_passed_over(writer: RunWriter, odd: dict[str, Any]) -> None:
    writer.start(["a", "b"])
    for name in ("a", "b"):
        writer.unit(name, [row(name, i, deletion=0.5, insertion=0.6, **(odd if name == "a" else {})) for i in range(2)])
    assert write_report(writer.folder).images == 2


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run"):
        report(tmp_path / "nowhere")


def test_the_command(writer: RunWriter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = cli.make_app
    monkeypatch.setattr(cli, "make_app", lambda: _with_report(made()))
    assert cli.main(["report", str(writer.folder)]) == USER_ERROR
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    writer.start(["a"])
    writer.unit("a", [row("a", 0, deletion=0.5), failed("a", 1, "broken")])
    assert cli.main(["report", str(writer.folder), "--spread", "error", "--shown", "0"]) == 0
    assert capsys.readouterr().out == f"1 method, 2 images, 1 failure\nreport  {writer.folder / 'report' / 'report.html'}\n"


def _with_report(app: Any) -> Any:
    app.command(report)
    return app


def test_an_older_report_is_replaced_and_nothing_else_is(writer: RunWriter, tmp_path: Path) -> None:
    writer.start(["a"])
    writer.unit("a", [row("a", 0, deletion=0.5)])
    folder = write_report(writer.folder).folder
    (folder / "report.html").write_text("old")
    assert write_report(writer.folder).folder == folder
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds what is no report"):
        write_report(writer.folder)
    assert (folder / "notes.txt").read_text() == "mine"
    out = tmp_path / "deep" / "er"
    assert write_report(writer.folder, out).folder == out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "run"]


def test_a_full_disk_leaves_the_older_report(writer: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.start(["a"])
    writer.unit("a", [row("a", 0, deletion=0.5)])
    folder = write_report(writer.folder).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output, "_write", full)
    with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\)"):
        write_report(writer.folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in writer.folder.iterdir()) == ["report", "run.json", "units"]


def test_the_same_run_gives_the_same_files(writer: RunWriter, tmp_path: Path) -> None:
    hostile(writer)
    first, second = (write_report(writer.folder, tmp_path / name).folder for name in ("one", "two"))
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_the_older_report_comes_back_where_the_new_one_cannot_take_its_place(
    writer: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "  =1", "\uff1d1"])
def test_formulas_get_an_apostrophe(text: str) -> None:
    assert csv_text(text) == "'" + text


def test_markdown_entities_are_text() -> None:
    assert markdown("&lt;b&gt; $x$ ~y~ #1") == "&amp;lt;b&amp;gt; \\$x\\$ \\~y\\~ \\#1"
