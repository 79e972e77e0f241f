"""Spec: what a benchmark is asked for, as a TOML or YAML file, checked by pydantic before anything is loaded.

.. code-block:: toml

    name = "my-models"
    models = ["efficientnet_lite0"]

    [data]
    path = "photographs"

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


def _named(value: Any) -> Any:
    """A name alone stands for what has that name and nothing else."""
    return {"name": value} if isinstance(value, str) else value


def _known(name: str, names: Iterable[str], what: str) -> str:
    choices = list(names)
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"give one of {', '.join(choices)}"
        raise ValueError(f"{name!r} is no {what}; {hint}")
    return name


Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,59}$")]


class SpecTable(BaseModel):
    """A table of the file; a key that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSpec(SpecTable):
    """A model: a name that ``faithmap.load`` takes, or a function of your own that returns a Classifier.

    Attributes:
        name: of the model; with a factory, whatever you call it.
        weights: a checkpoint file instead of the published weights.
        factory: ``module:function``, called without arguments.
    """

    name: str = Field(min_length=1, max_length=200)
    weights: Path | None = None
    factory: str | None = Field(default=None, pattern=r"^[\w.]+:[A-Za-z_]\w*$")

    @model_validator(mode="after")
    def _one_of_two(self) -> ModelSpec:
        if self.weights is not None and self.factory is not None:
            raise ValueError("weights and factory are both given; the factory loads its own weights, leave one out")
        return self


class DataSpec(SpecTable):
    """The images.

    Attributes:
        kind: ``folder`` of images; ``csv`` with a column path and perhaps target; ``imagenet``, one folder a class; ``voc``,
            one year's folder; ``coco``, a folder of images.
        path: the folder, or the CSV file.
        annotations: of coco, the JSON of instances; of imagenet, the boxes.
        split: of voc.
        sample: so many images, drawn with the seed; without it, all.
        target: the class that is explained: ``predicted`` by the model, or the image's ``label``.
        classes: the model's class, by name or number, for names of the data set.
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
        """Whether the objects' places are known."""
        return self.kind in ("voc", "coco") or (self.kind == "imagenet" and self.annotations is not None)

    @property
    def asks_for_labels(self) -> bool:
        """Whether the image's own class is explained."""
        return self.boxed if self.target is None else self.target == "label"

    @model_validator(mode="after")
    def _complete(self) -> DataSpec:
        if self.kind == "coco" and self.annotations is None:
            raise ValueError("coco needs annotations; give the JSON file of instances")
        if self.kind == "folder" and self.target == "label":
            raise ValueError("a folder has no labels; give a csv with a column target, or explain the predicted class")
        return self


class MethodSpec(SpecTable):
    """A method, once for each resolution.

    Attributes:
        name: as ``faithmap methods`` lists it.
        id: what tables and files call it; the name and the resolution without it.
        label: what a reader sees.
        resolution: cells a side, or several of these.
        settings: keywords of the method.
    """

    name: str
    id: Identifier | None = None
    label: str | None = Field(default=None, max_length=80)
    resolution: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _is_a_method(cls, name: str) -> str:
        return _known(ALIASES.get(name, name), METHODS, "method")

    @property
    def resolutions(self) -> list[int | None]:
        """One for each row of the table."""
        return [*self.resolution] if isinstance(self.resolution, list) else [self.resolution]

    def id_at(self, resolution: int | None) -> str:
        """What the method at a resolution is called."""
        alone = self.id or self.name
        return alone if resolution is None or (self.id and not isinstance(self.resolution, list)) else f"{alone}-{resolution}"


