"""Whether a heatmap is true: functions in :mod:`faithmap.metrics.functional`, and torchmetrics classes over them.

The classes are imported when they are first used: torchmetrics takes seconds to load, and the functions do without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from faithmap.metrics.functional import PROTOCOLS, Curve, DeletionInsertion, Protocol, deletion_insertion

if TYPE_CHECKING:
    from faithmap.metrics.adversarial import AdversarialDifference
    from faithmap.metrics.base import HeatmapMetric, ModelMetric
    from faithmap.metrics.games import Deletion, Insertion, InsertionMinusDeletion, MoRFMinusLeRF

_HOMES = {
    "adversarial": ("AdversarialDifference",),
    "base": ("HeatmapMetric", "ModelMetric"),
    "games": ("Deletion", "Insertion", "InsertionMinusDeletion", "MoRFMinusLeRF"),
}

__all__ = [
    "PROTOCOLS",
    "AdversarialDifference",
    "Curve",
    "Deletion",
    "DeletionInsertion",
    "HeatmapMetric",
    "Insertion",
    "InsertionMinusDeletion",
    "MoRFMinusLeRF",
    "ModelMetric",
    "Protocol",
    "deletion_insertion",
]


def __getattr__(name: str) -> Any:
    """Import a class from its home."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"faithmap.metrics.{home}"), name)
    raise AttributeError(f"module 'faithmap.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
