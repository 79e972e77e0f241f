"""``timm/NAME``: any classifier of timm, with the preprocessing of its configuration."""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict
from functools import partial
from typing import Any

import timm
from timm.data.config import resolve_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from faithmap.model import Geometry
from faithmap.zoo.hub import hub_file
from faithmap.zoo.recipe import (
    Preprocessing,
    Recipe,
    TrainedModule,
    file_digest,
    imagenet_labels,
    refusal,
    refusing,
    short_labels,
    state_digest,
)


def names() -> list[str]:
    """Classifiers with published weights, as ``NAME.TAG``, where the tag states the training."""
    return [name for name in timm.list_models(pretrained=True) if published_config(name)["num_classes"]]


def recipe(name: str) -> Recipe:
    """The recipe of a model of timm, without a download.

    Raises:
        ModelError: for an unknown name, or preprocessing that is not a resize and a crop.
    """
    full = f"timm/{name}"
    try:
        config = published_config(name)
    except RuntimeError as error:
        raise refusal(full, "is no model of timm", _near(name)) from error
    return Recipe(
        full, preprocessing_of(full, config), labels_of(config), partial(build, name), partial(_publish, full, name, config)
    )


def build(name: str, classes: int | None) -> nn.Module:
    """The untrained architecture."""
    module: nn.Module = timm.create_model(name, num_classes=classes)
    return module


def published_config(name: str) -> dict[str, Any]:
    """Timm's configuration of the weights; RuntimeError for an unknown name."""
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    return {} if config is None else asdict(config)


def preprocessing_of(full: str, config: dict[str, Any]) -> Preprocessing:
    """The preprocessing of ``timm.data.create_transform`` for evaluation.

    Raises:
        ModelError: for an interpolation or a crop that `Geometry` does not support.
    """
    data: dict[str, Any] = resolve_data_config(pretrained_cfg=config)
    _, height, width = data["input_size"]
    interpolation, mode = data["interpolation"], data["crop_mode"]
    larger = math.floor(height / data["crop_pct"]), math.floor(width / data["crop_pct"])
    is_square = larger[0] == larger[1]
    if interpolation not in ("bilinear", "bicubic") or not (mode == "squash" or (mode == "center" and is_square)):
        problem = f"takes a {height} x {width} {mode} crop with {interpolation} interpolation, which is not supported"
        raise refusal(full, problem, "build it with timm and wrap it in faithmap.Classifier")
    resize = larger if mode == "squash" else larger[0]
    return Preprocessing(tuple(data["mean"]), tuple(data["std"]), Geometry(resize, (height, width), interpolation))


def labels_of(config: dict[str, Any]) -> tuple[str, ...] | None:
    """The names in the configuration, else those of the ImageNet subset that has as many classes."""
    if names := config["label_names"]:
        described = config["label_descriptions"] or {}
        return short_labels([described.get(name, name) for name in names])
    if config["num_classes"] == 1000:
        return imagenet_labels()
    subset = infer_imagenet_subset(config)
    return short_labels(list(ImageNetInfo(subset).label_descriptions())) if subset else None


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, timm.list_models() + timm.list_models(pretrained=True), n=3)
    return f"did you mean {' or '.join(f'timm/{one}' for one in near)}?" if near else "timm.list_models() lists them"


def _publish(full: str, name: str, config: dict[str, Any]) -> TrainedModule:
    if not config["num_classes"]:
        raise refusal(full, "was published without a classifier", "choose another model, or give weights=FILE with one")
    if not timm.is_model_pretrained(name):
        raise refusal(full, "was published without weights", "choose another model, or give weights=FILE")
    with refusing(full, "the weights are not available", "connect to the network, or give weights=FILE"):
        if not config["hf_hub_id"]:
            module = timm.create_model(name, pretrained=True)
            return TrainedModule(module, state_digest(module), labels_of(config))
        file = hub_file(full, config["hf_hub_id"], config["hf_hub_filename"])
        overlay = {"file": str(file), "custom_load": False}
        module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
        return TrainedModule(module, file_digest(file), labels_of(config))