class MetricSpec(SpecTable):
    """A metric; with an ``id`` its columns begin with that."""

    name: str
    id: Identifier | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_a_metric(self) -> MetricSpec:
        _known(self.name, METRICS, "metric")
        for setting in self.settings:
            if setting not in METRICS[self.name].settings:
                known = ", ".join(METRICS[self.name].settings) or "it has none"
                raise ValueError(f"{setting!r} is no setting of {self.name}; its settings: {known}")
        return self

    @property
    def columns(self) -> dict[str, bool | None]:
        """In the store, each with whether high is good."""
        return {self.column(name): better for name, better in METRICS[self.name].columns.items()}

    def column(self, name: str) -> str:
        """What one of its columns is called in the store."""
        return f"{self.id}_{name}" if self.id else name


class Spec(SpecTable):
    """A benchmark.

    Attributes:
        name: of the run.
        seed: of the sample and of all random numbers.
        shard_size: images in a work unit: what a killed run loses at the most, for each worker.
        chunk_size: images in one pass of the model at the most.
        autocast: a lower precision of the model's passes.
    """

    name: str = Field(default="benchmark", min_length=1, max_length=80)
    seed: int = Field(default=0, ge=0, lt=2**63)
    shard_size: PositiveInt = 16
    chunk_size: PositiveInt = 32
    autocast: Literal["bfloat16", "float16"] | None = None
    models: Annotated[list[Annotated[ModelSpec, BeforeValidator(_named)]], Field(min_length=1)]
    data: DataSpec
    methods: Annotated[list[Annotated[MethodSpec, BeforeValidator(_named)]], Field(min_length=1)]
    metrics: list[Annotated[MetricSpec, BeforeValidator(_named)]] = Field(default_factory=list)
    published: str | None = Field(default=None, pattern=r"^[a-z0-9-]+$")

    @field_validator("models")
    @classmethod
    def _different(cls, models: list[ModelSpec]) -> list[ModelSpec]:
        _refuse_twice([model.name for model in models], "models", "give each its own name")
        return models

    @field_validator("methods")
    @classmethod
    def _told_apart(cls, methods: list[MethodSpec]) -> list[MethodSpec]:
        ids = [method.id_at(resolution) for method in methods for resolution in method.resolutions]
        _refuse_twice(ids, "methods", "give each its own id")
        return methods

    @field_validator("metrics")
    @classmethod
    def _measurable(cls, metrics: list[MetricSpec], before: ValidationInfo) -> list[MetricSpec]:
        _refuse_twice([column for metric in metrics for column in metric.columns], "metrics", "give the second an id")
        boxed = [metric.name for metric in metrics if METRICS[metric.name].boxes]
        data: DataSpec | None = before.data.get("data")
        if boxed and data is not None and not data.boxed:
            raise ValueError(f"{boxed[0]} needs to know where objects are; give data of kind voc, coco or imagenet with boxes")
        return metrics


def _refuse_twice(names: list[str], what: str, remedy: str) -> None:
    plain = [re.sub(r"\W", "_", name).casefold() for name in names]
    for name, grouped_by_shape in zip(names, plain, strict=True):
        if (count := plain.count(grouped_by_shape)) > 1:
            raise ValueError(f"{count} {what} are called {name!r}; {remedy}")


@dataclass(frozen=True)
class BenchMetric:
    """One metric.

    Attributes:
        columns: each with whether a high value is good; None where neither is.
        settings: the keywords that it takes.
        boxes: whether it needs to know where the objects are.
    """

    columns: Mapping[str, bool | None]
    settings: tuple[str, ...] = ()
    boxes: bool = False


METRICS: Mapping[str, BenchMetric] = MappingProxyType(
    {
        "deletion_insertion": BenchMetric(
            {"deletion": False, "insertion": True}, ("protocol", "steps", "baseline", "resolution")
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
"""``objective`` is the last total loss of a method that optimises a mask, ``saturation`` the share of the path from baseline to
image on which the score has stopped moving: both are no verdict on a heatmap, and the tables of the papers have them."""

CURVES = ("deletion_curve", "insertion_curve", "curve_fractions")
"""What ``deletion_insertion`` leaves beside its two columns."""
