"""The page, the Markdown file and the CSV files trust no name; the page makes no request."""

from __future__ import annotations

import base64
import csv
import hashlib
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.run_writer import RunWriter, failed, row
from PIL import Image

from faithmap.bench.report import write_report
from faithmap.bench.report.csvs import csv_text
from faithmap.bench.report.markdown import markdown

SCRIPT = "<script>alert(1)</script>.png"


QUOTE = "\"'><img src=x onerror=alert(2)> & `|`"


FORMULA = "=HYPERLINK(1)"


class ParsedPage(html.parser.HTMLParser):
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
    """A run in which every text is an attack."""
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


def test_untrusted_text_becomes_no_element(writer: RunWriter) -> None:
    hostile(writer)
    page = ParsedPage((write_report(writer.folder).folder / "report.html").read_text())
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 3
    assert len([1 for tag, a in page.elements if tag == "script" and a.get("type") == "application/json"]) == 2
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.elements for name in attributes)
    assert all(str(a["src"]).startswith("data:image/jpeg;base64,") for tag, a in page.elements if tag == "img")
    assert not {"iframe", "object", "embed", "form", "base", "audio", "video"} & set(tags)
    words = " ".join(page.words)
    assert SCRIPT in words
    assert QUOTE in words


def test_the_page_makes_no_request(writer: RunWriter) -> None:
    hostile(writer)
    text = (write_report(writer.folder).folder / "report.html").read_text()
    page = ParsedPage(text)
    links = [str(a.get(key)) for _, a in page.elements for key in ("src", "href", "data", "action", "srcset") if a.get(key)]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|WebSocket|import\(", " ".join(page.code))
    policy = next(str(a["content"]) for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[-1]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_data_of_the_script_is_complete(writer: RunWriter) -> None:
    hostile(writer)
    text = (write_report(writer.folder).folder / "report.html").read_text()
    cards = json.loads(re.findall(r'id="cards">(.*?)</script>', text, re.DOTALL)[0])
    assert [entry["name"] for entry in cards[0]["maps"]] == [SCRIPT, QUOTE]


def test_untrusted_text_has_no_meaning_in_markdown(writer: RunWriter) -> None:
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


def test_markdown_entities_are_escaped() -> None:
    assert markdown("&lt;b&gt; $x$ ~y~ #1") == "&amp;lt;b&amp;gt; \\$x\\$ \\~y\\~ \\#1"


def test_no_csv_cell_is_a_formula(writer: RunWriter) -> None:
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


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "  =1", "\uff1d1"])
def test_formulas_get_an_apostrophe(text: str) -> None:
    assert csv_text(text) == "'" + text


def test_csv_has_full_precision(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [row("a", i, deletion=(1 / 3, 1.0)[i], insertion=0.5) for i in range(2)])
    folder = write_report(writer.folder).folder
    table = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    assert [line["metric"] for line in table] == ["deletion", "insertion", "insertion - deletion"]
    assert float(table[0]["mean"]) == pytest.approx(2 / 3, abs=1e-15)
    assert float(table[0]["standard_error"]) == pytest.approx(1 / 3, abs=1e-15)


def test_the_page_lists_the_first_failures_and_the_csv_all(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [failed("a", i, f"broken by {i % 3}") for i in range(2500)])
    writer.unit("b", [row("a", 2500, deletion=0.5), failed("stranger", 0, "not ours")])
    folder = write_report(writer.folder).folder
    table = list(csv.DictReader((folder / "failures.csv").read_text().splitlines()))
    assert [int(line["index"]) for line in table] == list(range(2500))
    assert table[-1] == {"model": "net", "method": "a", "image": "2499.png", "index": "2499", "error": "broken by 0"}
    page = (folder / "report.html").read_text()
    assert "The first 50 of 2,500; failures.csv lists all." in page
    assert "49.png" in page
    assert "50.png" not in page


def test_a_page_of_many_images_has_megabytes(writer: RunWriter) -> None:
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
    assert 7_000_000 < write_report(writer.folder, examples=9).bytes < 10_000_000


def test_the_same_run_gives_the_same_files(writer: RunWriter, tmp_path: Path) -> None:
    hostile(writer)
    first, second = (write_report(writer.folder, tmp_path / name).folder for name in ("one", "two"))
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}
