"""The specification of a benchmark: its fields, checked by pydantic before any model is loaded.

.. code-block:: toml

    name = "my-models"
    models = ["efficientnet_lite0"]

    [data]
    path = "images"

    [[methods]]
    name = "igos"
    resolution = [28, 14]          # two rows of the table

    [[metrics]]
    name = "deletion_insertion"
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from faithmap.methods.registry import ALIASES, METHODS


@dataclass(frozen=True)
class BenchMetric:
    """A metric that a benchmark can compute. How it is computed is in :mod:`faithmap.bench.evaluate`.

    Attributes:
        columns: column names in the store; True if higher is better, False if lower is better, None if neither.
        curves: columns of curves, one list per image.
        settings: keywords that the metric takes.
        boxes: whether the metric needs the boxes or masks of the objects.
    """

    columns: Mapping[str, bool | None]
    settings: tuple[str, ...] = ()
    boxes: bool = False
    curves: tuple[str, ...] = ()


METRICS: Mapping[str, BenchMetric] = MappingProxyType(
    {
        "deletion_insertion": BenchMetric(
            {"deletion": False, "insertion": True},
            ("protocol", "steps", "baseline", "resolution"),
            curves=("deletion_curve", "insertion_curve", "curve_fractions"),
        ),
        "infidelity": BenchMetric({"infidelity": False}, ("perturbation", "draws", "reading", "scaled")),
        "sensitivity": BenchMetric({"max_sensitivity": False, "mean_sensitivity": False}, ("radius", "draws")),
        "confidence": BenchMetric({"average_drop": False, "increase_in_confidence": True, "average_gain": True}, ("scaling",)),
        "road": BenchMetric({"road": True}, ("fractions", "noise_std")),
        "complexity": BenchMetric({"complexity": False, "sparseness": True}),
        "objective": BenchMetric({"objective": False}),
        "saturation": BenchMetric({"saturation": None}, ("target_layer", "positions", "baseline", "tolerance")),
        "pointing_game": BenchMetric({"pointing_game": True}, ("tolerance",), boxes=True),
        "energy_pointing_game": BenchMetric({"energy_pointing_game": True}, boxes=True),
        "relevance_rank": BenchMetric({"relevance_rank": True}, boxes=True),
    }
)
"""``objective`` is the last total loss of a method that optimises a mask. ``saturation`` is the share of the path from
baseline to image where the score has stopped changing. Neither rates a heatmap; the papers' tables include them."""

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,59}$")]


class SpecTable(BaseModel):
    """A table of the file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSpec(SpecTable):
    """A model: a name that ``faithmap.load`` takes, or a user function that returns a Classifier.

    Attributes:
        name: of the model; with a factory, any name.
        weights: checkpoint file instead of the published weights.
        factory: ``module:function``, called without arguments.
        outputs: what the model returns for its classes: ``logits``, ``probabilities``, or ``sigmoid`` for several labels; None
            for what its configuration says. A factory says it in its Classifier.
    """

    name: str = Field(min_length=1, max_length=200)
    weights: Path | None = None
    factory: str | None = Field(default=None, pattern=r"^[\w.]+:[A-Za-z_]\w*$")
    outputs: Literal["logits", "probabilities", "sigmoid"] | None = None

    @model_validator(mode="after")
    def _check_weights_or_factory(self) -> ModelSpec:
        if self.weights is not None and self.factory is not None:
            raise ValueError("weights and factory are both given; the factory loads its own weights, leave one out")
        if self.outputs is not None and self.factory is not None:
            raise ValueError("outputs and factory are both given; give outputs to the Classifier that the factory returns")
        return self


class DataSpec(SpecTable):
    """The images.

    Attributes:
        kind: ``folder`` of images; ``csv`` with a column path and optionally target; ``imagenet``, one folder per class;
            ``voc``, the folder of one year; ``coco``, a folder of images.
        path: the folder, or the CSV file.
        annotations: coco: the JSON file of instances; imagenet: the folder of boxes.
        split: voc: the list of images.
        sample: number of images, drawn with the seed; None takes all.
        target: the class that is explained: ``predicted`` by the model, or the ``label`` of the image. None: ``label`` if the
            data set has boxes, else ``predicted``.
        classes: the model's class, by name or number, for class names of the data set.
    """

    kind: Literal["folder", "csv", "imagenet", "voc", "coco"] = "folder"
    path: Path
    annotations: Path | None = None
    split: str = "test"
    sample: PositiveInt | None = None
    target: Literal["predicted", "label"] | None = None
    classes: dict[str, str | int] = Field(default_factory=dict)

    @property
    def boxed(self) -> bool:
        """Whether the data set has boxes or masks of the objects."""
        return self.kind in ("voc", "coco") or (self.kind == "imagenet" and self.annotations is not None)

    @property
    def explains_labels(self) -> bool:
        """Whether the label of the image is explained, and not the predicted class."""
        return self.boxed if self.target is None else self.target == "label"

    @model_validator(mode="after")
    def _check_kind(self) -> DataSpec:
        if self.kind == "coco" and self.annotations is None:
            raise ValueError("coco needs annotations; give the JSON file of instances")
        if self.kind == "folder" and self.target == "label":
            raise ValueError("a folder has no labels; give a csv with a column target, or explain the predicted class")
        return self


class MethodSpec(SpecTable):
    """A method, once per resolution.

    Attributes:
        name: as ``faithmap methods`` lists it.
        id: name in tables and files; without it, the name and the resolution.
        label: name for readers.
        resolution: cells per side, one number or a list.
        settings: keywords of the method.
    """

    name: str
    id: Identifier | None = None
    label: str | None = Field(default=None, max_length=80)
    resolution: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return _known(ALIASES.get(name, name), METHODS, "method")

    @property
    def resolutions(self) -> list[int | None]:
        """One per row of the table."""
        return [*self.resolution] if isinstance(self.resolution, list) else [self.resolution]

    def id_at(self, resolution: int | None) -> str:
        """The id of the method at a resolution."""
        base = self.id or self.name
        return base if resolution is None or (self.id and not isinstance(self.resolution, list)) else f"{base}-{resolution}"


class MetricSpec(SpecTable):
    """A metric; an ``id`` is put before its column names."""

    name: str
    id: Identifier | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_name_and_settings(self) -> MetricSpec:
        _known(self.name, METRICS, "metric")
        for setting in self.settings:
            if setting not in METRICS[self.name].settings:
                known = ", ".join(METRICS[self.name].settings) or "it has none"
                raise ValueError(f"{setting!r} is no setting of {self.name}; its settings: {known}")
        return self

    @property
    def columns(self) -> dict[str, bool | None]:
        """Columns in the store; True if higher is better, False if lower is better, None if neither."""
        return {self.column(name): better for name, better in METRICS[self.name].columns.items()}

    @property
    def curves(self) -> list[str]:
        """Columns of curves in the store."""
        return [self.column(name) for name in METRICS[self.name].curves]

    def column(self, name: str) -> str:
        """The name in the store of one of the metric's columns."""
        return f"{self.id}_{name}" if self.id else name


