"""Methods that attribute a score to pixels by gradients, and excitation backprop."""

from faithmap.methods.gradients.excitation import MWP, ContrastiveExcitationBackprop, ContrastiveMWP, ExcitationBackprop
from faithmap.methods.gradients.gradient import Gradient, GradientExplainer, GradientTimesInput, ImageChunk, SmoothGrad, VarGrad
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
    "ImageChunk",
    "IntegratedGradients",
    "SmoothGrad",
    "VarGrad",
]
