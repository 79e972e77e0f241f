"""Every metric as a function of model, images and heatmaps; per image, on the device, whatever the batch."""

from faithmap.metrics.functional.deletion_insertion import (
    DeletionInsertion,
    MostLeast,
    deletion,
    deletion_insertion,
    insertion,
    most_least,
)
from faithmap.metrics.functional.infidelity import InfidelityResult, infidelity
from faithmap.metrics.functional.perturbations import PERTURBATIONS, Gaussian, Perturbation, Region, Square
from faithmap.metrics.functional.protocols import PROTOCOLS, Curve, Protocol
from faithmap.metrics.functional.sensitivity import SensitivityResult, sensitivity

__all__ = [
    "PERTURBATIONS",
    "PROTOCOLS",
    "Curve",
    "DeletionInsertion",
    "Gaussian",
    "InfidelityResult",
    "MostLeast",
    "Perturbation",
    "Protocol",
    "Region",
    "SensitivityResult",
    "Square",
    "deletion",
    "deletion_insertion",
    "infidelity",
    "insertion",
    "most_least",
    "sensitivity",
]
