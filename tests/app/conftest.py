"""A desk with a small model."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page needs faithmap[app]")

from app_tools import small_models

from faithmap.app.desk import Desk


@pytest.fixture(autouse=True)
def tiny(one_thread: None) -> None:
    """Every test here has a tiny model."""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(small_models(), tmp_path)
