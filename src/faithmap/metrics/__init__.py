"""Whether a heatmap is true: functions in :mod:`faithmap.metrics.functional`, and torchmetrics classes over them.

The classes are imported when they are first used: torchmetrics takes seconds to load, and the functions do without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from faithmap.metrics.functional import (
    PROTOCOLS,
    Curve,
    DeletionInsertion,
    Protocol,
    deletion_insertion,
    infidelity,
    sensitivity,
)

if TYPE_CHECKING:
    from faithmap.metrics.base import HeatmapMetric, ModelMetric
    from faithmap.metrics.confidence import AverageDrop, AverageGain, IncreaseInConfidence
    from faithmap.metrics.games import Deletion, Insertion, InsertionMinusDeletion, MoRFMinusLeRF
    from faithmap.metrics.localisation import EnergyPointingGame, PointingGame, RelevanceRank
    from faithmap.metrics.road import ROAD
    from faithmap.metrics.robustness import Infidelity, MaxSensitivity, MeanSensitivity

_HOMES = {
    "base": ("HeatmapMetric", "ModelMetric"),
    "confidence": ("AverageDrop", "AverageGain", "IncreaseInConfidence"),
    "games": ("Deletion", "Insertion", "InsertionMinusDeletion", "MoRFMinusLeRF"),
    "localisation": ("EnergyPointingGame", "PointingGame", "RelevanceRank"),
    "road": ("ROAD",),
    "robustness": ("Infidelity", "MaxSensitivity", "MeanSensitivity"),
}

__all__ = [
    "PROTOCOLS",
    "ROAD",
    "AverageDrop",
    "AverageGain",
    "Curve",
    "Deletion",
    "DeletionInsertion",
    "EnergyPointingGame",
    "HeatmapMetric",
    "IncreaseInConfidence",
    "Infidelity",
    "Insertion",
    "InsertionMinusDeletion",
    "MaxSensitivity",
    "MeanSensitivity",
    "MoRFMinusLeRF",
    "ModelMetric",
    "PointingGame",
    "Protocol",
    "RelevanceRank",
    "deletion_insertion",
    "infidelity",
    "sensitivity",
]


def __getattr__(name: str) -> Any:
    """Import a class from its home."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"faithmap.metrics.{home}"), name)
    raise AttributeError(f"module 'faithmap.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
