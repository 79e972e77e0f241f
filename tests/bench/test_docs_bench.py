"""The how-to's examples run, and its specification is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bench.tiny_bench import Bench

from faithmap.bench.load_spec import parse_spec, read_spec
from faithmap.bench.run import run
from faithmap.bench.spec import METRICS

DOCS = Path(__file__).parents[2] / "docs" / "bench"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_results_are_read_as_the_how_to_says(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    for library in ("duckdb", "pandas", "polars"):
        pytest.importorskip(library)
    run(read_spec(bench.spec), bench.home / "my-run", base=bench.home)
    known: dict = {}
    for block in blocks("results.md", "python"):
        exec(block, known)  # noqa: S102 - our own page
    said = capsys.readouterr().out
    assert said.count("igos-8") == 3
    assert known["heatmap"].shape == (16, 16), "the first file is Grad-CAM's"
    assert len(known["everything"]) == 21


def test_the_specification_of_the_page_is_one() -> None:
    (text,) = blocks("README.md", "toml")
    assert parse_spec(text, "README").data.sample == 500


def test_every_metric_is_on_the_page() -> None:
    text = (DOCS / "README.md").read_text()
    for name, kind in METRICS.items():
        assert f"`{name}`" in text
        assert all(f"`{word}`" in text for word in (*kind.columns, *kind.settings))
