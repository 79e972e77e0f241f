"""Whether a heatmap is true: functions in :mod:`faithmap.metrics.functional`, and torchmetrics classes over them.

The classes are imported when they are first used: torchmetrics takes seconds to load, and the functions do without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from faithmap.metrics.functional import PROTOCOLS, Curve, DeletionInsertion, Protocol, deletion_insertion

if TYPE_CHECKING:
    from faithmap.metrics.adversarial import AdversarialDifference
    from faithmap.metrics.agreement import SSIM, Spearman, TopKOverlap
    from faithmap.metrics.base import HeatmapMetric, ModelMetric
    from faithmap.metrics.complexity import Complexity, Sparseness
    from faithmap.metrics.confidence import AverageDrop, AverageGain, IncreaseInConfidence
    from faithmap.metrics.games import Deletion, Insertion, InsertionMinusDeletion, MoRFMinusLeRF
    from faithmap.metrics.localisation import EnergyPointingGame, PointingGame, RelevanceRank
    from faithmap.metrics.road import ROAD
    from faithmap.metrics.robustness import Infidelity, MaxSensitivity, MeanSensitivity
    from faithmap.metrics.sanity import ModelRandomisation

_HOMES = {
    "agreement": ("SSIM", "Spearman", "TopKOverlap"),
    "adversarial": ("AdversarialDifference",),
    "base": ("HeatmapMetric", "ModelMetric"),
    "confidence": ("AverageDrop", "AverageGain", "IncreaseInConfidence"),
    "localisation": ("EnergyPointingGame", "PointingGame", "RelevanceRank"),
    "road": ("ROAD",),
    "robustness": ("Infidelity", "MaxSensitivity", "MeanSensitivity"),
    "complexity": ("Complexity", "Sparseness"),
    "games": ("Deletion", "Insertion", "InsertionMinusDeletion", "MoRFMinusLeRF"),
    "sanity": ("ModelRandomisation",),
}

__all__ = [
    "PROTOCOLS",
    "ROAD",
    "SSIM",
    "AdversarialDifference",
    "AverageDrop",
    "AverageGain",
    "Complexity",
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
    "ModelRandomisation",
    "PointingGame",
    "Protocol",
    "RelevanceRank",
    "Sparseness",
    "Spearman",
    "TopKOverlap",
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
