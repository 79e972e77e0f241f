"""From a specification to a plan: models are loaded once for their digests, methods made once for their settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap._version import __version__
from faithmap.bench.dataset import DatasetItem, DatasetSource, ShardedDataset, open_source, resolved, targets_of
from faithmap.bench.errors import BenchError, SettingError, blamed
from faithmap.bench.evaluate import FAILURES, refuse
from faithmap.bench.explainers import make_explainer
from faithmap.bench.images import LoadedImage
from faithmap.bench.load_spec import FieldLocator, field_name, located
from faithmap.bench.metric_runners import MetricInput, check_settings, run_metric
from faithmap.bench.models import ModelCache
from faithmap.bench.plan import BenchPlan, PlannedMethod, PlannedModel, Setup
from faithmap.data import FileError, read_image
from faithmap.methods.controls import RandomMap
from faithmap.methods.settings import settings_of
from faithmap.model import Classifier, undisturbed
from faithmap.warning_types import suppressed

if TYPE_CHECKING:
    from faithmap.bench.spec import DataSpec, MethodSpec, MetricSpec, Spec


CLASSES = {"voc": 20, "coco": 80, "imagenet": 1000}
"""Of each data set that has an order of its own."""

TRIED = 20
"""Images that are looked at for one that can be read, to see the settings against."""


def make_plan(spec: Spec, base: Path, models: ModelCache, published: Any = None, place: FieldLocator = field_name) -> BenchPlan:
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
    with located(place, "data"):
        source = open_source(data)
        items = ShardedDataset(source.items(spec.seed), spec.shard_size)
    for i, metric in enumerate(spec.metrics):
        with located(place, "metrics", i):
            check_settings(metric)
    planned: list[PlannedModel] = []
    methods: list[PlannedMethod] = []
    for i, model_spec in enumerate(spec.models):
        absolute = model_spec.model_copy(update={"weights": base / model_spec.weights} if model_spec.weights else {})
        with located(place, "models", i):
            model, digest = models.get(absolute)
            image, classes = first_image(source, items, model)
        with located(place, "data"):
            check_targets(model, items, data, classes)
        planned.append(PlannedModel(absolute, digest, classes, model.geometry, _normalisation(model)))
        methods = methods or _methods(spec, model, image, place)
    setup = Setup(
        spec.seed, spec.chunk_size, spec.autocast, tuple(planned), tuple(methods), tuple(spec.metrics), data, versions()
    )
    return BenchPlan(spec.name, setup, items, published)


def readable(source: DatasetSource, items: ShardedDataset, model: Classifier) -> Iterator[Float[Tensor, "1 3 h w"]]:
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


def first_image(source: DatasetSource, items: ShardedDataset, model: Classifier) -> tuple[Float[Tensor, "1 3 h w"], int]:
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


def _methods(spec: Spec, model: Classifier, image: Float[Tensor, "1 3 h w"], place: FieldLocator) -> list[PlannedMethod]:
    methods = []
    for i, method in enumerate(spec.methods):
        with located(place, "methods", i, resolution=method.resolution is not None):
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
    of_run = {name for name, setting in settings_of(type(explainer)).items() if setting.of_run}
    told = {key: value for key, value in explainer.settings.items() if key not in of_run}
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


def check_targets(model: Classifier, items: ShardedDataset, data: DataSpec, classes: int) -> None:
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


PASSES = 32
"""Images that the model is shown for each method, at the most: all of a class activation map, the beginning of the others."""

PHOTOS = 3
"""Photographs that are tried: what fails on the first may be that photograph's fault."""


class _Enough(Exception):  # noqa: N818 - it is no error
    """A method has shown that it works."""


def dry_run(spec: Spec, plan: BenchPlan, models: ModelCache, place: FieldLocator = field_name) -> None:
    """See that every method and metric works with every model.

    Args:
        spec: what was asked for.
        plan: made of it.
        models: loads them.
        place: where a field stands.

    Raises:
        BenchError: for a method or metric that does not; names the field.
    """
    source = open_source(plan.setup.data)
    for planned in plan.setup.models:
        model, _ = models.get(planned.spec)
        images = list(islice(readable(source, plan.items, model), PHOTOS))
        for i, method in enumerate(spec.methods):
            with located(place, "methods", i, resolution=method.resolution is not None):
                _on_any(images, partial(_begin, spec, method, model), method.settings, planned.id)
        for i, metric in enumerate(spec.metrics):
            with located(place, "metrics", i):
                _on_any(images[:1], partial(_judge, metric, model, planned.classes or 1), metric.settings, planned.id)


def _on_any(images: list[Tensor], begin: Callable[[Tensor], None], settings: Any, model: str) -> None:
    """One photograph on which it works will do.

    Raises:
        SettingError: where there is none; names the setting that the first complaint does.
    """
    problem: Exception | None = None
    for image in images:
        try:
            with suppressed():
                begin(image)
        except BenchError:
            raise
        except FAILURES as error:
            refuse(error, PASSES)
            problem = problem or error
        else:
            return
    if problem is not None:
        words = str(problem) or type(problem).__name__
        raise SettingError(f"{words} (tried with {model})", blamed(words, settings)) from problem


def _begin(spec: Spec, method: MethodSpec, model: Classifier, image: Float[Tensor, "1 c h w"]) -> None:
    explainer = make_explainer(
        *(model, method.name, method.settings),
        resolution=method.resolutions[0],
        chunk_size=min(PASSES, spec.chunk_size),
        autocast=spec.autocast,
    )
    with _stopped_early(model):
        explainer(image)


def _judge(metric: MetricSpec, model: Classifier, classes: int, image: Float[Tensor, "1 c h w"]) -> None:
    """A random map of a stand-in that costs nothing; where the metric looks into the model, of the model."""
    asked = model if metric.name == "saturation" else Classifier(_Brightness(classes)).to(image.device)
    explainer = RandomMap(asked, resolution=min(7, *image.shape[-2:]))
    size = (image.shape[-2], image.shape[-1])
    box = torch.tensor([[0.0, 0.0, size[1], size[0]]])
    photo = LoadedImage(DatasetItem(0, "", 0), image, size=size, objects=box)
    with _stopped_early(asked):
        run_metric(metric, MetricInput(asked, explainer, image, [photo], explainer(image), 0, PASSES, None))


@contextmanager
def _stopped_early(model: nn.Module) -> Iterator[None]:
    """Ends the block when the model has been shown a few images."""
    count = [0]

    def watch(module: nn.Module, given: tuple[Any, ...]) -> None:
        del module
        count[0] += len(given[0])
        if count[0] > PASSES:
            raise _Enough

    hook = model.register_forward_pre_hook(watch)
    try:
        yield
    except _Enough:
        pass
    finally:
        hook.remove()


class _Brightness(nn.Module):
    """Logits that follow the images' brightness."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.linspace(0, 1, classes))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """One for each class."""
        return images.mean(dim=(1, 2, 3)).unsqueeze(1) * self.weights
