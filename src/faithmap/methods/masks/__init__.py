"""Explainers that look for a mask."""

from faithmap.methods.masks.extremal import ExtremalPerturbation
from faithmap.methods.masks.igos import IGOS
from faithmap.methods.masks.igos_plus import IGOSPlus, IGOSPlusPlus
from faithmap.methods.masks.line_search import LineSearch
from faithmap.methods.masks.mask import Mask
from faithmap.methods.masks.masker import LearnedMask, Masker
from faithmap.methods.masks.nesterov import Nesterov
from faithmap.methods.masks.occlusion import Occlusion
from faithmap.methods.masks.pyramid import Pyramid
from faithmap.methods.masks.rise import RISE

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
