"""Metrics of heatmaps: functions in :mod:`faithmap.metrics.functional`, and torchmetrics classes that use them.

The classes are imported when they are first used, because torchmetrics takes seconds to load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from faithmap.metrics.functional import (
    PROTOCOLS,
    Curve,
    DeletionInsertion,
    JuryResult,
    Protocol,
    Verdict,
    deletion_insertion,
    evidence,
)

if TYPE_CHECKING:
    from faithmap.metrics.adversarial import AdversarialDifference
    from faithmap.metrics.agreement import SSIM, Spearman, TopKOverlap
    from faithmap.metrics.base import HeatmapMetric, MetricSettings, ModelMetric
    from faithmap.metrics.complexity import Complexity, Sparseness
    from faithmap.metrics.confidence import AverageDrop, AverageGain, IncreaseInConfidence
    from faithmap.metrics.curves import Deletion, Insertion, InsertionMinusDeletion, MoRFMinusLeRF
    from faithmap.metrics.infidelity import Infidelity
    from faithmap.metrics.jury import JuryGain
    from faithmap.metrics.known_truth.metric_classes import GridPointingGame, KnownRuleScore, Leakage, PlantedShortcutScore
    from faithmap.metrics.localisation import EnergyPointingGame, PointingGame, RelevanceRank
    from faithmap.metrics.randomisation import ModelRandomisation
    from faithmap.metrics.road import ROAD
    from faithmap.metrics.saco import SaCo
    from faithmap.metrics.sensitivity import MaxSensitivity, MeanSensitivity

_MODULES = {
    "adversarial": ("AdversarialDifference",),
    "agreement": ("SSIM", "Spearman", "TopKOverlap"),
    "base": ("HeatmapMetric", "MetricSettings", "ModelMetric"),
    "complexity": ("Complexity", "Sparseness"),
    "confidence": ("AverageDrop", "AverageGain", "IncreaseInConfidence"),
    "curves": ("Deletion", "Insertion", "InsertionMinusDeletion", "MoRFMinusLeRF"),
    "infidelity": ("Infidelity",),
    "jury": ("JuryGain",),
    "known_truth.metric_classes": ("GridPointingGame", "KnownRuleScore", "Leakage", "PlantedShortcutScore"),
    "localisation": ("EnergyPointingGame", "PointingGame", "RelevanceRank"),
    "randomisation": ("ModelRandomisation",),
    "road": ("ROAD",),
    "saco": ("SaCo",),
    "sensitivity": ("MaxSensitivity", "MeanSensitivity"),
}
"""Module of each class."""

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
    "GridPointingGame",
    "HeatmapMetric",
    "IncreaseInConfidence",
    "Infidelity",
    "Insertion",
    "InsertionMinusDeletion",
    "JuryGain",
    "JuryResult",
    "KnownRuleScore",
    "Leakage",
    "MaxSensitivity",
    "MeanSensitivity",
    "MetricSettings",
    "MoRFMinusLeRF",
    "ModelMetric",
    "ModelRandomisation",
    "PlantedShortcutScore",
    "PointingGame",
    "Protocol",
    "RelevanceRank",
    "SaCo",
    "Sparseness",
    "Spearman",
    "TopKOverlap",
    "Verdict",
    "deletion_insertion",
    "evidence",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"faithmap.metrics.{module}"), name)
    raise AttributeError(f"module 'faithmap.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
