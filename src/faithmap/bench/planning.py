"""Make a plan from a specification, and find invalid settings before the first unit.

Models are loaded once for their digests, methods made once for their settings. The dry run starts each method on an image and
stops it after a few passes, and starts each metric on a heatmap: most methods check a setting only when they use it, and an
invalid one would otherwise become an error in every row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.bench.companions import Companions, companion_items
from faithmap.bench.dataset import DatasetItem, DatasetSource, LoadedImage, ShardedDataset, open_source, with_absolute_paths
from faithmap.bench.evaluate import (
    IMAGE_FAILURES,
    MetricInput,
    ModelCache,
    checked_settings,
    make_explainer,
    raise_machine_failure,
    run_metric,
)
from faithmap.bench.plan import BenchPlan, PlannedMethod, PlannedModel, Setup
from faithmap.bench.spec import METRICS, FieldLocator, field_name, located
from faithmap.data import FileError, read_image
from faithmap.errors import BenchError, BenchSettingError
from faithmap.methods.controls import RandomMap
from faithmap.methods.settings import settings_of
from faithmap.model import Classifier, undisturbed
from faithmap.probe import run_model
from faithmap.studies.result_record import dependency_versions
from faithmap.warning_types import suppressed

if TYPE_CHECKING:
    from faithmap.bench.spec import DataSpec, MethodSpec, MetricSpec, Spec

DATASET_CLASSES = {"voc": 20, "coco": 80, "imagenet": 1000}
"""Number of classes of each data set that numbers its classes."""

MAX_UNREADABLE = 20
"""Images from the start of the data set among which one has to be readable."""

DRY_RUN_IMAGES = 3
"""Images on which the dry run tries a method: a failure on one of them can be the fault of that image."""

DRY_RUN_PASSES = 32
"""Images that the dry run passes through the model per method: all of a class activation map, the first of other methods."""


def make_plan(
    spec: Spec, base: Path, models: ModelCache, published: Any = None, locate: FieldLocator = field_name
) -> BenchPlan:
    """Resolve a specification's models, methods and images.

    Args:
        spec: the specification.
        base: folder of its relative paths.
        models: loads the models.
        published: numbers of a paper, shown beside the run's.
        locate: describes where a field is.

    Raises:
        BenchError: for models, methods, settings or images that do not exist or do not fit together; names the field.
    """
    data = with_absolute_paths(spec.data, base)
    with located(locate, "data"):
        source = open_source(data)
        dataset = ShardedDataset(source.items(spec.seed), spec.shard_size)
    for i, metric in enumerate(spec.metrics):
        with located(locate, "metrics", i):
            checked_settings(metric)
    planned: list[PlannedModel] = []
    methods: list[PlannedMethod] = []
    for i, model_spec in enumerate(spec.models):
        resolved = model_spec.model_copy(update={"weights": base / model_spec.weights} if model_spec.weights else {})
        with located(locate, "models", i):
            model, digest = models.get(resolved)
            image, classes = first_image(source, dataset, model)
        with located(locate, "data"):
            check_targets(model, dataset, data, classes)
        normalisation = model.mean.flatten().tolist(), model.std.flatten().tolist()
        planned.append(PlannedModel(resolved, digest, classes, model.geometry, normalisation, model.outputs))
        methods = methods or _plan_methods(spec, model, image, locate)
    setup = Setup(
        seed=spec.seed,
        chunk_size=spec.chunk_size,
        autocast=spec.autocast,
        models=tuple(planned),
        methods=tuple(methods),
        metrics=tuple(spec.metrics),
        data=data,
        versions=dependency_versions(),
        companions=companion_items(dataset.items) if any(METRICS[metric.name].companions for metric in spec.metrics) else (),
    )
    return BenchPlan(spec.name, setup, dataset, published)


def readable_images(source: DatasetSource, dataset: ShardedDataset, model: Classifier) -> Iterator[Float[Tensor, "1 3 h w"]]:
    """The first images as the model's input, without the unreadable ones.

    Raises:
        BenchError: if none of them is readable.
    """
    problem: Exception | None = None
    found = False
    for item in dataset.items[:MAX_UNREADABLE]:
        try:
            image = model.preprocess(read_image(source.file(item)))
        except FileError as error:
            problem = problem or error
        else:
            found = True
            yield image
    if not found:
        raise BenchError(f"none of the first {min(MAX_UNREADABLE, len(dataset))} images can be read; {problem}")


def first_image(source: DatasetSource, dataset: ShardedDataset, model: Classifier) -> tuple[Float[Tensor, "1 3 h w"], int]:
    """The first image that can be read and that the model accepts, and the model's number of classes.

    Raises:
        BenchError: if there is none among the first images.
    """
    problem: Exception | None = None
    for image in readable_images(source, dataset, model):
        try:
            with undisturbed(model), torch.no_grad():
                return image, int(run_model(model, image).shape[1])
        except IMAGE_FAILURES as error:
            raise_machine_failure(error, 1)
            problem = problem or error
    raise BenchError(f"model {model.name} accepts none of the first images ({problem or type(problem).__name__})")


def check_targets(model: Classifier, dataset: ShardedDataset, data: DataSpec, classes: int) -> None:
    """Raise BenchError for a target class that the model does not have, or that is numbered by another order.

    Args:
        model: to be explained.
        dataset: whose classes are explained.
        data: its specification.
        classes: the model's number of classes.
    """
    for name in sorted({item.target for item in dataset.items if isinstance(item.target, str)}):
        try:
            model.find(name)
        except ValueError as error:
            raise BenchError(f"target: {error}") from error
    numbers = {item.target: item for item in dataset.items if isinstance(item.target, int)}
    unmapped = [item for item in numbers.values() if item.label not in data.classes]
    if unmapped and DATASET_CLASSES.get(data.kind, classes) != classes:
        raise BenchError(
            f"model {model.name} has {classes} classes, {data.kind} has {DATASET_CLASSES[data.kind]}; give in [data.classes] "
            f"the model's class for {unmapped[0].label!r}, by name or number, or give a model that was trained on {data.kind}"
        )
    beyond = [number for number in numbers if not 0 <= number < classes]
    if beyond:
        raise BenchError(f"target: {beyond[0]} is no class of {model.name}, which has {classes}; count them from 0")


def _plan_methods(spec: Spec, model: Classifier, image: Float[Tensor, "1 3 h w"], locate: FieldLocator) -> list[PlannedMethod]:
    methods = []
    for i, method in enumerate(spec.methods):
        with located(locate, "methods", i, resolution=method.resolution is not None):
            methods += [_plan_method(spec, method, resolution, model, image) for resolution in method.resolutions]
    return methods


def _plan_method(
    spec: Spec, method: MethodSpec, resolution: int | None, model: Classifier, image: Float[Tensor, "1 3 h w"]
) -> PlannedMethod:
    explainer = make_explainer(
        model, method.name, method.settings, resolution=resolution, chunk_size=spec.chunk_size, autocast=spec.autocast
    )
    try:
        explainer.check(image)
        passes = explainer.passes(image)
    except IMAGE_FAILURES as error:
        raise_machine_failure(error, spec.chunk_size)
        raise BenchSettingError(error, setting_in(str(error), {**method.settings, "resolution": resolution})) from error
    of_run = {name for name, setting in settings_of(type(explainer)).items() if setting.of_run}
    settings = {key: value for key, value in explainer.settings.items() if key not in of_run}
    if "masker" in settings:
        settings["masker"] = getattr(getattr(explainer, "masker", None), "digest", settings["masker"])
    class_name = type(explainer).__name__
    return PlannedMethod(
        id=method.id_at(resolution),
        name=method.name,
        explainer=class_name,
        given=method.settings,
        settings=_plain_data(settings),
        resolution=resolution,
        label=method.label or explainer.title,
        passes=passes and (*passes,),
    )


def _plain_data(value: Any) -> Any:
    """The value as JSON holds it."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain_data(item) for key, item in value.items()}
    return [_plain_data(item) for item in value] if isinstance(value, (list, tuple)) else value


