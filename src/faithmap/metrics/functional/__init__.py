"""Every metric as a function of model, images and heatmaps: one value per image, on the device, independent of the batch."""

from faithmap.metrics.functional.adversarial import (
    AdversarialCheck,
    Attack,
    AttackableExplainer,
    adversarial_check,
    fraction_needed,
    mi_fgsm,
)
from faithmap.metrics.functional.agreement import agreement_matrix, spearman, ssim, top_k_overlap
from faithmap.metrics.functional.complexity import entropy, gini
from faithmap.metrics.functional.confidence import Confidence, confidence
from faithmap.metrics.functional.curves import (
    PROTOCOLS,
    Curve,
    DeletionInsertion,
    MostLeast,
    Protocol,
    deletion,
    deletion_insertion,
    insertion,
    most_least,
)
from faithmap.metrics.functional.evidence import CONTROLS, PANELS, JuryResult, Panel, Verdict, evidence
from faithmap.metrics.functional.infidelity import (
    PERTURBATIONS,
    Custom,
    Gaussian,
    InfidelityResult,
    Perturbation,
    PerturbedImages,
    Region,
    Square,
    infidelity,
)
from faithmap.metrics.functional.jurors import Case, Falls, Imputation, Judgement, Juror, Magnitudes, Removal
from faithmap.metrics.functional.localisation import (
    difficult_subset,
    energy_pointing_game,
    pointing_accuracy,
    pointing_distance,
    pointing_game,
    relevance_rank,
)
from faithmap.metrics.functional.randomisation import ModelExplainer, Randomisation, randomisation
from faithmap.metrics.functional.road import Road, linear_imputation, noisy_linear_imputation, road
from faithmap.metrics.functional.saco import saco
from faithmap.metrics.functional.sensitivity import HeatmapFunction, SensitivityResult, sensitivity
from faithmap.metrics.known_truth import GridPointing, grid_pointing_game

__all__ = [
    "CONTROLS",
    "PANELS",
    "PERTURBATIONS",
    "PROTOCOLS",
    "AdversarialCheck",
    "Attack",
    "AttackableExplainer",
    "Case",
    "Confidence",
    "Curve",
    "Custom",
    "DeletionInsertion",
    "Falls",
    "Gaussian",
    "GridPointing",
    "HeatmapFunction",
    "Imputation",
    "InfidelityResult",
    "Judgement",
    "Juror",
    "JuryResult",
    "Magnitudes",
    "ModelExplainer",
    "MostLeast",
    "Panel",
    "Perturbation",
    "PerturbedImages",
    "Protocol",
    "Randomisation",
    "Region",
    "Removal",
    "Road",
    "SensitivityResult",
    "Square",
    "Verdict",
    "adversarial_check",
    "agreement_matrix",
    "confidence",
    "deletion",
    "deletion_insertion",
    "difficult_subset",
    "energy_pointing_game",
    "entropy",
    "evidence",
    "fraction_needed",
    "gini",
    "grid_pointing_game",
    "infidelity",
    "insertion",
    "linear_imputation",
    "mi_fgsm",
    "most_least",
    "noisy_linear_imputation",
    "pointing_accuracy",
    "pointing_distance",
    "pointing_game",
    "randomisation",
    "relevance_rank",
    "road",
    "saco",
    "sensitivity",
    "spearman",
    "ssim",
    "top_k_overlap",
]
