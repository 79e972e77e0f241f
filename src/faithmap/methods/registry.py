"""The registry: all methods by name, and explainers made from names and plain settings.

A new method is a file of its own, and one entry here (docs/methods/adding.md). Importing the registry does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from annotated_types import Ge

from faithmap.errors import did_you_mean
from faithmap.methods.settings import Setting, SettingError, find_setting, plain_settings

if TYPE_CHECKING:
    from torch import nn

    from faithmap.methods.base import Explainer

Need: TypeAlias = Literal["gradient", "layer", "references", "masker", "captum"]
"""Requirements of a method: gradients of the model; a layer with a spatial output; reference images; a network that was
trained for the model; the captum library."""


@dataclass(frozen=True)
class MethodInfo:
    """One method of the registry.

    >>> info = MethodInfo("controls.Edges", "control: edges of the image", "1 forward + 0 backward", "Adebayo 2018")
    >>> info.explainer.__name__
    'Edges'

    Attributes:
        home: dotted path of the class below ``faithmap.methods``.
        summary: what the method computes, in one line.
        passes: passes of the model per image at the default settings, as ``"N forward + M backward"``; the pass that finds the
            explained class is included. ``benchmarks/method_costs.py`` counts them.
        source: author and year of the publication.
        needs: requirements of the method.
        also: other names of the method.
        presets: names of the class methods that return the settings of a publication.
    """

    home: str
    summary: str
    passes: str
    source: str
    needs: tuple[Need, ...] = ()
    also: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()

    @property
    def explainer(self) -> type[Explainer]:
        """The class; imports torch."""
        module, _, name = self.home.rpartition(".")
        found: type[Explainer] = getattr(import_module(f"faithmap.methods.{module}"), name)
        return found


_GRADIENT: tuple[Need, ...] = ("gradient",)
_CAPTUM: tuple[Need, ...] = ("gradient", "captum")
_LAYER: tuple[Need, ...] = ("layer",)
_GRADIENT_AND_LAYER: tuple[Need, ...] = ("gradient", "layer")

_ALL = {
    "igos": MethodInfo(
        "masks.IGOS",
        "a mask whose removal lowers the score, found with integrated gradients",
        "about 402 forward + 286 backward",
        "Qi 2020",
        _GRADIENT,
        presets=("paper",),
    ),
    "igos_plus": MethodInfo(
        "masks.IGOSPlus",
        "a mask whose removal lowers the score, and which alone keeps it",
        "about 632 forward + 480 backward",
        "Khorram 2021",
        _GRADIENT,
    ),
    "igos_plus_plus": MethodInfo(
        "masks.IGOSPlusPlus",
        "a deletion mask and an insertion mask; the map is their product",
        "1266 forward + 1200 backward",
        "Khorram 2021",
        _GRADIENT,
    ),
    "mask": MethodInfo(
        "masks.Mask",
        "the objective of I-GOS, minimised with plain gradients and Adam",
        "504 forward + 500 backward",
        "Fong 2017",
        _GRADIENT,
    ),
    "extremal": MethodInfo(
        "masks.ExtremalPerturbation",
        "the smooth masks of four areas that keep the highest score",
        "3210 forward + 3200 backward",
        "Fong 2019",
        _GRADIENT,
    ),
    "learned_mask": MethodInfo(
        "masks.LearnedMask",
        "a mask predicted by a small network that was trained for the model",
        "1 forward + 0 backward, and 1 forward of the small network",
        "Dabkowski 2017",
        ("masker",),
    ),
    "rank_descent": MethodInfo(
        "masks.rank_descent.RankDescent",
        "a ranking of cells optimised for deletion and insertion, starting from Expected Fused CAM",
        "63 forward + 60 backward",
        "faithmap",
        _GRADIENT,
    ),
    "fusedcam": MethodInfo(
        "cams.FusedCAM",
        "the mean of the maps of three layers, cells weighted by their own gradient",
        "1 forward + 1 backward",
        "faithmap",
        _GRADIENT_AND_LAYER,
    ),
    "expected_fusedcam": MethodInfo(
        "cams.ExpectedFusedCAM",
        "the same with gradients averaged over paths from many references",
        "25 forward + 24 backward",
        "faithmap",
        (*_GRADIENT_AND_LAYER, "references"),
    ),
    "expected_gradcam": MethodInfo(
        "cams.ExpectedGradCAM",
        "Grad-CAM with contributions expected over paths from many references",
        "37 forward + 36 backward",
        "Buono 2024",
        (*_GRADIENT_AND_LAYER, "references"),
    ),
    "gradcam": MethodInfo(
        "cams.GradCAM",
        "channels weighted by their mean gradient",
        "1 forward + 1 backward",
        "Selvaraju 2017",
        _GRADIENT_AND_LAYER,
    ),
    "gradcam_plus_plus": MethodInfo(
        "cams.GradCAMPlusPlus",
        "channels weighted by a weighted sum of their positive gradients",
        "1 forward + 1 backward",
        "Chattopadhay 2018",
        _GRADIENT_AND_LAYER,
    ),
    "xgradcam": MethodInfo(
        "cams.XGradCAM",
        "channels weighted by their mean gradient, each cell in proportion to its activation",
        "1 forward + 1 backward",
        "Fu 2020",
        _GRADIENT_AND_LAYER,
    ),
    "layercam": MethodInfo(
        "cams.LayerCAM",
        "cells weighted by their own positive gradient",
        "1 forward + 1 backward",
        "Jiang 2021",
        _GRADIENT_AND_LAYER,
    ),
    "hirescam": MethodInfo(
        "cams.HiResCAM", "cells weighted by their own gradient", "1 forward + 1 backward", "Draelos 2020", _GRADIENT_AND_LAYER
    ),
    "smooth_gradcam": MethodInfo(
        "cams.SmoothGradCAM",
        "Grad-CAM with gradients averaged over noisy copies of the image",
        "25 forward + 24 backward",
        "Smilkov 2017",
        _GRADIENT_AND_LAYER,
    ),
    "smooth_gradcam_plus_plus": MethodInfo(
        "cams.SmoothGradCAMPlusPlus",
        "Grad-CAM++ with gradients averaged over noisy copies of the image",
        "25 forward + 24 backward",
        "Omeiza 2019",
        _GRADIENT_AND_LAYER,
    ),
    "integrated_gradcam": MethodInfo(
        "cams.IntegratedGradCAM",
        "Grad-CAM of the activation's change, averaged along the path from a baseline",
        "26 forward + 25 backward",
        "Sattarzadeh 2021",
        _GRADIENT_AND_LAYER,
    ),
    "scorecam": MethodInfo(
        "cams.ScoreCAM",
        "channels weighted by the score of the image masked with them",
        "1 + C forward + 0 backward for C channels",
        "Wang 2020",
        _LAYER,
    ),
    "ablationcam": MethodInfo(
        "cams.AblationCAM",
        "channels weighted by the drop of the score without them",
        "1 + C forward + 0 backward for C channels",
        "Desai 2020",
        _LAYER,
    ),
    "eigencam": MethodInfo(
        "cams.EigenCAM",
        "first principal component of the activation; the same map for every class",
        "1 forward + 0 backward",
        "Muhammad 2020",
        _LAYER,
    ),
    "gradient": MethodInfo(
        "gradients.Gradient",
        "gradient of the score with respect to the pixels",
        "2 forward + 1 backward",
        "Simonyan 2014",
        _GRADIENT,
    ),
    "gradient_times_input": MethodInfo(
        "gradients.GradientTimesInput",
        "gradient times the difference of image and baseline",
        "2 forward + 1 backward",
        "Shrikumar 2016",
        _GRADIENT,
    ),
    "smoothgrad": MethodInfo(
        "gradients.SmoothGrad",
        "mean of the gradient over noisy copies of the image",
        "51 forward + 50 backward",
        "Smilkov 2017",
        _GRADIENT,
    ),
    "vargrad": MethodInfo(
        "gradients.VarGrad",
        "variance of the gradient over noisy copies of the image",
        "51 forward + 50 backward",
        "Adebayo 2018",
        _GRADIENT,
    ),
    "integrated_gradients": MethodInfo(
        "gradients.IntegratedGradients",
        "mean gradient along the path from a baseline, times the difference of image and baseline",
        "52 forward + 50 backward",
        "Sundararajan 2017",
        _GRADIENT,
    ),
    "expected_gradients": MethodInfo(
        "gradients.ExpectedGradients",
        "integrated gradients from many references, at random points along the path",
        "51 forward + 50 backward",
        "Erion 2021",
        (*_GRADIENT, "references"),
    ),
    "excitation_backprop": MethodInfo(
        "gradients.ExcitationBackprop",
        "probability that a random walk from the class down to a layer, along excitatory weights, ends in a cell",
        "2 forward + 1 backward",
        "Zhang 2016",
        _LAYER,
        ("mwp",),
    ),
    "contrastive_excitation_backprop": MethodInfo(
        "gradients.ContrastiveExcitationBackprop",
        "excitation backprop of the class minus that of its negated output unit",
        "2 forward + 1 backward",
        "Zhang 2016",
        _LAYER,
        ("c_mwp",),
    ),
    "occlusion": MethodInfo(
        "masks.Occlusion",
        "drop of the score when a patch is replaced by a baseline",
        "626 forward + 0 backward for 224x224 pixels",
        "Zeiler 2014",
    ),
    "rise": MethodInfo(
        "masks.RISE",
        "mean of random masks, weighted by the score of the masked image",
        "4001 forward + 0 backward, 8001 forward for a ResNet",
        "Petsiuk 2018",
    ),
    "guided_backprop": MethodInfo(
        "captum_methods.GuidedBackprop",
        "gradient with negative values set to zero at every active ReLU",
        "3 forward + 1 backward",
        "Springenberg 2015",
        _CAPTUM,
    ),
    "deconvnet": MethodInfo(
        "captum_methods.DeconvNet",
        "gradient with negative values set to zero at every ReLU, active or not",
        "3 forward + 1 backward",
        "Zeiler 2014",
        _CAPTUM,
    ),
    "deeplift": MethodInfo(
        "captum_methods.DeepLIFT",
        "contribution of each pixel to the change of the score from a baseline",
        "5 forward + 2 backward",
        "Shrikumar 2017",
        _CAPTUM,
    ),
    "lrp": MethodInfo(
        "captum_methods.LRP",
        "the score, distributed from layer to layer down to the pixels",
        "6 forward + 2 backward",
        "Bach 2015",
        _CAPTUM,
    ),
    "lime": MethodInfo(
        "captum_methods.LIME",
        "coefficients of a linear model of the score, fitted to images with random parts removed",
        "1002 forward + 0 backward",
        "Ribeiro 2016",
        ("captum",),
    ),
    "kernelshap": MethodInfo(
        "captum_methods.KernelSHAP",
        "Shapley values of the parts of the image, estimated by weighted least squares",
        "1002 forward + 0 backward",
        "Lundberg 2017",
        ("captum",),
    ),
    "gradientshap": MethodInfo(
        "captum_methods.GradientSHAP",
        "expected gradients from independent samples",
        "51 forward + 50 backward",
        "Lundberg 2017",
        (*_CAPTUM, "references"),
    ),
    "random_map": MethodInfo("controls.RandomMap", "control: independent random cells", "1 forward + 0 backward", "control"),
    "gaussian": MethodInfo(
        "controls.CentredGaussian", "control: a Gaussian in the middle of the image", "1 forward + 0 backward", "control"
    ),
    "edges": MethodInfo("controls.Edges", "control: edges of the image", "1 forward + 0 backward", "Adebayo 2018"),
}

METHODS: Mapping[str, MethodInfo] = MappingProxyType(_ALL)
"""All methods by name.

