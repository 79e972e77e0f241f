"""Explainers that look for a mask."""

from faithmap.methods.masks.extremal import ExtremalPerturbation, Pyramid
from faithmap.methods.masks.igos import IGOS
from faithmap.methods.masks.igos_plus import IGOSPlus, IGOSPlusPlus
from faithmap.methods.masks.mask import Mask
from faithmap.methods.masks.masker import LearnedMask, Masker
from faithmap.methods.masks.occlusion import Occlusion
from faithmap.methods.masks.rise import RISE
from faithmap.methods.masks.steps import LineSearch, Nesterov

__all__ = [
    "IGOS",
    "RISE",
    "ExtremalPerturbation",
    "IGOSPlus",
    "IGOSPlusPlus",
    "LearnedMask",
    "LineSearch",
    "Mask",
    "Masker",
    "Nesterov",
    "Occlusion",
    "Pyramid",
]
