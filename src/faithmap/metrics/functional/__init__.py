"""Every metric as a function of model, images and heatmaps; per image, on the device, whatever the batch."""

from faithmap.metrics.functional.deletion_insertion import (
    DeletionInsertion,
    MostLeast,
    deletion,
    deletion_insertion,
    insertion,
    most_least,
)
from faithmap.metrics.functional.localisation import (
    difficult_subset,
    energy_pointing_game,
    pointing_accuracy,
    pointing_distance,
    pointing_game,
    relevance_rank,
)
from faithmap.metrics.functional.protocols import PROTOCOLS, Curve, Protocol

__all__ = [
    "PROTOCOLS",
    "Curve",
    "DeletionInsertion",
    "MostLeast",
    "Protocol",
    "deletion",
    "deletion_insertion",
    "difficult_subset",
    "energy_pointing_game",
    "insertion",
    "most_least",
    "pointing_accuracy",
    "pointing_distance",
    "pointing_game",
    "relevance_rank",
]
