"""``torchvision/NAME``: its classifiers, with their best published weights and preprocessing."""

from __future__ import annotations

import difflib
import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn
from torchvision import models

from faithmap.model import Geometry
from faithmap.zoo.recipe import ModelState, Preprocessing, Recipe, TrainedModule, fill, read_checkpoint, refusal, refusing


def names() -> list[str]:
    """Classifiers, all of which have published weights."""
    return list(models.list_models(module=models))


def recipe(name: str) -> Recipe:
    """The recipe of a classifier of torchvision, without a download.

    Raises:
        ModelError: for an unknown name.
    """
    full = f"torchvision/{name}"
    if name not in names():
        raise refusal(full, "is no classifier of torchvision", _near(name))
    weights = models.get_model_weights(name).DEFAULT
    transforms = weights.transforms()
    crop = transforms.crop_size[0]
    geometry = Geometry(transforms.resize_size[0], (crop, crop), transforms.interpolation.value)
    return Recipe(
        full,
        Preprocessing(tuple(transforms.mean), tuple(transforms.std), geometry),
        tuple(weights.meta["categories"]),
        partial(_build, name, crop),
        partial(_publish, full, name, weights.url),
        _current_names,
    )


def _build(name: str, crop: int, classes: int | None) -> nn.Module:
    """An untrained module; settings that torchvision's builders change only with weights are always set."""
    settings: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        settings |= {"transform_input": True, "init_weights": False}
    if name.startswith("vit_"):
        settings["image_size"] = crop
    module: nn.Module = models.get_model(name, weights=None, **settings)
    return module


def _publish(full: str, name: str, url: str) -> TrainedModule:
    """Weights from torch.hub's cache or the network; read by this package, because torch.hub would run code in the file."""
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)
    with refusing(full, "the weights cannot be downloaded", f"connect to the network, or put {url} into weights=FILE"):
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            start_of_sha256 = file.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(url, str(file), start_of_sha256, progress=False)
    return fill(recipe(name), read_checkpoint(file))


def _current_names(state: ModelState) -> ModelState:
    """The current names of modules: files of DenseNets have ``norm.1`` for ``norm1``."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value for key, value in state.items()}


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, names(), n=3)
    if near:
        return f"did you mean {' or '.join(f'torchvision/{one}' for one in near)}?"
    return "torchvision.models.list_models(torchvision.models) lists them"
