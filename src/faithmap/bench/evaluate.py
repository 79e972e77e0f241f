"""Evaluate units of work: load the model, explain the images of a shard, compute the metrics, encode the rows.

A unit's result depends only on its task: seeds follow from an image's content and a method's settings. An image that cannot
be read or explained becomes a row with its error and does not affect other images. Models are loaded once, with the digest of
their weights; each metric gives one value per image and column.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap import zoo
from faithmap.bench.companions import Companions, grid_pointing, mark_shown
from faithmap.bench.dataset import ImageReader, LoadedImage, grouped_by_shape, open_source
from faithmap.bench.plan import PlannedMethod, Setup, Task, canonical
from faithmap.bench.run_folder import ImageRow, encode
from faithmap.bench.spec import METRICS
from faithmap.errors import BenchError, BenchSettingError
from faithmap.explanation import Explanation
from faithmap.methods.base import Explainer
from faithmap.methods.cams.saturation import saturation, top_features
from faithmap.methods.registry import METHODS, explainer_from
from faithmap.methods.settings import SettingError, arguments_of, settings_of
from faithmap.metrics import functional
from faithmap.metrics.known_truth import difull, grid_mosaics, plant_shortcut, region_of
from faithmap.metrics.known_truth.marks import MarkKind
from faithmap.model import Classifier
from faithmap.probe import class_probabilities
from faithmap.seeds import derived
from faithmap.warning_types import suppressed

if TYPE_CHECKING:
    from faithmap.bench.spec import MetricSpec, ModelSpec


@dataclass
class ModelCache:
    """Loads models on demand and keeps the last one.

    Args:
        device: of the models; None for the CPU.
    """

    device: str | None = None
    _last: dict[str, tuple[Classifier, str]] = field(default_factory=dict)

    def get(self, spec: ModelSpec) -> tuple[Classifier, str]:
        """The model and the digest of its weights.

        Raises:
            BenchError: if the model cannot be loaded.
        """
        key = spec.model_dump_json()
        if key not in self._last:
            self._last.clear()
            model = _from_factory(spec, self.device) if spec.factory else _from_zoo(spec, self.device)
            self._last[key] = model, model.digest or zoo.state_digest(model)
        return self._last[key]


def _from_zoo(spec: ModelSpec, device: str | None) -> Classifier:
    try:
        return zoo.load(spec.name, weights=spec.weights, device=device, outputs=spec.outputs)
    except ValueError as error:
        raise BenchError(f"model {spec.name}: {error}") from error


def _from_factory(spec: ModelSpec, device: str | None) -> Classifier:
    """Call the user's function, which may be in the current folder."""
    assert spec.factory is not None  # noqa: S101
    module, _, function = spec.factory.partition(":")
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        model = getattr(import_module(module), function)()
    except (Exception, SystemExit) as error:  # a script may exit when it is imported
        raise BenchError(f"model {spec.name}: {spec.factory} failed ({type(error).__name__}: {error})") from error
    finally:
        sys.path.remove(folder)
    if not isinstance(model, Classifier):
        raise BenchError(f"model {spec.name}: {spec.factory} returned {type(model).__name__}; return a faithmap.Classifier")
    return model.to(device or "cpu").eval()


def make_explainer(
    model: nn.Module,
    name: str,
    settings: Mapping[str, Any],
    *,
    resolution: int | None = None,
    chunk_size: int = 32,
    autocast: str | None = None,
) -> Explainer:
    """A method of the registry with the settings of a specification.

    Args:
        model: the explained model.
        name: in the registry.
        settings: of the method, in plain form (:mod:`faithmap.methods.settings`).
        resolution: cells per side, for methods with a free resolution.
        chunk_size: maximum number of images in one pass.
        autocast: a lower precision, by name.

    Raises:
        BenchSettingError: a BenchError, for settings that the method does not have or accept.
    """
    own = settings_of(METHODS[name].explainer)
    for key in settings:
        if key in own and own[key].of_run:
            raise BenchSettingError(f"{name} has no setting {key!r}; it is a field of the specification, for all methods", key)
    run = {"resolution": resolution, "chunk_size": chunk_size, "autocast": autocast}
    given = {**settings, **{key: value for key, value in run.items() if value is not None}}
    try:
        return explainer_from(name, model, given)
    except SettingError as error:
        raise BenchSettingError(error, error.setting) from error
    except (TypeError, ValueError, ModuleNotFoundError) as error:
        raise BenchSettingError(error) from error


