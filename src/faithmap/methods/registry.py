"""All methods by name: what the command line, the tables in the docs and the benchmarks know of them.

A new method is a file of its own, and one entry here (docs/methods/adding.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from faithmap.methods.method_info import MethodInfo, Need

_GRADIENT: tuple[Need, ...] = ("gradient",)
_CAPTUM: tuple[Need, ...] = ("gradient", "captum")
_LAYER: tuple[Need, ...] = ("layer",)
_BOTH: tuple[Need, ...] = ("gradient", "layer")

_ALL = {
    "igos": MethodInfo(
        "masks.IGOS",
        "the smallest part whose removal makes the score fall, along integrated gradients",
        "about 350 forward, 250 backward",
        "Qi 2020",
        _GRADIENT,
    ),
    "igos_plus": MethodInfo(
        "masks.IGOSPlus",
        "a part whose removal takes the score away, and which brings it back",
        "about 700 forward, 500 backward",
        "Khorram 2021",
        _GRADIENT,
    ),
    "igos_plus_plus": MethodInfo(
        "masks.IGOSPlusPlus",
        "the same with a mask for each of the two, and their product",
        "1266 forward, 1200 backward",
        "Khorram 2021",
        _GRADIENT,
    ),
    "mask": MethodInfo(
        "masks.Mask",
        "the objective of I-GOS along the plain gradient, with Adam",
        "504 forward, 500 backward",
        "Fong 2017",
        _GRADIENT,
    ),
    "extremal": MethodInfo(
        "masks.ExtremalPerturbation",
        "of all smooth masks of an area the one that keeps the most of the score, at four areas",
        "3210 forward, 3200 backward",
        "Fong 2019",
        _GRADIENT,
    ),
    "learned_mask": MethodInfo(
        "masks.LearnedMask",
        "what a small network answers that was trained to mask for this model",
        "1 forward, and 1 of the small network",
        "Dabkowski 2017",
        ("masker",),
    ),
    "rank_descent": MethodInfo(
        "masks.rank_descent.RankDescent",
        "the order of cells that is best at both games, from Expected Grad-CAM's on",
        "62 forward, 60 backward",
        "faithmap",
        _GRADIENT,
    ),
    "expected_gradcam": MethodInfo(
        "cams.ExpectedGradCAM",
        "gradients expected over paths from many references, at three layers",
        "25 forward, 24 backward",
        "Buono 2024",
        (*_BOTH, "references"),
    ),
    "gradcam": MethodInfo(
        "cams.GradCAM", "channels weighted by their mean gradient", "1 forward, 1 backward", "Selvaraju 2017", _BOTH
    ),
    "gradcam_plus_plus": MethodInfo(
        "cams.GradCAMPlusPlus",
        "positive gradients, whatever an object's size",
        "1 forward, 1 backward",
        "Chattopadhay 2018",
        _BOTH,
    ),
    "xgradcam": MethodInfo(
        "cams.XGradCAM", "mean gradients that count cells by their activation", "1 forward, 1 backward", "Fu 2020", _BOTH
    ),
    "layercam": MethodInfo(
        "cams.LayerCAM", "each cell by its own positive gradient", "1 forward, 1 backward", "Jiang 2021", _BOTH
    ),
    "hirescam": MethodInfo("cams.HiResCAM", "each cell by its own gradient", "1 forward, 1 backward", "Draelos 2020", _BOTH),
    "smooth_gradcam": MethodInfo(
        "cams.SmoothGradCAM", "Grad-CAM with gradients of noisy copies", "25 forward, 24 backward", "Smilkov 2017", _BOTH
    ),
    "smooth_gradcam_plus_plus": MethodInfo(
        "cams.SmoothGradCAMPlusPlus",
        "Grad-CAM++ with gradients of noisy copies",
        "25 forward, 24 backward",
        "Omeiza 2019",
        _BOTH,
    ),
    "integrated_gradcam": MethodInfo(
        "cams.IntegratedGradCAM",
        "maps of the change from a baseline, averaged on the path",
        "26 forward, 25 backward",
        "Sattarzadeh 2021",
        _BOTH,
    ),
    "scorecam": MethodInfo(
        "cams.ScoreCAM", "channels weighted by the score of what they show", "1 forward, and 1 a channel", "Wang 2020", _LAYER
    ),
    "ablationcam": MethodInfo(
        "cams.AblationCAM",
        "channels weighted by the fall of the score without them",
        "1 forward, and 1 a channel",
        "Desai 2020",
        _LAYER,
    ),
    "eigencam": MethodInfo(
        "cams.EigenCAM", "first principal component of the activation, whatever the class", "1 forward", "Muhammad 2020", _LAYER
    ),
    "gradient": MethodInfo(
        "gradients.Gradient", "the gradient to the pixels", "2 forward, 1 backward", "Simonyan 2014", _GRADIENT
    ),
    "gradient_times_input": MethodInfo(
        "gradients.GradientTimesInput",
        "the gradient times the image, less a baseline",
        "2 forward, 1 backward",
        "Shrikumar 2016",
        _GRADIENT,
    ),
    "smoothgrad": MethodInfo(
        "gradients.SmoothGrad", "the mean gradient of noisy copies", "51 forward, 50 backward", "Smilkov 2017", _GRADIENT
    ),
    "vargrad": MethodInfo(
        "gradients.VarGrad",
        "the variance of the gradients of noisy copies",
        "51 forward, 50 backward",
        "Adebayo 2018",
        _GRADIENT,
    ),
    "integrated_gradients": MethodInfo(
        "gradients.IntegratedGradients",
        "what each pixel adds on the way from a baseline",
        "52 forward, 50 backward",
        "Sundararajan 2017",
        _GRADIENT,
    ),
    "expected_gradients": MethodInfo(
        "gradients.ExpectedGradients",
        "the same from many references, at random places of the way",
        "51 forward, 50 backward",
        "Erion 2021",
        (*_GRADIENT, "references"),
    ),
    "excitation_backprop": MethodInfo(
        "gradients.ExcitationBackprop",
        "where a walk from winner to winner passes, down from the class",
        "2 forward, 1 backward",
        "Zhang 2016",
        _LAYER,
        ("mwp",),
    ),
    "contrastive_excitation_backprop": MethodInfo(
        "gradients.ContrastiveExcitationBackprop",
        "the same, less the walk down from what speaks against the class",
        "2 forward, 1 backward",
        "Zhang 2016",
        _LAYER,
        ("c_mwp",),
    ),
    "occlusion": MethodInfo(
        "masks.Occlusion", "the fall of the score when a patch goes", "626 forward, of an image of 224x224", "Zeiler 2014"
    ),
    "rise": MethodInfo(
        "masks.RISE", "random masks, weighted by the score of what they show", "4001 forward, of a ResNet 8001", "Petsiuk 2018"
    ),
    "guided_backprop": MethodInfo(
        "captum_methods.GuidedBackprop",
        "the gradient, of which open rectifiers let only positive parts through",
        "3 forward, 1 backward",
        "Springenberg 2015",
        _CAPTUM,
    ),
    "deconvnet": MethodInfo(
        "captum_methods.DeconvNet",
        "the same, of which closed rectifiers let them through, too",
        "3 forward, 1 backward",
        "Zeiler 2014",
        _CAPTUM,
    ),
    "deeplift": MethodInfo(
        "captum_methods.DeepLIFT",
        "what each pixel adds to the change from a baseline",
        "5 forward, 2 backward",
        "Shrikumar 2017",
        _CAPTUM,
    ),
    "lrp": MethodInfo(
        "captum_methods.LRP", "the score handed down, layer by layer", "6 forward, 2 backward", "Bach 2015", _CAPTUM
    ),
    "lime": MethodInfo(
        "captum_methods.LIME",
        "a linear model of random parts shown, near the image",
        "1002 forward",
        "Ribeiro 2016",
        ("captum",),
    ),
    "kernelshap": MethodInfo(
        "captum_methods.KernelSHAP",
        "the same, whose parts share the score fairly",
        "1002 forward",
        "Lundberg 2017",
        ("captum",),
    ),
    "gradientshap": MethodInfo(
        "captum_methods.GradientSHAP",
        "expected gradients, drawn plainly",
        "51 forward, 50 backward",
        "Lundberg 2017",
        (*_CAPTUM, "references"),
    ),
    "random_map": MethodInfo("controls.RandomMap", "a control: independent random cells", "1 forward", "control"),
    "gaussian": MethodInfo("controls.CentredGaussian", "a control: a bump in the middle", "1 forward", "control"),
    "edges": MethodInfo("controls.Edges", "a control: where the image changes", "1 forward", "Adebayo 2018"),
}

METHODS: Mapping[str, MethodInfo] = MappingProxyType(_ALL)

ALIASES: Mapping[str, str] = MappingProxyType({also: name for name, method in METHODS.items() for also in method.also})
"""Other names, and the method that each stands for."""
