"""The examples of the benchmark pages run, and their specification is valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from bench.tiny_bench import Bench

from faithmap.bench.run import run
from faithmap.bench.spec import METRICS, parse_spec, read_spec

DOCS = Path(__file__).parents[2] / "docs" / "bench"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_the_examples_of_reading_results_run(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    for library in ("duckdb", "pandas", "polars"):
        pytest.importorskip(library)
    run(read_spec(bench.spec), bench.home / "my-run", base=bench.home)
    namespace: dict[str, Any] = {}
    for block in blocks("results.md", "python"):
        exec(block, namespace)  # noqa: S102 - our own page
    out = capsys.readouterr().out
    assert out.count("igos-8") == 3
    assert namespace["heatmap"].shape == (16, 16), "the first file is Grad-CAM's"
    assert len(namespace["everything"]) == 21


def test_the_specification_of_the_page_is_valid() -> None:
    (text,) = blocks("README.md", "toml")
    assert parse_spec(text, "README").data.sample == 500


def test_every_metric_is_on_the_page() -> None:
    text = (DOCS / "README.md").read_text()
    for name, kind in METRICS.items():
        assert f"`{name}`" in text
        assert all(f"`{word}`" in text for word in (*kind.columns, *kind.settings))
