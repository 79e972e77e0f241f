"""Class activation maps: any weighting with any gradient, and those that need none."""

from faithmap.layers import TokenGrid, channels_first
from faithmap.methods.cams.cam import (
    CAM,
    ExpectedGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    IntegratedGradCAM,
    LayerCAM,
    LayerExplainer,
    SmoothGradCAM,
    SmoothGradCAMPlusPlus,
    XGradCAM,
)
from faithmap.methods.cams.estimators import Estimator, Expected, Integrated, Plain, Smooth, Weighted, weighted
from faithmap.methods.cams.fused import ExpectedFusedCAM, FusedCAM
from faithmap.methods.cams.gradient_free import AblationCAM, EigenCAM, ScoreCAM
from faithmap.methods.cams.saturation import Saturation, saturation, top_features
from faithmap.methods.cams.weightings import Evidence
from faithmap.methods.references import Distribution, EvenBlurs, ImageSet, Mixture, RandomBlurs, RandomConstants, RandomNoise

__all__ = [
    "CAM",
    "AblationCAM",
    "Distribution",
    "EigenCAM",
    "Estimator",
    "EvenBlurs",
    "Evidence",
    "Expected",
    "ExpectedFusedCAM",
    "ExpectedGradCAM",
    "FusedCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "HiResCAM",
    "ImageSet",
    "Integrated",
    "IntegratedGradCAM",
    "LayerCAM",
    "LayerExplainer",
    "Mixture",
    "Plain",
    "RandomBlurs",
    "RandomConstants",
    "RandomNoise",
    "Saturation",
    "ScoreCAM",
    "Smooth",
    "SmoothGradCAM",
    "SmoothGradCAMPlusPlus",
    "TokenGrid",
    "Weighted",
    "XGradCAM",
    "channels_first",
    "saturation",
    "top_features",
    "weighted",
]