Columns = Mapping[str, Sequence[Any]]
"""Column name to one value per image."""

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "deletion_insertion": functional.deletion_insertion,
    "infidelity": functional.infidelity,
    "sensitivity": functional.sensitivity,
    "confidence": functional.confidence,
    "road": functional.road,
    "evidence": functional.evidence,
    "saco": functional.saco,
    "saturation": saturation,
    "top_features": top_features,
    "pointing_game": functional.pointing_game,
    "grid_pointing_game": grid_mosaics,
    "planted_shortcut": plant_shortcut,
}
"""The function whose arguments are the settings of a metric, for metrics that have settings."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MetricInput:
    """Explained images of one shape, and how the model is run."""

    model: Classifier
    explainer: Explainer
    inputs: Float[Tensor, "n c h w"]
    images: Sequence[LoadedImage]
    explanation: Explanation
    companions: Companions
    seed: int
    chunk_size: int
    autocast: torch.dtype | None

    def generators(self, name: str) -> list[torch.Generator]:
        """One generator per image, for a metric with its settings: the same draws for every method."""
        seed = derived(self.seed, name)
        return [torch.Generator(self.inputs.device).manual_seed(derived(seed, image.seed)) for image in self.images]

    @property
    def targets(self) -> list[int]:
        """The explained class of each image."""
        assert self.explanation.target is not None  # noqa: S101 - a class was explained
        targets: list[int] = self.explanation.target.tolist()
        return targets

    @property
    def passes(self) -> dict[str, Any]:
        """Keywords for the model passes."""
        return {"chunk_size": self.chunk_size, "autocast": self.autocast}


def run_metric(metric: MetricSpec, given: MetricInput) -> dict[str, Sequence[Any]]:
    """Compute the metric's columns, named as in the store, including those of curves.

    Raises:
        ValueError: if the metric cannot be computed for these heatmaps or with these settings.
    """
    with suppressed():  # the warnings of the method are in the row
        columns = RUNNERS[metric.name](given, canonical([metric.name, metric.settings]), **checked_settings(metric))
    return {metric.column(name): values for name, values in columns.items()}


def checked_settings(metric: MetricSpec) -> dict[str, Any]:
    """The settings of a metric as its function takes them.

    Raises:
        BenchSettingError: for a value that the metric does not accept.
    """
    known = {**arguments_of(FUNCTIONS[metric.name]), **arguments_of(RUNNERS[metric.name])} if metric.settings else {}
    try:
        return {key: known[key].from_plain(value) for key, value in metric.settings.items()}
    except SettingError as error:
        raise BenchSettingError(error, error.setting) from error


def _deletion_insertion(given: MetricInput, name: str, *, resolution: int | None = None, **settings: Any) -> Columns:
    del name
    explanation = given.explanation
    maps = explanation if resolution is None else explanation.at((resolution, resolution)).to(given.inputs)
    found = functional.deletion_insertion(given.model, given.inputs, maps, explanation.explained, **settings, **given.passes)
    return {
        "deletion": found.deletion.area.tolist(),
        "insertion": found.insertion.area.tolist(),
        "deletion_curve": found.deletion.scores.tolist(),
        "insertion_curve": found.insertion.scores.tolist(),
        "curve_fractions": [found.deletion.fractions.tolist()] * len(explanation),
    }


def _infidelity(given: MetricInput, name: str, **settings: Any) -> Columns:
    found = functional.infidelity(
        given.model, given.inputs, given.explanation, generator=given.generators(name), **settings, **given.passes
    )
    return {"infidelity": found.value.tolist()}


def _sensitivity(given: MetricInput, name: str, **settings: Any) -> Columns:
    found = functional.sensitivity(
        given.explainer,
        given.inputs,
        given.explanation.explained,
        generator=given.generators(name),
        chunk_size=given.chunk_size,
        **settings,
    )
    return {"max_sensitivity": found.maximum.tolist(), "mean_sensitivity": found.mean.tolist()}


def _confidence(given: MetricInput, name: str, **settings: Any) -> Columns:
    del name
    found = functional.confidence(given.model, given.inputs, given.explanation, **settings, **given.passes)
    columns = {"average_drop": found.drop, "increase_in_confidence": found.increase, "average_gain": found.gain}
    return {column: values.tolist() for column, values in columns.items()}


def _road(given: MetricInput, name: str, **settings: Any) -> Columns:
    found = functional.road(
        given.model, given.inputs, given.explanation, generator=given.generators(name), **settings, **given.passes
    )
    return {"road": found.difference.tolist()}


def _evidence(given: MetricInput, name: str, **settings: Any) -> Columns:
    found = functional.evidence(
        given.model, given.inputs, given.explanation, generator=given.generators(name), **settings, **given.passes
    )
    columns = {"jury": found.value, "jury_gain": found.gain[:, 0]}
    return {column: [None if math.isnan(v) else v for v in values.tolist()] for column, values in columns.items()}


def _saco(given: MetricInput, name: str, **settings: Any) -> Columns:
    del name
    return {"saco": functional.saco(given.model, given.inputs, given.explanation, **settings, **given.passes).tolist()}


def _complexity(given: MetricInput, name: str) -> Columns:
    del name
    heatmaps = given.explanation
    return {"complexity": functional.entropy(heatmaps).tolist(), "sparseness": functional.gini(heatmaps).tolist()}


def _objective(given: MetricInput, name: str) -> Columns:
    del name
    traces = [diagnostics.get("objective") for diagnostics in given.explanation.diagnostics]
    return {"objective": [float(trace[-1]) if isinstance(trace, list) and trace else None for trace in traces]}


def _saturation(given: MetricInput, name: str, *, tolerance: float = 0.05, **settings: Any) -> Columns:
    del name
    found = saturation(given.model, given.inputs, given.explanation.explained, **settings, **given.passes)
    return {"saturation": found.share(tolerance).tolist()}


def _top_features(given: MetricInput, name: str, *, count: int = 4) -> Columns:
    del name
    if not 1 <= count <= 10:
        raise ValueError(f"count is {count}; give 1 to 10 channels")
    named = [diagnostics.get("top_channels", {}) for diagnostics in given.explanation.diagnostics]
    if any(len(layers) != 1 for layers in named):
        return {"top_deletion": [None] * len(named), "top_insertion": [None] * len(named)}
    top = top_features(given.model, given.inputs, given.explanation, count, chunk_size=given.chunk_size)
    found = functional.deletion_insertion(given.model, given.inputs, top, **given.passes)
    return {"top_deletion": found.deletion.area.tolist(), "top_insertion": found.insertion.area.tolist()}


def _localisation(column: str, function: Callable[..., Tensor]) -> Callable[..., Columns]:
    """The runner of a metric that compares heatmaps with the objects."""

    def run(given: MetricInput, name: str, **settings: Any) -> Columns:
        del name
        objects = [image.objects for image in given.images]
        if any(boxes is None for boxes in objects):
            raise BenchError("the image has no objects")
        sizes = [image.size for image in given.images]
        found = function(given.explanation, objects, image_sizes=sizes, geometry=given.model.geometry, **settings)
        return {column: found.double().tolist()}

    return run


def _grid_pointing_game(given: MetricInput, name: str, *, least_probability: float = 0.5) -> Columns:
    """Explain each image again, in a mosaic with three companions; an image that the model is not confident of has no value."""
    columns: dict[str, list[float | None]] = {key: [None] * len(given.images) for key in ("grid_mass", "grid_top", "grid_peak")}
    targets = given.targets
    probabilities = class_probabilities(given.model, given.inputs, given.chunk_size)
    beside = [
        given.companions.beside(image.sha256, target, least_probability, 3)
        if float(probability[target]) >= least_probability
        else []
        for image, target, probability in zip(given.images, targets, probabilities, strict=True)
    ]
    index = [i for i, companions in enumerate(beside) if companions]
    if index:
        generators = given.generators(name)
        found = grid_pointing(
            given.explainer,
            [(given.inputs[i : i + 1], beside[i]) for i in index],
            [given.images[i].seed % 4 for i in index],
            [targets[i] for i in index],
            [generators[i] for i in index],
        )
        for column, values in zip(columns.values(), found, strict=True):
            for i, value in zip(index, values.tolist(), strict=True):
                column[i] = value
    return columns


def _difull(given: MetricInput, name: str) -> Columns:
    """Explain each image again for a model that sees only one of its quarters."""
    height, width = given.inputs.shape[-2:]
    generators, targets = given.generators(name), given.targets
    leaked = [0.0] * len(given.images)
    for quarter in range(4):
        index = [i for i, image in enumerate(given.images) if image.seed % 4 == quarter]
        if not index:
            continue
        top, left = quarter // 2 * (height // 2), quarter % 2 * (width // 2)
        region = region_of((left, top, left + width // 2, top + height // 2), (height, width)).to(given.inputs.device)
        explainer = replace(given.explainer, model=difull(given.model, region))
        explanation = explainer(given.inputs[index], [targets[i] for i in index], generator=[generators[i] for i in index])
        for i, value in zip(index, functional.leakage(explanation, region).tolist(), strict=True):
            leaked[i] = value
    return {"difull_leakage": leaked}


def _planted_shortcut(given: MetricInput, name: str, *, mark: MarkKind = "logo", size: float = 0.2) -> Columns:
    """Explain each image again, with a mark, for a head that decides by the mark."""
    names = ("mark_found", "mark_share", "mark_rank")
    shortcut = given.companions.head(given.model, mark, size, given.inputs.shape)
    if shortcut is None:
        return {key: [None] * len(given.images) for key in names}
    score, recognised = mark_shown(given.explainer, shortcut, given.inputs, mark, size, given.generators(name))
    columns = zip(names, score, strict=True)
    return {
        key: [value if known else None for value, known in zip(values.tolist(), recognised, strict=True)]
        for key, values in columns
    }


RUNNERS: dict[str, Callable[..., Columns]] = {
    "deletion_insertion": _deletion_insertion,
    "infidelity": _infidelity,
    "sensitivity": _sensitivity,
    "confidence": _confidence,
    "road": _road,
    "evidence": _evidence,
    "saco": _saco,
    "complexity": _complexity,
    "objective": _objective,
    "saturation": _saturation,
    "top_features": _top_features,
    "pointing_game": _localisation("pointing_game", functional.pointing_game),
    "energy_pointing_game": _localisation("energy_pointing_game", functional.energy_pointing_game),
    "relevance_rank": _localisation("relevance_rank", functional.relevance_rank),
    "grid_pointing_game": _grid_pointing_game,
    "difull": _difull,
    "planted_shortcut": _planted_shortcut,
}


IMAGE_FAILURES = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError, AssertionError)
"""Errors that an image can cause. An interrupt or a lack of memory is not caused by an image."""


@dataclass(frozen=True)
class FinishedUnit:
    """A finished unit: the content of its file, and its numbers for the progress line."""

    key: str
    data: bytes
    images: int
    failed: int
    seconds: float
    model: str
    method: str


@dataclass
class BenchWorker:
    """Evaluates tasks on one device.

    Args:
        setup: the same for all workers.
        device: of the models; None for the CPU.
        models: a cache that may already hold a model.
    """

    setup: Setup
    device: str | None = None
    models: ModelCache | None = None
    explainers: dict[tuple[int, int], Explainer] = field(default_factory=dict)
    companions: dict[int, Companions] = field(default_factory=dict)

    def run(self, tasks: Iterable[Task]) -> Iterator[FinishedUnit]:
        """Evaluate the tasks in order; consecutive tasks of one model and shard share its images.

        Raises:
            BenchError: if a model is not the planned one, or memory does not suffice.
        """
        boxes = any(METRICS[metric.name].boxes for metric in self.setup.metrics)
        reader = ImageReader(open_source(self.setup.data), boxes=boxes)
        try:
            for shard_tasks, images in self._read_ahead(tasks, reader):
                yield from self._evaluate_shard(shard_tasks, images)
        finally:
            reader.close()

    def _read_ahead(self, tasks: Iterable[Task], reader: ImageReader) -> Iterator[tuple[list[Task], list[Future[LoadedImage]]]]:
        """Tasks of one model and shard with their images; the next shard of the model is read meanwhile."""
        waiting: tuple[list[Task], list[Future[LoadedImage]]] | None = None
        for (model, _), group in groupby(tasks, key=lambda task: (task.unit.model, task.unit.shard)):
            shard_tasks = list(group)
            if waiting is not None and waiting[0][0].unit.model != model:
                yield waiting
                waiting = None
            started = shard_tasks, reader.start(shard_tasks[0].items, self._model(model))
            if waiting is not None:
                yield waiting
            waiting = started
        if waiting is not None:
            yield waiting

    def _model(self, number: int) -> Classifier:
        planned = self.setup.models[number]
        self.models = self.models or ModelCache(self.device)
        model, digest = self.models.get(planned.spec)
        if digest != planned.digest:
            raise BenchError(
                f"model {planned.id}: its weights have the digest {digest[:12]}, but the run was planned with "
                f"{planned.digest[:12]}; give those weights, or another --out"
            )
        return model

    def _evaluate_shard(self, tasks: Sequence[Task], futures: Sequence[Future[LoadedImage]]) -> Iterator[FinishedUnit]:
        started = time.perf_counter()
        images = [future.result() for future in futures]
        model = self._model(tasks[0].unit.model)
        chunk_size = self.setup.chunk_size
        groups = [group for same in grouped_by_shape(images) for group in classify(model, same, chunk_size)]
        for task in tasks:
            yield self._evaluate_unit(task, images, groups, model, started)
            started = time.perf_counter()

    def _evaluate_unit(
        self, task: Task, images: Sequence[LoadedImage], groups: Sequence[ImageGroup], model: Classifier, started: float
    ) -> FinishedUnit:
        unit, setup = task.unit, self.setup
        planned, planned_model = setup.methods[unit.method], setup.models[unit.model]
        explainer = self._explainer(unit.model, unit.method, model)
        method = MethodRun(setup, planned, model, explainer, self._companions(unit.model, model))
        by_image = {id(loaded): failed_result(loaded) for loaded in images}
        for group in groups:
            by_image |= {id(image): result for image, result in zip(group.images, method.results(group), strict=True)}
        results = [by_image[id(loaded)] for loaded in images]
        failed = sum(result.error is not None for result in results)
        header = {
            "schema": 1,
            "unit": unit.key,
            "model": planned_model.id,
            "model_digest": planned_model.digest,
            "method": planned.id,
            "method_settings": planned.settings,
            "shard": unit.shard,
            "images": len(results),
            "failed": failed,
            "versions": setup.versions,
        }
        shared = {"model": planned_model.id, "method": planned.id, "shard": unit.shard, "device": str(model.device)}
        columns = [column for metric in setup.metrics for column in metric.columns]
        curves = [column for metric in setup.metrics for column in metric.curves]
        data = encode(results, shared, header, columns, curves)
        seconds = time.perf_counter() - started
        return FinishedUnit(unit.key, data, len(results), failed, seconds, planned_model.id, planned.id)

    def _companions(self, model_number: int, model: Classifier) -> Companions:
        """Companions are kept as long as their model."""
        if model_number not in self.companions:
            source = open_source(self.setup.data)
            self.companions = {model_number: Companions.read(self.setup.companions, source, model)}
        return self.companions[model_number]

    def _explainer(self, model_number: int, method_number: int, model: Classifier) -> Explainer:
        """Explainers are kept as long as their model."""
        if any(number != model_number for number, _ in self.explainers):
            self.explainers.clear()
        key = model_number, method_number
        if key not in self.explainers:
            planned, setup = self.setup.methods[method_number], self.setup
            self.explainers[key] = make_explainer(
                model,
                planned.name,
                planned.given,
                resolution=planned.resolution,
                chunk_size=setup.chunk_size,
                autocast=setup.autocast,
            )
        return self.explainers[key]


@dataclass(frozen=True, eq=False)
class ImageGroup:
    """Images of one shape with the model's probabilities, computed once for all methods."""

    images: Sequence[LoadedImage]
    inputs: Float[Tensor, "n c h w"]
    probabilities: Float[Tensor, "n classes"]

    @classmethod
    def of(cls, model: Classifier, images: Sequence[LoadedImage], chunk_size: int) -> ImageGroup:
        """Classify the images."""
        inputs = torch.cat([loaded.image for loaded in images if loaded.image is not None])
        with suppressed():  # the rows of its explanations have the warnings
            probabilities = class_probabilities(model, inputs, chunk_size).cpu()
        return cls(images, inputs, probabilities)

    def single(self, i: int) -> ImageGroup:
        """One image as a group."""
        return ImageGroup(self.images[i : i + 1], self.inputs[i : i + 1], self.probabilities[i : i + 1])


