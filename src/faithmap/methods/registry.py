"""All methods by name: what the command line, the tables in the docs and the benchmarks know of them.

A new method is a file of its own, and one entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

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
from faithmap.methods.captum_methods import (
    LIME,
    LRP,
    DeconvNet,
    DeepLIFT,
    GradientSHAP,
    GuidedBackprop,
    KernelSHAP,
)
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
from faithmap.methods.masks import IGOS, RISE, ExtremalPerturbation, IGOSPlus, IGOSPlusPlus, LearnedMask, Mask, Occlusion

Need: TypeAlias = Literal["gradient", "layer", "references", "masker", "captum"]
"""What a method asks of a model, or of its user: gradients; a layer with a spatial output; images to begin paths at; a network
that was trained for the model; captum."""


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        explainer: its class.
        summary: one line.
        passes: what an image costs, in passes of the model; a pass is forward and backward unless it says otherwise.
        source: where it comes from.
        needs: what it cannot do without.
    """

    explainer: type[Explainer]
    summary: str
    passes: str
    source: str
    needs: tuple[Need, ...] = ()


_GRADIENT: tuple[Need, ...] = ("gradient",)
_CAPTUM: tuple[Need, ...] = ("gradient", "captum")
_LAYER: tuple[Need, ...] = ("layer",)
_BOTH: tuple[Need, ...] = ("gradient", "layer")

_ALL = {
    "igos": Method(
        IGOS,
        "the smallest part whose removal makes the score fall, along integrated gradients",
        "about 350",
        "Qi 2020",
        _GRADIENT,
    ),
    "igos_plus": Method(
        IGOSPlus,
        "a part whose removal takes the score away, and which brings it back",
        "about 700",
        "Khorram 2021",
        _GRADIENT,
    ),
    "igos_plus_plus": Method(
        IGOSPlusPlus, "the same with a mask for each of the two, and their product", "about 1400", "Khorram 2021", _GRADIENT
    ),
    "mask": Method(Mask, "the objective of I-GOS along the plain gradient, with Adam", "500", "Fong 2017", _GRADIENT),
    "extremal": Method(
        ExtremalPerturbation,
        "of all smooth masks of an area the one that keeps the most of the score, at four areas",
        "3200",
        "Fong 2019",
        _GRADIENT,
    ),
    "learned_mask": Method(
        LearnedMask,
        "what a small network answers that was trained to mask for this model",
        "1 forward, and 1 of the small network",
        "Dabkowski 2017",
        ("masker",),
    ),
    "expected_gradcam": Method(
        ExpectedGradCAM,
        "gradients expected over paths from many references, at three layers",
        "1 a sample",
        "Buono 2024",
        (*_BOTH, "references"),
    ),
    "gradcam": Method(GradCAM, "channels weighted by their mean gradient", "1", "Selvaraju 2017", _BOTH),
    "gradcam_plus_plus": Method(
        GradCAMPlusPlus, "positive gradients, whatever an object's size", "1", "Chattopadhay 2018", _BOTH
    ),
    "xgradcam": Method(XGradCAM, "mean gradients that count cells by their activation", "1", "Fu 2020", _BOTH),
    "layercam": Method(LayerCAM, "each cell by its own positive gradient", "1", "Jiang 2021", _BOTH),
    "hirescam": Method(HiResCAM, "each cell by its own gradient", "1", "Draelos 2020", _BOTH),
    "smooth_gradcam": Method(SmoothGradCAM, "Grad-CAM with gradients of noisy copies", "1 a sample", "Smilkov 2017", _BOTH),
    "smooth_gradcam_plus_plus": Method(
        SmoothGradCAMPlusPlus, "Grad-CAM++ with gradients of noisy copies", "1 a sample", "Omeiza 2019", _BOTH
    ),
    "integrated_gradcam": Method(
        IntegratedGradCAM, "maps of the change from a baseline, averaged on the path", "1 a sample", "Sattarzadeh 2021", _BOTH
    ),
    "scorecam": Method(
        ScoreCAM, "channels weighted by the score of what they show", "1 forward a channel", "Wang 2020", _LAYER
    ),
    "ablationcam": Method(
        AblationCAM, "channels weighted by the fall of the score without them", "1 forward a channel", "Desai 2020", _LAYER
    ),
    "eigencam": Method(
        EigenCAM, "first principal component of the activation, whatever the class", "1 forward", "Muhammad 2020", _LAYER
    ),
    "gradient": Method(Gradient, "the gradient to the pixels", "1", "Simonyan 2014", _GRADIENT),
    "gradient_times_input": Method(
        GradientTimesInput, "the gradient times the image, less a baseline", "1", "Shrikumar 2016", _GRADIENT
    ),
    "smoothgrad": Method(SmoothGrad, "the mean gradient of noisy copies", "1 a sample", "Smilkov 2017", _GRADIENT),
    "vargrad": Method(VarGrad, "the variance of the gradients of noisy copies", "1 a sample", "Adebayo 2018", _GRADIENT),
    "integrated_gradients": Method(
        IntegratedGradients, "what each pixel adds on the way from a baseline", "1 a sample", "Sundararajan 2017", _GRADIENT
    ),
    "expected_gradients": Method(
        ExpectedGradients,
        "the same from many references, at random places of the way",
        "1 a sample",
        "Erion 2021",
        (*_GRADIENT, "references"),
    ),
    "excitation_backprop": Method(
        ExcitationBackprop, "where a walk from winner to winner passes, down from the class", "1", "Zhang 2016", _LAYER
    ),
    "contrastive_excitation_backprop": Method(
        ContrastiveExcitationBackprop,
        "the same, less the walk down from what speaks against the class",
        "1",
        "Zhang 2016",
        _LAYER,
    ),
    "occlusion": Method(Occlusion, "the fall of the score when a patch goes", "1 forward a patch, about 600", "Zeiler 2014"),
    "rise": Method(RISE, "random masks, weighted by the score of what they show", "4000 forward, of a ResNet 8000", "Petsiuk 2018"),
    "guided_backprop": Method(
        GuidedBackprop, "the gradient, of which rectifiers let only positive parts through", "2", "Springenberg 2015", _CAPTUM
    ),
    "deconvnet": Method(DeconvNet, "the same, wherever the rectifiers are open", "2", "Zeiler 2014", _CAPTUM),
    "deeplift": Method(DeepLIFT, "what each pixel adds to the change from a baseline", "4", "Shrikumar 2017", _CAPTUM),
    "lrp": Method(LRP, "the score handed down, layer by layer", "5 forward, 2 backward", "Bach 2015", _CAPTUM),
    "lime": Method(LIME, "a linear model of random parts shown, near the image", "1000 forward", "Ribeiro 2016", ("captum",)),
    "kernelshap": Method(
        KernelSHAP, "the same, whose parts share the score fairly", "1000 forward", "Lundberg 2017", ("captum",)
    ),
    "gradientshap": Method(
        GradientSHAP,
        "expected gradients, drawn plainly",
        "1 a sample",
        "Lundberg 2017",
        (*_CAPTUM, "references"),
    ),
    "random_map": Method(RandomMap, "a control: independent random cells", "1 forward", "control"),
    "gaussian": Method(CentredGaussian, "a control: a bump in the middle", "1 forward", "control"),
    "edges": Method(Edges, "a control: where the image changes", "1 forward", "Adebayo 2018"),
}

METHODS: Mapping[str, Method] = MappingProxyType(_ALL)
