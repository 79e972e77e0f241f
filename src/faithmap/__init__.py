"""Heatmaps that show which pixels an image model's decision rests on, with the evidence that they do.

Every name is imported when it is first used: the core needs torch alone, and the command line starts without it.

>>> import faithmap
>>> faithmap.IGOS.__name__
'IGOS'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from faithmap._version import __version__

if TYPE_CHECKING:
    from faithmap.baselines import BASELINES, Blur, Constant, Mean, MedianBlur, Noise
    from faithmap.data import ImageError, image_files, read_image, sample_photo
    from faithmap.explanation import Explanation
    from faithmap.geometry import Geometry
    from faithmap.methods import IGOS, Explainer, LineSearch, Mask
    from faithmap.methods.cams import (
        CAM,
        AblationCAM,
        EigenCAM,
        EvenBlurs,
        Expected,
        ExpectedGradCAM,
        GradCAM,
        GradCAMPlusPlus,
        HiResCAM,
        ImageSet,
        Integrated,
        IntegratedGradCAM,
        LayerCAM,
        Mixture,
        Plain,
        RandomBlurs,
        RandomConstants,
        RandomNoise,
        ScoreCAM,
        Smooth,
        SmoothGradCAM,
        SmoothGradCAMPlusPlus,
        TokenGrid,
        XGradCAM,
        channels_first,
    )
    from faithmap.methods.captum_methods import LIME, LRP, DeconvNet, DeepLIFT, GradientSHAP, GuidedBackprop, KernelSHAP
    from faithmap.methods.controls import CentredGaussian, Edges, RandomMap
    from faithmap.methods.gradients import (
        ContrastiveExcitationBackprop,
        ExcitationBackprop,
        ExpectedGradients,
        Gradient,
        GradientTimesInput,
        IntegratedGradients,
        SmoothGrad,
        VarGrad,
    )
    from faithmap.methods.masks import (
        RISE,
        ExtremalPerturbation,
        IGOSPlus,
        IGOSPlusPlus,
        LearnedMask,
        Masker,
        Nesterov,
        Occlusion,
    )
    from faithmap.methods.masks.rank_descent import RankDescent
    from faithmap.metrics import Curve, DeletionInsertion, Protocol, deletion_insertion
    from faithmap.model import Classifier
    from faithmap.score import ImageTarget
    from faithmap.seeds import image_generators
    from faithmap.targets import BinaryTarget, DetectionTarget, MultiLabelTarget, RegressionTarget, SegmentationTarget
    from faithmap.viz import show
    from faithmap.warning_types import (
        BaselineWarning,
        CompletenessWarning,
        EmptyHeatmapWarning,
        FaithmapWarning,
        LowConfidenceWarning,
    )
    from faithmap.zoo import ModelError, load

_HOMES = {
    "baselines": "BASELINES Blur Constant Mean MedianBlur Noise",
    "warning_types": "BaselineWarning CompletenessWarning EmptyHeatmapWarning FaithmapWarning LowConfidenceWarning",
    "data": "ImageError image_files read_image sample_photo",
    "explanation": "Explanation",
    "geometry": "Geometry",
    "methods": "IGOS Explainer LineSearch Mask",
    "methods.cams": (
        "CAM AblationCAM EigenCAM EvenBlurs Expected ExpectedGradCAM GradCAM GradCAMPlusPlus HiResCAM ImageSet Integrated "
        "IntegratedGradCAM LayerCAM Mixture Plain RandomBlurs RandomConstants RandomNoise ScoreCAM Smooth "
        "SmoothGradCAM SmoothGradCAMPlusPlus TokenGrid XGradCAM channels_first"
    ),
    "methods.captum_methods": "DeconvNet DeepLIFT GradientSHAP GuidedBackprop KernelSHAP LIME LRP",
    "methods.controls": "CentredGaussian Edges RandomMap",
    "methods.gradients": (
        "ContrastiveExcitationBackprop ExcitationBackprop ExpectedGradients Gradient GradientTimesInput "
        "IntegratedGradients SmoothGrad VarGrad"
    ),
    "methods.masks": "ExtremalPerturbation IGOSPlus IGOSPlusPlus LearnedMask Masker Nesterov Occlusion RISE",
    "methods.masks.rank_descent": "RankDescent",
    "metrics": "Curve DeletionInsertion Protocol deletion_insertion",
    "model": "Classifier",
    "score": "ImageTarget",
    "seeds": "image_generators",
    "targets": "BinaryTarget DetectionTarget MultiLabelTarget RegressionTarget SegmentationTarget",
    "viz": "show",
    "zoo": "ModelError load",
}
"""Module to public names."""

__all__ = [
    "BASELINES",
    "CAM",
    "IGOS",
    "LIME",
    "LRP",
    "RISE",
    "AblationCAM",
    "BaselineWarning",
    "BinaryTarget",
    "Blur",
    "CentredGaussian",
    "Classifier",
    "CompletenessWarning",
    "Constant",
    "ContrastiveExcitationBackprop",
    "Curve",
    "DeconvNet",
    "DeepLIFT",
    "DeletionInsertion",
    "DetectionTarget",
    "Edges",
    "EigenCAM",
    "EmptyHeatmapWarning",
    "EvenBlurs",
    "ExcitationBackprop",
    "Expected",
    "ExpectedGradCAM",
    "ExpectedGradients",
    "Explainer",
    "Explanation",
    "ExtremalPerturbation",
    "FaithmapWarning",
    "Geometry",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GradientSHAP",
    "GradientTimesInput",
    "GuidedBackprop",
    "HiResCAM",
    "IGOSPlus",
    "IGOSPlusPlus",
    "ImageError",
    "ImageSet",
    "ImageTarget",
    "Integrated",
    "IntegratedGradCAM",
    "IntegratedGradients",
    "KernelSHAP",
    "LayerCAM",
    "LearnedMask",
    "LineSearch",
    "LowConfidenceWarning",
    "Mask",
    "Masker",
    "Mean",
    "MedianBlur",
    "Mixture",
    "ModelError",
    "MultiLabelTarget",
    "Nesterov",
    "Noise",
    "Occlusion",
    "Plain",
    "Protocol",
    "RandomBlurs",
    "RandomConstants",
    "RandomMap",
    "RandomNoise",
    "RankDescent",
    "RegressionTarget",
    "ScoreCAM",
    "SegmentationTarget",
    "Smooth",
    "SmoothGrad",
    "SmoothGradCAM",
    "SmoothGradCAMPlusPlus",
    "TokenGrid",
    "VarGrad",
    "XGradCAM",
    "__version__",
    "channels_first",
    "deletion_insertion",
    "image_files",
    "image_generators",
    "load",
    "read_image",
    "sample_photo",
    "show",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    for home, names in _HOMES.items():
        if name in names.split():
            return getattr(import_module(f"faithmap.{home}"), name)
    raise AttributeError(f"module 'faithmap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