def dry_run(spec: Spec, plan: BenchPlan, models: ModelCache, locate: FieldLocator = field_name) -> None:
    """Check that every method and metric works with every model.

    Args:
        spec: the specification.
        plan: made from it.
        models: loads the models.
        locate: describes where a field is.

    Raises:
        BenchError: for a method or metric that fails; names the field.
    """
    source = open_source(plan.setup.data)
    for planned in plan.setup.models:
        model, _ = models.get(planned.spec)
        images = list(islice(readable_images(source, plan.dataset, model), DRY_RUN_IMAGES))
        for i, method in enumerate(spec.methods):
            with located(locate, "methods", i, resolution=method.resolution is not None):
                _try_on_any(images, partial(_start_method, spec, method, model), method.settings, planned.id)
        for i, metric in enumerate(spec.metrics):
            start_metric = partial(_start_metric, metric, model, planned.classes or 1)
            with located(locate, "metrics", i):
                _try_on_any(images[:1], start_metric, metric.settings, planned.id)


def _try_on_any(images: list[Tensor], start: Callable[[Tensor], None], settings: Any, model: str) -> None:
    """Succeed if one image works; else raise BenchSettingError for the setting that the first error names."""
    problem: Exception | None = None
    for image in images:
        try:
            with suppressed():
                start(image)
        except BenchError:
            raise
        except IMAGE_FAILURES as error:
            raise_machine_failure(error, DRY_RUN_PASSES)
            problem = problem or error
        else:
            return
    if problem is not None:
        message = str(problem) or type(problem).__name__
        raise BenchSettingError(f"{message} (tried with {model})", setting_in(message, settings)) from problem