>>> METHODS["gradcam"].passes
'1 forward + 1 backward'
"""

ALIASES: Mapping[str, str] = MappingProxyType({also: name for name, method in METHODS.items() for also in method.also})
"""The method of each other name.

>>> ALIASES["mwp"]
'excitation_backprop'
"""


def method_named(name: str) -> str:
    """The registry's name of a method.

    >>> method_named("mwp")
    'excitation_backprop'

    Raises:
        SettingError: for a name that no method has, with the nearest names.
    """
    found = ALIASES.get(name, name)
    if found in METHODS:
        return found
    hint = did_you_mean(name, (*METHODS, *ALIASES), f"give some of {', '.join(METHODS)}")
    raise SettingError(f'"{name}" is no method; {hint}', name)


@dataclass(frozen=True)
class MethodVariant:
    """A method with a resolution and settings of its own, of those that are used together.

    >>> str(MethodVariant("igos", (14, 20), ("noise_std=0", "lambda1=2")))
    'igos@14x20:noise_std=0:lambda1=2'

    Attributes:
        name: of the method.
        resolution: (rows, columns); None for that of the others.
        settings: texts as for :func:`assigned`.
    """

    name: str
    resolution: tuple[int, int] | None = None
    settings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> MethodVariant:
        """The entry of a text: a name, ``@`` and a resolution, and settings, each after a colon.

        >>> MethodVariant.parse("igos@224:noise_std=0")
        MethodVariant(name='igos', resolution=(224, 224), settings=('noise_std=0',))

        Raises:
            SettingError: for a method that does not exist, or a text that is no resolution. Settings are checked by
                :func:`assigned`.
        """
        head, colon, rest = text.partition(":")
        name, at, cells = head.partition("@")
        settings = _NEXT_SETTING.split(rest) if colon else []
        resolution = _RESOLUTION.from_plain(_RESOLUTION.from_text(cells.strip())) if at else None
        sides = (resolution, resolution) if isinstance(resolution, int) else resolution
        return cls(method_named(name.strip()), sides, tuple(setting.strip() for setting in settings))

    def __str__(self) -> str:
        """The text that :meth:`parse` reads."""
        rows, columns = self.resolution or (0, 0)
        at = "" if self.resolution is None else f"@{rows}" if rows == columns else f"@{rows}x{columns}"
        return ":".join([f"{self.name}{at}", *self.settings])


_RESOLUTION = Setting("resolution", Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]])
_NEXT_SETTING = re.compile(r":(?=\s*[\w.]+\s*=)")
_NUMBER = re.compile(r"[-+.\d]")


def split_entries(text: str) -> list[str]:
    """The texts of several entries, separated by commas.

    A comma inside brackets or braces, or before a number, is one of a value.

    >>> split_entries("igos, extremal:areas=0.1,0.2, igos:step={kind='fixed_step', size=8}")
    ['igos', 'extremal:areas=0.1,0.2', "igos:step={kind='fixed_step', size=8}"]
    """
    depth, parts = 0, [""]
    for piece in re.split(r"([\[\]{},])", text):
        depth += (piece in ("[", "{")) - (piece in ("]", "}"))
        if piece == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    entries: list[str] = []
    for part in (part.strip() for part in parts):
        if entries and _NUMBER.match(part):
            entries[-1] += f",{part}"
        else:
            entries.append(part)
    return entries


def explainer_from(name: str, model: nn.Module, settings: Mapping[str, Any]) -> Explainer:
    """A method of the registry with settings in plain form (:mod:`faithmap.methods.settings`).

    Beside plain values, three objects have a text as their plain form: a method has its name, a dtype has its name, and a
    trained network has the path of its file. ``preset`` stands for the settings of a publication; others given replace them.

    >>> import torch
    >>> explainer_from("igos", torch.nn.Identity(), {"lambda1": 0.5, "step": {"kind": "nesterov", "size": 4}}).step
    Nesterov(size=4)
    >>> explainer_from("igos", torch.nn.Identity(), {"lambda3": 0.5})
    Traceback (most recent call last):
        ...
    faithmap.methods.settings.SettingError: igos has no setting 'lambda3'; did you mean lambda2 or lambda1?

    Args:
        name: of the method.
        model: the explained model.
        settings: plain values by name; objects are accepted too.

    Raises:
        SettingError: for a setting that the method does not have, or a value that it does not accept.
    """
    kind, settings = METHODS[name].explainer, _with_preset(name, settings)
    given = {key: _named_object(find_setting(kind, key, name)[-1], value, model) for key, value in settings.items()}
    if "masker" in METHODS[name].needs and given.get("masker") is None:
        made = "'faithmap train-masker' makes one; give its file as masker (--masker FILE on the command line)"
        raise SettingError(f"{name} needs a network that was trained for the model; {made}", "masker")
    return kind(model, **plain_settings(kind, given, name))


PRESET = "preset"
"""The setting that stands for those of a publication."""


def _with_preset(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the preset among the given ones, replaced by the others."""
    others = {key: value for key, value in settings.items() if key != PRESET}
    preset, known = settings.get(PRESET), METHODS[name].presets
    if preset is None:
        return others
    if preset not in known:
        having = ", ".join(method for method, info in METHODS.items() if info.presets)
        hint = f"its presets are {', '.join(known)}" if known else f"methods with presets are {having}"
        raise SettingError(f"{name} has no preset {preset!r}; {hint}", PRESET)
    kind = METHODS[name].explainer
    resolution = find_setting(kind, "resolution")[-1].from_plain(others["resolution"]) if "resolution" in others else None
    chosen: dict[str, Any] = getattr(kind, preset)(*([] if resolution is None else [resolution]))
    return {**chosen, **others}


