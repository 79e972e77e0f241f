"""From a specification to a plan: models are loaded once for their digests, methods made once for their settings."""

from __future__ import annotations

import sys
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap._version import __version__
from faithmap.bench.errors import BenchError
from faithmap.bench.explainers import RUN, make_explainer
from faithmap.bench.items import Items
from faithmap.bench.models import Models
from faithmap.bench.plan import Plan, PlannedMethod, PlannedModel, Setup
from faithmap.bench.sources import Source, open_source, resolved, targets_of
from faithmap.data import FileError, read_image
from faithmap.model import Classifier, undisturbed

if TYPE_CHECKING:
    from faithmap.bench.spec import DataSpec, MethodSpec, Spec

CLASSES = {"voc": 20, "coco": 80, "imagenet": 1000}
"""Of each data set that has an order of its own."""

TRIED = 20
"""Images that are looked at for one that can be read, to see the settings against."""


def make_plan(spec: Spec, base: Path, models: Models, published: Any = None) -> Plan:
    """Make a specification concrete.

    Args:
        spec: as it was read.
        base: where its relative paths begin.
        models: loads them.
        published: numbers of a paper, to be laid beside the run's.

    Raises:
        BenchError: for models, methods, settings or images that do not exist or do not fit each other.
    """
    data = resolved(spec.data, base)
    source = open_source(data)
    items = Items(source.items(spec.seed), spec.shard_size)
    planned: list[PlannedModel] = []
    methods: list[PlannedMethod] = []
    for model_spec in spec.models:
        absolute = model_spec.model_copy(update={"weights": base / model_spec.weights} if model_spec.weights else {})
        model, digest = models.get(absolute)
        image = first_image(source, items, model)
        classes = _classes(model, image)
        check_targets(model, items, data, classes)
        planned.append(PlannedModel(absolute, digest, classes, model.geometry, _normalisation(model)))
        methods = methods or _methods(spec, model, image)
    setup = Setup(
        spec.seed, spec.chunk_size, spec.autocast, tuple(planned), tuple(methods), tuple(spec.metrics), data, versions()
    )
    return Plan(spec.name, setup, items, published)


def first_image(source: Source, items: Items, model: Classifier) -> Float[Tensor, "1 3 h w"]:
    """The first that can be read, as the model sees it.

    Raises:
        BenchError: where none of the first can be read.
    """
    problem: Exception | None = None
    for item in items.items[:TRIED]:
        try:
            return model.preprocess(read_image(source.file(item)))
        except FileError as error:
            problem = problem or error
    raise BenchError(f"none of the first {min(TRIED, len(items))} images can be read; {problem}")


def versions() -> dict[str, str | None]:
    """Of what results depend on."""
    return {"faithmap": __version__, "python": sys.version.split()[0], **{name: _version(name) for name in ("torch", "timm")}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _methods(spec: Spec, model: Classifier, image: Float[Tensor, "1 3 h w"]) -> list[PlannedMethod]:
    return [_method(spec, method, cells, model, image) for method in spec.methods for cells in method.resolutions]


def _method(
    spec: Spec, method: MethodSpec, resolution: int | None, model: Classifier, image: Float[Tensor, "1 3 h w"]
) -> PlannedMethod:
    """One row of the table, its settings seen to fit."""
    name = method.id_at(resolution)
    try:
        explainer = make_explainer(
            model, method.name, method.settings, resolution=resolution, chunk_size=spec.chunk_size, autocast=spec.autocast
        )
        explainer.check(image)
        passes = explainer.passes(image)
    except (TypeError, ValueError, ModuleNotFoundError) as error:
        raise BenchError(f"method {name}: {str(error).removeprefix(f'method {method.name}: ')}") from error
    told = {key: value for key, value in explainer.settings.items() if key not in RUN - {"resolution"}}
    if "masker" in told:
        told["masker"] = getattr(getattr(explainer, "masker", None), "digest", told["masker"])
    label = method.label or type(explainer).__name__
    kind = type(explainer).__name__
    return PlannedMethod(name, method.name, kind, method.settings, _data(told), resolution, label, passes and (*passes,))


def _data(value: Any) -> Any:
    """The same as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): _data(item) for key, item in value.items()}
    return [_data(item) for item in value] if isinstance(value, (list, tuple)) else value


def check_targets(model: Classifier, items: Items, data: DataSpec, classes: int) -> None:
    """Raise BenchError where a class that is to be explained is none of the model's, or is counted by another order.

    Args:
        model: that is asked.
        items: whose classes are explained.
        data: where they are from.
        classes: of the model.
    """
    for name in sorted(targets_of(items.items)):
        try:
            model.find(name)
        except ValueError as error:
            raise BenchError(f"target: {error}") from error
    numbers = {item.target: item for item in items.items if isinstance(item.target, int)}
    own = [item for item in numbers.values() if item.label not in data.classes]
    if own and CLASSES.get(data.kind, classes) != classes:
        raise BenchError(
            f"model {model.name} has {classes} classes, {data.kind} has {CLASSES[data.kind]}; say in [data.classes] which of "
            f"the model's is {own[0].label!r}, by name or number, or give a model that was trained on {data.kind}"
        )
    beyond = [number for number in numbers if not 0 <= number < classes]
    if beyond:
        raise BenchError(f"target: {beyond[0]} is no class of {model.name}, which has {classes}; count them from 0")


def _normalisation(model: Classifier) -> tuple[list[float], list[float]]:
    return model.mean.flatten().tolist(), model.std.flatten().tolist()


def _classes(model: Classifier, image: Float[Tensor, "1 3 h w"]) -> int:
    with undisturbed(model), torch.no_grad():
        return int(model(image).shape[1])
