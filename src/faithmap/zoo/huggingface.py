"""``hf/REPO``: image classifiers of transformers, from the Hugging Face hub or, as ``hf/./FOLDER``, from a folder.

Weights are read from safetensors files, and code in a repository is not run.
"""

from __future__ import annotations

import copy
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from faithmap.model import Geometry
from faithmap.score import OutputKind
from faithmap.zoo.hub import reachable
from faithmap.zoo.recipe import Preprocessing, Recipe, TrainedModule, refusal, refusing, short_labels, state_digest

_WRAP = "build it with transformers and wrap it in faithmap.Classifier"
_INTERPOLATIONS: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
_SQUASHED_FROM = 384  # the size from which ConvNeXt's processor does not crop
_TOLERANCE = 5 / 255  # on average


def recipe(repo: str) -> Recipe:
    """The recipe of a repository; downloads its configuration only.

    Raises:
        ModelError: without transformers, the repository or the network, and for preprocessing that is not a resize and a crop
            of the centre.
    """
    full = f"hf/{repo}"
    options = {"trust_remote_code": False, "local_files_only": _local_only(full, repo)}
    transformers = _transformers(full)
    with refusing(full, "its configuration is not available", "give an image classifier's repository or folder"):
        config = transformers.AutoConfig.from_pretrained(repo, **options)
        processor = transformers.AutoImageProcessor.from_pretrained(repo, **options)
    with refusing(full, "its image processor is not supported", _WRAP):
        preprocessing = preprocessing_of(processor.to_dict())
        _check(full, processor, preprocessing)
    labels = _labels(config)
    build, publish = partial(_build, config), partial(_publish, full, repo, options, labels)
    outputs: OutputKind | None = "sigmoid" if config.problem_type == "multi_label_classification" else None
    return Recipe(full, preprocessing, labels, build, publish, outputs=outputs)


def preprocessing_of(processor: dict[str, Any]) -> Preprocessing:
    """Geometry and normalisation from an image processor's settings.

    With rescale factor r a pixel p in [0, 1] becomes (255 r p - mean) / std.
    """
    factor = 255 * processor["rescale_factor"] if processor.get("do_rescale") else 255.0
    mean, std = (0.0,) * 3, (1.0,) * 3
    if processor.get("do_normalize"):
        mean, std = processor["image_mean"], processor["image_std"]
    return Preprocessing(tuple(m / factor for m in mean), tuple(s / factor for s in std), _geometry(processor))


def _geometry(processor: dict[str, Any]) -> Geometry:
    interpolation = _INTERPOLATIONS[int(processor.get("resample", 2))]
    crop = _size(processor["crop_size"]) if processor.get("do_center_crop") else None
    if not processor.get("do_resize"):
        return Geometry(None, crop, interpolation)
    size = processor["size"]
    if "shortest_edge" not in size:
        return Geometry(_size(size), crop, interpolation)
    edge = size["shortest_edge"]
    if "crop_pct" not in processor:
        return Geometry(edge, crop, interpolation)
    if edge >= _SQUASHED_FROM and crop is None:
        return Geometry((edge, edge), None, interpolation)
    return Geometry(int(edge / processor["crop_pct"]), crop or (edge, edge), interpolation)


def _size(size: dict[str, int]) -> tuple[int, int]:
    return size["height"], size["width"]


def _check(full: str, processor: Any, preprocessing: Preprocessing) -> None:
    """Refuse a processor whose result differs from the preprocessing that was read from its settings.

    A size that it rounds differently from `Geometry` is within the tolerance.
    """
    generator = torch.Generator().manual_seed(0)
    image = F.interpolate(torch.rand(1, 3, 6, 8, generator=generator), (180, 240), mode="bilinear")
    pixels = (image[0] * 255).byte().permute(1, 2, 0).numpy()
    theirs = processor(images=Image.fromarray(np.ascontiguousarray(pixels)), return_tensors="pt")["pixel_values"]
    ours = preprocessing.geometry(image)
    std, mean = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.std, preprocessing.mean))
    if theirs.shape != ours.shape or float((theirs * std + mean - ours).abs().mean()) > _TOLERANCE:
        raise refusal(full, f"{type(processor).__name__} does more than resize, crop the centre and normalise", _WRAP)


def _labels(config: Any) -> tuple[str, ...] | None:
    names = [str(config.id2label[index]) for index in range(config.num_labels)]
    return None if names == [f"LABEL_{index}" for index in range(len(names))] else short_labels(names)


def _build(config: Any, classes: int | None) -> nn.Module:
    config = copy.deepcopy(config)
    if classes is not None:
        config.num_labels = classes
    transformers = import_module("transformers")
    module: nn.Module = transformers.AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    return module.float()


def _publish(full: str, repo: str, options: dict[str, Any], labels: tuple[str, ...] | None) -> TrainedModule:
    with refusing(full, "the weights are not available", "connect to the network, or give weights=FILE"):
        module, info = _transformers(full).AutoModelForImageClassification.from_pretrained(
            repo, use_safetensors=True, output_loading_info=True, **options
        )
    if info["missing_keys"]:
        problem = f"its weights lack {', '.join(sorted(info['missing_keys'])[:3])}: it was trained for something else"
        raise refusal(full, problem, "give the repository of an image classifier")
    return TrainedModule(module.float(), state_digest(module), labels)


def _local_only(full: str, repo: str) -> bool:
    if Path(repo).is_dir():
        return True
    if repo.startswith((".", "/", "~")):
        raise refusal(full, "there is no such folder", "give one that save_pretrained wrote, or a repository's name")
    return not reachable(full, repo)


def _transformers(full: str) -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise refusal(full, "needs transformers", "pip install 'faithmap[zoo]'") from error