def _start_method(spec: Spec, method: MethodSpec, model: Classifier, image: Float[Tensor, "1 c h w"]) -> None:
    explainer = make_explainer(
        model,
        method.name,
        method.settings,
        resolution=method.resolutions[0],
        chunk_size=min(DRY_RUN_PASSES, spec.chunk_size),
        autocast=spec.autocast,
    )
    with _stopped_early(model):
        explainer(image)


def _start_metric(metric: MetricSpec, model: Classifier, classes: int, image: Float[Tensor, "1 c h w"]) -> None:
    """Measure a random map of a model without cost; a metric that uses the model's layers gets the model itself."""
    probed = model if metric.name == "saturation" else Classifier(_Brightness(classes)).to(image.device)
    height, width = image.shape[-2:]
    explainer = RandomMap(probed, resolution=min(7, height, width))
    box = torch.tensor([[0.0, 0.0, width, height]])
    loaded = LoadedImage(DatasetItem(0, "", 0), image, size=(height, width), objects=box)
    with _stopped_early(probed):
        given = MetricInput(
            model=probed,
            explainer=explainer,
            inputs=image,
            images=[loaded],
            explanation=explainer(image),
            companions=Companions(),
            seed=0,
            chunk_size=DRY_RUN_PASSES,
            autocast=None,
        )
        run_metric(metric, given)


class _EnoughPasses(Exception):  # noqa: N818 - not an error
    """The model has had enough passes."""


@contextmanager
def _stopped_early(model: nn.Module) -> Iterator[None]:
    """End the block without error after :data:`DRY_RUN_PASSES` images."""
    count = 0

    def stop_when_enough(module: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal count
        del module
        count += len(given[0])
        if count > DRY_RUN_PASSES:
            raise _EnoughPasses

    hook = model.register_forward_pre_hook(stop_when_enough)
    try:
        yield
    except _EnoughPasses:
        pass
    finally:
        hook.remove()


class _Brightness(nn.Module):
    """Logits proportional to the brightness of the image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.linspace(0, 1, classes))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return images.mean(dim=(1, 2, 3)).unsqueeze(1) * self.weights


def setting_in(message: str, settings: Mapping[str, object]) -> str | None:
    """The setting that a message names first, else the one whose value it repeats, else None.

    >>> setting_in("path_points is 0; give at least 1", {"points": 0, "path_points": 0})
    'path_points'
    >>> setting_in("give at least 1 mask", {"masks": 0}), setting_in("maps of 400 rows are too fine", {"resolution": 400})
    ('masks', 'resolution')
    """
    words = [word.rstrip("s") for word in re.findall(r"\w+", message)]
    named = [name for name in settings if name.rstrip("s") in words]
    repeated = [name for name, value in settings.items() if str(value).rstrip("s") in words]
    return min(named, key=lambda name: words.index(name.rstrip("s")), default=next(iter(repeated), None))