def classify(model: Classifier, images: Sequence[LoadedImage], chunk_size: int) -> list[ImageGroup]:
    """Classify images of one shape together; if that fails, one by one, so that only the failing images get an error."""
    try:
        return [ImageGroup.of(model, images, chunk_size)]
    except IMAGE_FAILURES as error:
        raise_machine_failure(error, chunk_size)
        if len(images) == 1:
            images[0].error = f"{images[0].item.path}: the model failed: {error or type(error).__name__}"
            return []
    return [group for loaded in images for group in classify(model, [loaded], chunk_size)]


@dataclass(frozen=True, eq=False)
class MethodRun:
    """One method on one model, applied to groups of images."""

    setup: Setup
    planned: PlannedMethod
    model: Classifier
    explainer: Explainer
    companions: Companions = field(default_factory=Companions)

    def results(self, group: ImageGroup) -> list[ImageRow]:
        """Evaluate all images together; if that fails, one by one, so that only the failing images get an error."""
        try:
            return self._evaluate(group)
        except IMAGE_FAILURES as error:
            raise_machine_failure(error, self.setup.chunk_size)
            if len(group.images) == 1:
                result = failed_result(group.images[0])
                result.error = f"{self.planned.id}: {error or type(error).__name__}"
                return [result]
        return [result for i in range(len(group.images)) for result in self.results(group.single(i))]

    def _evaluate(self, group: ImageGroup) -> list[ImageRow]:
        explanation, seconds, memory = timed(self.model.device, lambda: self._explain(group))
        autocast = None if self.setup.autocast is None else getattr(torch, self.setup.autocast)
        given = MetricInput(
            model=self.model,
            explainer=self.explainer,
            inputs=group.inputs,
            images=group.images,
            explanation=explanation,
            companions=self.companions,
            seed=self.setup.seed,
            chunk_size=self.setup.chunk_size,
            autocast=autocast,
        )
        values, metric_seconds, _ = timed(
            self.model.device, lambda: [run_metric(metric, given) for metric in self.setup.metrics]
        )
        columns = {column: each for part in values for column, each in part.items()}
        results = [self._result(group, explanation, i, columns) for i in range(len(group.images))]
        for result in results:
            result.seconds, result.peak_memory = seconds / len(results), memory
            result.metric_seconds = metric_seconds / len(results) if self.setup.metrics else None
        return results

    def _explain(self, group: ImageGroup) -> Explanation:
        seed = derived(self.setup.seed, self.planned.digest)
        generators = [torch.Generator(group.inputs.device).manual_seed(derived(seed, i.seed)) for i in group.images]
        with suppressed():  # its warnings are in the rows
            return self.explainer(group.inputs, self._target(group), generator=generators)

    def _target(self, group: ImageGroup) -> list[int]:
        """The class of the item, or the predicted class."""
        predicted: list[int] = group.probabilities.argmax(dim=1).tolist()
        wanted = [loaded.item.target for loaded in group.images]
        numbers = [self.model.find(target) if isinstance(target, str) else target for target in wanted]
        return [guess if number is None else number for number, guess in zip(numbers, predicted, strict=True)]

    def _result(self, group: ImageGroup, explanation: Explanation, i: int, columns: dict[str, Sequence[Any]]) -> ImageRow:
        loaded, diagnostics = group.images[i], explanation.diagnostics[i] if explanation.diagnostics else {}
        assert explanation.target is not None  # noqa: S101 - a class was explained
        assert explanation.score is not None  # noqa: S101
        target = int(explanation.target[i])
        curves = {name for metric in self.setup.metrics for name in metric.curves}
        return ImageRow(
            index=loaded.item.number,
            image=loaded.item.path,
            sha256=loaded.sha256,
            size=explanation.image_size,
            target=target,
            predicted=int(group.probabilities[i].argmax()),
            label=loaded.item.label or self.model.label(target),
            probability=float(group.probabilities[i, target]),
            score=float(explanation.score[i]),
            values={name: each[i] for name, each in columns.items() if name not in curves},
            curves={name: columns[name][i] for name in curves},
            forward=diagnostics.get("forward_passes"),
            backward=diagnostics.get("backward_passes"),
            heatmap=explanation.heatmap[i].detach().float().cpu().numpy(),
            rows_at=None if explanation.rows is None else explanation.rows.tolist(),
            columns_at=None if explanation.columns is None else explanation.columns.tolist(),
            warnings=[*loaded.warnings, *diagnostics.get("warnings", ())],
        )


def failed_result(loaded: LoadedImage) -> ImageRow:
    """The row of an image that could not be read, classified or explained."""
    item = loaded.item
    return ImageRow(item.number, item.path, loaded.sha256, label=item.label, warnings=loaded.warnings, error=loaded.error)


def timed(device: torch.device, work: Callable[[], Any]) -> tuple[Any, float, int | None]:
    """The result of the work, its seconds, and an accelerator's peak memory in bytes."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    result = work()
    if cuda:
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - started, torch.cuda.max_memory_allocated(device) if cuda else None


def raise_machine_failure(error: Exception, chunk_size: int) -> None:
    """Raise BenchError for a failure of the machine, which every image would meet."""
    if isinstance(error, torch.OutOfMemoryError):
        raise BenchError(f"out of memory; give a chunk_size below {chunk_size}, or another device") from error
    if "CUDA error" in str(error):
        raise BenchError(f"the device failed ({error}); start the same command again") from error
