"""Every metric as a function of model, images and heatmaps; per image, on the device, whatever the batch."""

from faithmap.metrics.functional.agreement import agreement_matrix, spearman, ssim, top_k_overlap
from faithmap.metrics.functional.complexity import entropy, gini
from faithmap.metrics.functional.deletion_insertion import (
    DeletionInsertion,
    MostLeast,
    deletion,
    deletion_insertion,
    insertion,
    most_least,
)
from faithmap.metrics.functional.protocols import PROTOCOLS, Curve, Protocol
from faithmap.metrics.functional.randomisation import ModelExplainer, Randomisation, randomisation

__all__ = [
    "PROTOCOLS",
    "Curve",
    "DeletionInsertion",
    "ModelExplainer",
    "MostLeast",
    "Protocol",
    "Randomisation",
    "agreement_matrix",
    "deletion",
    "deletion_insertion",
    "entropy",
    "gini",
    "insertion",
    "most_least",
    "randomisation",
    "spearman",
    "ssim",
    "top_k_overlap",
]
