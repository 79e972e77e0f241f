"""Heatmaps read off gradients to the pixels, and off the other ways down from a class."""

from faithmap.methods.gradients.excitation import MWP, ContrastiveExcitationBackprop, ContrastiveMWP, ExcitationBackprop
from faithmap.methods.gradients.gradient import Gradient, GradientExplainer, GradientTimesInput, SmoothGrad, VarGrad
from faithmap.methods.gradients.paths import ExpectedGradients, IntegratedGradients

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
