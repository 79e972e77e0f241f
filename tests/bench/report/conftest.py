"""A run's folder that a test fills."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.run_writer import RunWriter


@pytest.fixture
def writer(tmp_path: Path) -> RunWriter:
    return RunWriter(tmp_path / "run")
