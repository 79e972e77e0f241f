"""Heatmaps read off gradients to the pixels, and off the other ways down from a class."""

from faithmap.methods.gradients.base import GradientExplainer
from faithmap.methods.gradients.excitation import MWP, ContrastiveExcitationBackprop, ContrastiveMWP, ExcitationBackprop
from faithmap.methods.gradients.noise import SmoothGrad, VarGrad
from faithmap.methods.gradients.paths import ExpectedGradients, IntegratedGradients
from faithmap.methods.gradients.plain import Gradient, GradientTimesInput

__all__ = [
    "MWP",
    "ContrastiveExcitationBackprop",
    "ContrastiveMWP",
    "ExcitationBackprop",
    "ExpectedGradients",
    "Gradient",
    "GradientExplainer",
    "GradientTimesInput",
    "IntegratedGradients",
    "SmoothGrad",
    "VarGrad",
]
