"""All methods by name, as the command line has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from faithmap.methods.base import Explainer
from faithmap.methods.cams import (
    AblationCAM,
    EigenCAM,
    ExpectedGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    IntegratedGradCAM,
    LayerCAM,
    ScoreCAM,
    SmoothGradCAM,
    SmoothGradCAMPlusPlus,
    XGradCAM,
)
from faithmap.methods.masks import IGOS, Mask


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        explainer: its class.
        summary: one line.
        passes: what an image costs, in passes of the model; a pass is forward and backward unless it says otherwise.
        source: where it comes from.
    """

    explainer: type[Explainer]
    summary: str
    passes: str
    source: str


_ALL = {
    "igos": Method(
        IGOS, "the smallest part whose removal makes the score fall, along integrated gradients", "about 350", "Qi 2020"
    ),
    "mask": Method(Mask, "the same objective along the plain gradient, with Adam", "500", "Fong 2017"),
    "expected_gradcam": Method(
        ExpectedGradCAM,
        "gradients expected over paths from many references, at three layers",
        "1 a sample",
        "Buono 2024",
    ),
    "gradcam": Method(GradCAM, "channels weighted by their mean gradient", "1", "Selvaraju 2017"),
    "gradcam_plus_plus": Method(GradCAMPlusPlus, "positive gradients, whatever an object's size", "1", "Chattopadhay 2018"),
    "xgradcam": Method(XGradCAM, "mean gradients that count cells by their activation", "1", "Fu 2020"),
    "layercam": Method(LayerCAM, "each cell by its own positive gradient", "1", "Jiang 2021"),
    "hirescam": Method(HiResCAM, "each cell by its own gradient", "1", "Draelos 2020"),
    "smooth_gradcam": Method(SmoothGradCAM, "Grad-CAM with gradients of noisy copies", "1 a sample", "Smilkov 2017"),
    "smooth_gradcam_plus_plus": Method(
        SmoothGradCAMPlusPlus, "Grad-CAM++ with gradients of noisy copies", "1 a sample", "Omeiza 2019"
    ),
    "integrated_gradcam": Method(
        IntegratedGradCAM, "maps of the change from a baseline, averaged on the path", "1 a sample", "Sattarzadeh 2021"
    ),
    "scorecam": Method(ScoreCAM, "channels weighted by the score of what they show", "1 forward a channel", "Wang 2020"),
    "ablationcam": Method(
        AblationCAM, "channels weighted by the fall of the score without them", "1 forward a channel", "Desai 2020"
    ),
    "eigencam": Method(
        EigenCAM, "first principal component of the activation, whatever the class", "1 forward", "Muhammad 2020"
    ),
}

METHODS: Mapping[str, Method] = MappingProxyType(_ALL)
