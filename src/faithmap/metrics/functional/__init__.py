"""Every metric as a function of model, images and heatmaps; per image, on the device, whatever the batch."""

from faithmap.metrics.functional.adversarial import AdversarialCheck, adversarial_check, fraction_needed
from faithmap.metrics.functional.attacks import Attack, mi_fgsm
from faithmap.metrics.functional.deletion_insertion import (
    DeletionInsertion,
    MostLeast,
    deletion,
    deletion_insertion,
    insertion,
    most_least,
)
from faithmap.metrics.functional.protocols import PROTOCOLS, Curve, Protocol

__all__ = [
    "PROTOCOLS",
    "AdversarialCheck",
    "Attack",
    "Curve",
    "DeletionInsertion",
    "MostLeast",
    "Protocol",
    "adversarial_check",
    "deletion",
    "deletion_insertion",
    "fraction_needed",
    "insertion",
    "mi_fgsm",
    "most_least",
]
