"""A run folder's beginning: a specification, photographs, a model; and the rows of a run that nothing happens to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.tiny_bench import MODEL, Bench, rows

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
def tiny(one_thread: None) -> None:
    """Every test here has a tiny model."""


@pytest.fixture
def undisturbed(bench: Bench) -> Callable[[], list[dict]]:
    """The rows of a run that nothing happened to."""

    def run_it() -> list[dict]:
        from faithmap.bench.load_spec import read_spec
        from faithmap.bench.run import run

        run(read_spec(bench.spec), bench.home / "undisturbed", base=bench.home)
        return rows(bench.home / "undisturbed")

    return run_it