def assigned(texts: Sequence[str], methods: Collection[str]) -> dict[str, dict[str, Any]]:
    """Settings in plain form of each method, from texts such as ``lambda1=0.5``, or ``igos.lambda1=0.5`` for one method alone.

    >>> assigned(["iterations=20", "igos.lambda1=0.5"], ["igos", "mask", "gradcam"])
    {'igos': {'iterations': 20, 'lambda1': 0.5}, 'mask': {'iterations': 20}, 'gradcam': {}}

    Args:
        texts: a setting without a method's name is one of every method that has it.
        methods: the methods that are used, by name.

    Raises:
        SettingError: for a text that is no assignment, a setting that none of the methods has, or a value out of its range.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in methods}
    for text in texts:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not name:
            raise SettingError(f"{text!r} sets nothing; give NAME=VALUE, such as lambda1=0.5", name)
        method, _, rest = name.partition(".")
        method = ALIASES.get(method, method)
        owners, name = ([method], rest) if method in found else (list(methods), name)
        settings = _settings_named(name, owners)
        for owner, setting in settings.items():
            found[owner][name] = value if _has_name(setting) else setting.from_text(value)
    return found


def _settings_named(name: str, methods: Sequence[str]) -> dict[str, Setting]:
    """The setting of that name of each method that has it."""
    found, error = {}, None
    for method in methods:
        try:
            found[method] = _setting_named(name, method)
        except SettingError as unknown:
            error = error or unknown
    if error is not None and not found:
        raise error
    return found


def _setting_named(name: str, method: str) -> Setting:
    presets = METHODS[method].presets
    if name == PRESET and presets:
        return Setting(PRESET, Literal[presets], None)
    return find_setting(METHODS[method].explainer, name, method)[-1]


def _has_name(setting: Setting) -> bool:
    """Whether a text can stand for an object that :func:`_named_object` makes."""
    import torch  # noqa: PLC0415 - the registry is read without torch

    from faithmap.methods.base import Explainer  # noqa: PLC0415
    from faithmap.methods.masks.masker import Masker  # noqa: PLC0415

    return any(map(setting.accepts, (torch.dtype, Explainer, Masker)))


def _named_object(setting: Setting, value: Any, model: nn.Module) -> Any:
    """The object that a text or table stands for, which only the model or torch can make; any other value as it is."""
    import torch  # noqa: PLC0415 - the registry is read without torch

    from faithmap.methods.base import Explainer  # noqa: PLC0415
    from faithmap.methods.masks.masker import Masker  # noqa: PLC0415
    from faithmap.methods.masks.masker_files import read_masker  # noqa: PLC0415

    if setting.accepts(Masker) and isinstance(value, (str, Path)):
        return read_masker(value, model)
    if setting.accepts(torch.dtype) and isinstance(getattr(torch, str(value), None), torch.dtype):
        return getattr(torch, value)
    if setting.accepts(Explainer):
        name, given = (value.get("kind"), value) if isinstance(value, Mapping) else (value, {})
        if isinstance(name, str) and name in METHODS and name not in setting.choices:
            return explainer_from(name, model, {key: item for key, item in given.items() if key != "kind"})
    return value
