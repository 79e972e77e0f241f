"""A state with a small model, and a browser for each file of tests: two cannot run at once in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs faithmap[app]")

from app_tools import small_models
from viewer_tools import CHROMIUM, QUIET

from faithmap.app.desk import AppState


@pytest.fixture(autouse=True)
def tiny(one_thread: None) -> None:
    """Every test here has a tiny model and tiny pictures."""


@pytest.fixture
def state(tmp_path: Path) -> AppState:
    return AppState(small_models(), tmp_path)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser's tests need playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()
