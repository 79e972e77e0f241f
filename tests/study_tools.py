"""Models in place of those that studies and the command line load."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import faithmap
from faithmap.model import Classifier


def replace_load(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Classifier]) -> None:
    """Let ``faithmap.load``, and all that calls it, call ``load``."""
    for place in ("faithmap.studies.base.load", "faithmap.zoo.load"):  # in this order: the first imports from the second
        monkeypatch.setattr(place, load)
    monkeypatch.setitem(vars(faithmap), "load", load)