def _from_name(value: Any) -> Any:
    """A bare name means a table with only that name."""
    return {"name": value} if isinstance(value, str) else value


class Spec(SpecTable):
    """A benchmark.

    Attributes:
        name: of the run.
        seed: of the sample and of all random numbers.
        shard_size: images per work unit: what each worker loses at most if the run is killed.
        chunk_size: images per model pass, at most.
        autocast: lower precision for the model passes.
        models: at least one.
        data: the images.
        methods: at least one.
        metrics: none measures only time.
        published: name of a ready specification whose published numbers the report shows.
    """

    name: str = Field(default="benchmark", min_length=1, max_length=80)
    seed: int = Field(default=0, ge=0, lt=2**63)
    shard_size: PositiveInt = 16
    chunk_size: PositiveInt = 32
    autocast: Literal["bfloat16", "float16"] | None = None
    models: Annotated[list[Annotated[ModelSpec, BeforeValidator(_from_name)]], Field(min_length=1)]
    data: DataSpec
    methods: Annotated[list[Annotated[MethodSpec, BeforeValidator(_from_name)]], Field(min_length=1)]
    metrics: list[Annotated[MetricSpec, BeforeValidator(_from_name)]] = Field(default_factory=list)
    published: str | None = Field(default=None, pattern=r"^[a-z0-9-]+$")

    @field_validator("models")
    @classmethod
    def _check_models(cls, models: list[ModelSpec]) -> list[ModelSpec]:
        _refuse_duplicates([model.name for model in models], "models", "give each its own name")
        return models

    @field_validator("methods")
    @classmethod
    def _check_methods(cls, methods: list[MethodSpec]) -> list[MethodSpec]:
        ids = [method.id_at(resolution) for method in methods for resolution in method.resolutions]
        _refuse_duplicates(ids, "methods", "give each its own id")
        return methods

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: list[MetricSpec], info: ValidationInfo) -> list[MetricSpec]:
        _refuse_duplicates([column for metric in metrics for column in metric.columns], "metrics", "give the second an id")
        boxed = [metric.name for metric in metrics if METRICS[metric.name].boxes]
        data: DataSpec | None = info.data.get("data")
        if boxed and data is not None and not data.boxed:
            raise ValueError(f"{boxed[0]} needs boxes of the objects; give data of kind voc, coco or imagenet with boxes")
        return metrics


def _known(name: str, names: Iterable[str], what: str) -> str:
    choices = list(names)
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"give one of {', '.join(choices)}"
        raise ValueError(f"{name!r} is no {what}; {hint}")
    return name


def _refuse_duplicates(names: list[str], what: str, remedy: str) -> None:
    """Names that differ only in case or punctuation count as equal: they become file and column names."""
    plain = [re.sub(r"\W", "_", name).casefold() for name in names]
    for name, key in zip(names, plain, strict=True):
        if (count := plain.count(key)) > 1:
            raise ValueError(f"{count} {what} are called {name!r}; {remedy}")
