"""A run folder's beginning: a specification, images, a model; and the rows of a run without incidents."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.tiny_bench import MODEL, Bench, Rows, rows

pytest.importorskip("pydantic")
pytest.importorskip("pyarrow")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    (tmp_path / "tiny_bench_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    made = Bench(tmp_path)
    made.write()
    for i in range(7):
        made.photo(f"{i}.png", i)
    yield made
    sys.modules.pop("tiny_bench_model", None)


@pytest.fixture(autouse=True)
def single_thread(one_thread: None) -> None:
    """The models here are tiny."""


@pytest.fixture
def undisturbed(bench: Bench) -> Callable[[], Rows]:
    """The rows of a run without incidents."""

    def run_it() -> Rows:
        from faithmap.bench.run import run
        from faithmap.bench.spec import read_spec

        run(read_spec(bench.spec), bench.home / "undisturbed", base=bench.home)
        return rows(bench.home / "undisturbed")

    return run_it
