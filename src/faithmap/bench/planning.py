"""From a specification to a plan: models are loaded once for their digests, methods made once for their settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap._version import __version__
from faithmap.bench.errors import BenchError, SettingError, blamed
from faithmap.bench.explainers import RUN, make_explainer
from faithmap.bench.items import Items
from faithmap.bench.measures import check_settings
from faithmap.bench.models import Models
from faithmap.bench.plan import Plan, PlannedMethod, PlannedModel, Setup
from faithmap.bench.question import FAILURES, refuse
from faithmap.bench.reading import Place, placed, shown
from faithmap.bench.sources import Source, open_source, resolved, targets_of
from faithmap.data import FileError, read_image
from faithmap.model import Classifier, undisturbed

if TYPE_CHECKING:
    from faithmap.bench.spec import DataSpec, MethodSpec, Spec

CLASSES = {"voc": 20, "coco": 80, "imagenet": 1000}
"""Of each data set that has an order of its own."""

TRIED = 20
"""Images that are looked at for one that can be read, to see the settings against."""


def make_plan(spec: Spec, base: Path, models: Models, published: Any = None, place: Place = shown) -> Plan:
    """Make a specification concrete.

    Args:
        spec: as it was read.
        base: where its relative paths begin.
        models: loads them.
        published: numbers of a paper, to be laid beside the run's.
        place: where a field stands.

    Raises:
        BenchError: for models, methods, settings or images that do not exist or do not fit each other; names the field.
    """
    data = resolved(spec.data, base)
    with placed(place, "data"):
        source = open_source(data)
        items = Items(source.items(spec.seed), spec.shard_size)
    for i, metric in enumerate(spec.metrics):
        with placed(place, "metrics", i):
            check_settings(metric)
    planned: list[PlannedModel] = []
    methods: list[PlannedMethod] = []
    for i, model_spec in enumerate(spec.models):
        absolute = model_spec.model_copy(update={"weights": base / model_spec.weights} if model_spec.weights else {})
        with placed(place, "models", i):
            model, digest = models.get(absolute)
            image, classes = first_image(source, items, model)
        with placed(place, "data"):
            check_targets(model, items, data, classes)
        planned.append(PlannedModel(absolute, digest, classes, model.geometry, _normalisation(model)))
        methods = methods or _methods(spec, model, image, place)
    setup = Setup(
        spec.seed, spec.chunk_size, spec.autocast, tuple(planned), tuple(methods), tuple(spec.metrics), data, versions()
    )
    return Plan(spec.name, setup, items, published)


def readable(source: Source, items: Items, model: Classifier) -> Iterator[Float[Tensor, "1 3 h w"]]:
    """The first images, as the model sees them, less those that cannot be read.

    Raises:
        BenchError: where that is all of them.
    """
    problem: Exception | None = None
    found = False
    for item in items.items[:TRIED]:
        try:
            image = model.preprocess(read_image(source.file(item)))
        except FileError as error:
            problem = problem or error
        else:
            found = True
            yield image
    if not found:
        raise BenchError(f"none of the first {min(TRIED, len(items))} images can be read; {problem}")


def first_image(source: Source, items: Items, model: Classifier) -> tuple[Float[Tensor, "1 3 h w"], int]:
    """The first that can be read and that the model takes, and how many classes it answers with.

    Raises:
        BenchError: where there is none among the first.
    """
    problem: Exception | None = None
    for image in readable(source, items, model):
        try:
            return image, _classes(model, image)
        except FAILURES as error:
            refuse(error, 1)
            problem = problem or error
    raise BenchError(f"model {model.name} takes none of the first images ({problem or type(problem).__name__})")


def versions() -> dict[str, str | None]:
    """Of what results depend on."""
    return {"faithmap": __version__, "python": sys.version.split()[0], **{name: _version(name) for name in ("torch", "timm")}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _methods(spec: Spec, model: Classifier, image: Float[Tensor, "1 3 h w"], place: Place) -> list[PlannedMethod]:
    methods = []
    for i, method in enumerate(spec.methods):
        with placed(place, "methods", i, resolution=method.resolution is not None):
            methods += [_method(spec, method, cells, model, image) for cells in method.resolutions]
    return methods


def _method(
    spec: Spec, method: MethodSpec, resolution: int | None, model: Classifier, image: Float[Tensor, "1 3 h w"]
) -> PlannedMethod:
    """One row of the table, its settings seen to fit."""
    explainer = make_explainer(
        model, method.name, method.settings, resolution=resolution, chunk_size=spec.chunk_size, autocast=spec.autocast
    )
    try:
        explainer.check(image)
        passes = explainer.passes(image)
    except FAILURES as error:
        refuse(error, spec.chunk_size)
        raise SettingError(error, blamed(str(error), {**method.settings, "resolution": resolution})) from error
    told = {key: value for key, value in explainer.settings.items() if key not in RUN - {"resolution"}}
    if "masker" in told:
        told["masker"] = getattr(getattr(explainer, "masker", None), "digest", told["masker"])
    kind = type(explainer).__name__
    given, label = method.settings, method.label or kind
    return PlannedMethod(
        method.id_at(resolution), method.name, kind, given, _data(told), resolution, label, passes and (*passes,)
    )


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
