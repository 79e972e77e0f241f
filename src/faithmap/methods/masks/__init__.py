"""Explainers that mask the image: by optimisation, by a trained network, or by random and sliding masks.

Rank descent, which also needs class activation maps, is in :mod:`faithmap.methods.masks.rank_descent`.
"""

from faithmap.methods.masks.base import MaskOptimiser, Objective, Regulariser, Trace
from faithmap.methods.masks.extremal import ExtremalPerturbation, Pyramid
from faithmap.methods.masks.igos import IGOS
from faithmap.methods.masks.igos_plus import IGOSPlus, IGOSPlusPlus
from faithmap.methods.masks.mask import Mask
from faithmap.methods.masks.masker import LearnedMask, Masker
from faithmap.methods.masks.occlusion import Occlusion
from faithmap.methods.masks.rise import RISE
from faithmap.methods.masks.steps import FixedStep, LineSearch, Nesterov, StepResult, StepRule

__all__ = [
    "IGOS",
    "RISE",
    "ExtremalPerturbation",
    "FixedStep",
    "IGOSPlus",
    "IGOSPlusPlus",
    "LearnedMask",
    "LineSearch",
    "Mask",
    "MaskOptimiser",
    "Masker",
    "Nesterov",
    "Objective",
    "Occlusion",
    "Pyramid",
    "Regulariser",
    "StepResult",
    "StepRule",
    "Trace",
]
