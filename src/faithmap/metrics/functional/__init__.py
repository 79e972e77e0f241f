"""Every metric as a function of model, images and heatmaps; per image, on the device, whatever the batch."""

from faithmap.metrics.functional.confidence import Confidence, confidence
from faithmap.metrics.functional.deletion_insertion import (
    DeletionInsertion,
    MostLeast,
    deletion,
    deletion_insertion,
    insertion,
    most_least,
)
from faithmap.metrics.functional.imputation import linear_imputation, noisy_linear_imputation
from faithmap.metrics.functional.protocols import PROTOCOLS, Curve, Protocol
from faithmap.metrics.functional.road import Road, road

__all__ = [
    "PROTOCOLS",
    "Confidence",
    "Curve",
    "DeletionInsertion",
    "MostLeast",
    "Protocol",
    "Road",
    "confidence",
    "deletion",
    "deletion_insertion",
    "insertion",
    "linear_imputation",
    "most_least",
    "noisy_linear_imputation",
    "road",
]
