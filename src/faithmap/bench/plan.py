"""Plan: a specification made concrete, and its work units.

A unit is a model, a method with its settings, the metrics, and a shard of the images; it becomes one Parquet file, named by a
digest of all that its content depends on. What is to be done is what is planned less what is there: a plan knows nothing of
who did what, or when.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from faithmap.bench.dataset import DatasetItem, ShardedDataset, digest_of
from faithmap.geometry import Geometry

if TYPE_CHECKING:
    from faithmap.bench.spec import DataSpec, MetricSpec, ModelSpec

SCHEMA = 1


class Unit(NamedTuple):
    """A piece of work; model, method and shard by their numbers in the plan."""

    key: str
    model: int
    method: int
    shard: int


class Task(NamedTuple):
    """A unit with its images: all that a worker is told."""

    unit: Unit
    items: Sequence[DatasetItem]


@dataclass(frozen=True)
class PlannedModel:
    """A model, as it was when the run was planned.

    Attributes:
        spec: as it was asked for.
        digest: of its weights.
        classes: how many it has.
        geometry: what of a photograph it is shown.
        normalisation: mean and standard deviation of each channel, which the weights' digest does not cover.
    """

    spec: ModelSpec
    digest: str
    classes: int | None = None
    geometry: Geometry = field(default_factory=Geometry)
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None

    @property
    def id(self) -> str:
        """What rows call it."""
        return self.spec.name

    @property
    def view(self) -> dict[str, Any]:
        """How a photograph becomes the model's input, as plain data."""
        mean, std = self.normalisation or (None, None)
        return {"geometry": asdict(self.geometry), "mean": mean, "std": std}


@dataclass(frozen=True)
class PlannedMethod:
    """A method at a resolution.

    Attributes:
        id: what rows call it.
        name: in the registry.
        explainer: its class.
        given: settings as specified; those that a worker makes the explainer with.
        settings: all of them, as the explainer tells.
        resolution: cells a side, where it was given.
        label: for readers.
        passes: (forward, backward) that an image takes, where they are known before.
    """

    id: str
    name: str
    explainer: str
    given: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    resolution: int | None = None
    label: str | None = None
    passes: tuple[int, int] | None = None


@dataclass(frozen=True)
class Setup:
    """What all workers are told: everything but the images."""

    seed: int
    chunk_size: int
    autocast: str | None
    models: Sequence[PlannedModel]
    methods: Sequence[PlannedMethod]
    metrics: Sequence[MetricSpec]
    data: DataSpec
    versions: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchPlan:
    """A benchmark, ready to be run."""

    name: str
    setup: Setup
    items: ShardedDataset
    published: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.setup.models) * len(self.setup.methods) * self.items.shards

    def units(self) -> Iterator[Unit]:
        """All of them: by model, then by shard, so that the images of a shard are read once for all methods."""
        shards, setup = self.items.digests(), self.setup
        for m, model in enumerate(setup.models):
            known = [_base(setup, model, method) for method in setup.methods]
            for s, shard in enumerate(shards):
                end = shard.encode()
                for e, method in enumerate(setup.methods):
                    part = known[e].copy()
                    part.update(end)
                    yield Unit(f"{method.id}-{s:05d}-{part.hexdigest()[:16]}", m, e, s)

    def task(self, unit: Unit) -> Task:
        """A unit with its images."""
        return Task(unit, self.items.shard(unit.shard))

    def record(self) -> dict[str, Any]:
        """The plan as run.json has it, without the images."""
        setup = self.setup
        return {
            "schema": SCHEMA,
            "name": self.name,
            "versions": dict(setup.versions),
            "models": [{"name": m.id, "digest": m.digest, "classes": m.classes, **m.view} for m in setup.models],
            "methods": [_method_record(method) for method in setup.methods],
            "metrics": [
                {"id": column, "name": metric.name, "settings": metric.settings, "higher_is_better": better}
                for metric in setup.metrics
                for column, better in metric.columns.items()
            ],
            "data": {
                **setup.data.model_dump(mode="json", exclude_none=True),
                "images": len(self.items),
                "digest": digest_of(self.items.digests()),
                "shard_size": self.items.shard_size,
            },
            "seed": setup.seed,
            "chunk_size": setup.chunk_size,
            "autocast": setup.autocast,
            "units": len(self),
            "published": self.published,
        }


@dataclass(frozen=True)
class Tasks(Sequence[Task]):
    """Units with their images, each put together when it is asked for: a list of them would be as long as the data set."""

    plan: BenchPlan
    units: Sequence[Unit]

    def __len__(self) -> int:
        return len(self.units)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Tasks: ...
    def __getitem__(self, index: int | slice) -> Task | Tasks:
        """A task, or fewer of them."""
        found = self.units[index]
        return self.plan.task(found) if isinstance(found, Unit) else Tasks(self.plan, found)


def _method_record(method: PlannedMethod) -> dict[str, Any]:
    record = asdict(method)
    record["class"] = record.pop("explainer")
    passes = record.pop("passes")
    return {**record, "passes": None if passes is None else dict(zip(("forward", "backward"), passes, strict=True))}


def _base(setup: Setup, model: PlannedModel, method: PlannedMethod) -> Any:
    """All that a unit's content depends on, but for its images; no name among it that could change without a consequence."""
    metrics = [metric.model_dump(mode="json") for metric in setup.metrics]
    asked = [model.id, model.digest, model.view, method.id, method_digest(method)]
    told = [SCHEMA, *asked, metrics, setup.seed, setup.autocast]
    return hashlib.sha256(canonical(told).encode())


def method_digest(method: PlannedMethod) -> str:
    """Of a method and its settings; seeds follow from it, and no name, path or number of a run does."""
    return hashlib.sha256(canonical([method.name, method.settings]).encode()).hexdigest()


def canonical(value: Any) -> str:
    """The same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


FREE = frozenset({"created", "versions", "published", "name", "chunk_size"})
"""What may change between two starts of a run: results do not depend on it, on the chunk size but for rounding."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In which parts a plan is another one than the run's; a data set may have been moved."""
    return [key for key in new if key not in FREE and canonical(_unmoved(old.get(key))) != canonical(_unmoved(new[key]))]


def _unmoved(part: Any) -> Any:
    return {k: v for k, v in part.items() if k not in ("path", "annotations")} if isinstance(part, Mapping) else part
