"""A plan: the specification with its models, settings and images resolved, and the work units that follow from it.

A unit is one model, one method with its settings, the metrics, and one shard of the images. Its result is one Parquet file,
whose name contains a digest of everything that the content depends on. The work that remains is the planned units minus the
files that exist; a plan holds no progress.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from faithmap.bench.dataset import DatasetItem, ShardedDataset
from faithmap.model import Geometry
from faithmap.score import OutputKind

if TYPE_CHECKING:
    from faithmap.bench.spec import DataSpec, MetricSpec, ModelSpec

SCHEMA = 1
"""Version of the run folder's layout."""


class Unit(NamedTuple):
    """A piece of work; model, method and shard are positions in the plan."""

    key: str
    model: int
    method: int
    shard: int


class Task(NamedTuple):
    """A unit with its images: the input of a worker, with the :class:`Setup`."""

    unit: Unit
    items: Sequence[DatasetItem]


@dataclass(frozen=True)
class PlannedModel:
    """A model as it was when the run was planned.

    Attributes:
        spec: from the specification.
        digest: of the weights.
        classes: number of classes.
        geometry: resizing and cropping of the images.
        normalisation: mean and standard deviation of each channel, which the digest of the weights does not cover.
        outputs: what the model returns for its classes, if it says so.
    """

    spec: ModelSpec
    digest: str
    classes: int | None = None
    geometry: Geometry = field(default_factory=Geometry)
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None
    outputs: OutputKind | None = None

    @property
    def id(self) -> str:
        """Name in result rows."""
        return self.spec.name

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Geometry, normalisation and outputs as plain data."""
        mean, std = self.normalisation or (None, None)
        outputs = {} if self.outputs is None else {"outputs": self.outputs}
        return {"geometry": asdict(self.geometry), "mean": mean, "std": std, **outputs}


@dataclass(frozen=True)
class PlannedMethod:
    """A method at one resolution.

    Attributes:
        id: name in result rows.
        name: in the registry.
        explainer: name of its class.
        given: settings of the specification.
        settings: all settings, with defaults.
        resolution: cells per side, if given.
        label: name for readers.
        passes: (forward, backward) passes per image, if they can be estimated.
    """

    id: str
    name: str
    explainer: str
    given: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    resolution: int | None = None
    label: str | None = None
    passes: tuple[int, int] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of name and settings, from which the seeds follow."""
        return hashlib.sha256(canonical([self.name, self.settings]).encode()).hexdigest()

    @property
    def record(self) -> dict[str, Any]:
        """The method as run.json has it."""
        record = asdict(self)
        record["class"] = record.pop("explainer")
        passes = record.pop("passes")
        return {**record, "passes": None if passes is None else dict(zip(("forward", "backward"), passes, strict=True))}


@dataclass(frozen=True)
class Setup:
    """The part of the input that is the same for all workers: everything but the images."""

    seed: int
    chunk_size: int
    autocast: str | None
    models: Sequence[PlannedModel]
    methods: Sequence[PlannedMethod]
    metrics: Sequence[MetricSpec]
    data: DataSpec
    versions: Mapping[str, str | None] = field(default_factory=dict)
    companions: Sequence[DatasetItem] = ()


@dataclass(frozen=True)
class BenchPlan:
    """A benchmark that is ready to run."""

    name: str
    setup: Setup
    dataset: ShardedDataset
    published: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.setup.models) * len(self.setup.methods) * self.dataset.shards

    def units(self) -> Iterator[Unit]:
        """All units, by model, then shard, then method, so that the images of a shard are read once for all methods."""
        digests, methods = self.dataset.digests(), self.setup.methods
        for m, model in enumerate(self.setup.models):
            hashes = [_hash_without_images(self.setup, model, method) for method in methods]
            for s, digest in enumerate(digests):
                for e, method in enumerate(methods):
                    unit = hashes[e].copy()
                    unit.update(digest.encode())
                    yield Unit(f"{method.id}-{s:05d}-{unit.hexdigest()[:16]}", m, e, s)

    def task(self, unit: Unit) -> Task:
        """A unit with its images."""
        return Task(unit, self.dataset.shard(unit.shard))

    def record(self) -> dict[str, Any]:
        """The plan as run.json has it, without the images."""
        setup = self.setup
        return {
            "schema": SCHEMA,
            "name": self.name,
            "versions": dict(setup.versions),
            "models": [{"name": m.id, "digest": m.digest, "classes": m.classes, **m.preprocessing} for m in setup.models],
            "methods": [method.record for method in setup.methods],
            "metrics": [
                {"id": column, "name": metric.name, "settings": metric.settings, "higher_is_better": better}
                for metric in setup.metrics
                for column, better in metric.columns.items()
            ],
            "data": {
                **setup.data.model_dump(mode="json", exclude_none=True),
                "images": len(self.dataset),
                "digest": hashlib.sha256("\n".join(self.dataset.digests()).encode()).hexdigest(),
                "shard_size": self.dataset.shard_size,
            },
            "seed": setup.seed,
            "chunk_size": setup.chunk_size,
            "autocast": setup.autocast,
            "units": len(self),
            "published": self.published,
        }


@dataclass(frozen=True)
class Tasks(Sequence[Task]):
    """Units with their images; each task is made on access, since a list of all would be as long as the data set."""

    plan: BenchPlan
    units: Sequence[Unit]

    def __len__(self) -> int:
        return len(self.units)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Tasks: ...
    def __getitem__(self, index: int | slice) -> Task | Tasks:
        """A task, or a part of the tasks."""
        found = self.units[index]
        return self.plan.task(found) if isinstance(found, Unit) else Tasks(self.plan, found)


def _hash_without_images(setup: Setup, model: PlannedModel, method: PlannedMethod) -> Any:
    """Hash of everything that a unit's content depends on, except its images."""
    metrics = [metric.model_dump(mode="json") for metric in setup.metrics]
    parts = [SCHEMA, model.id, model.digest, model.preprocessing, method.id, method.digest, metrics, setup.seed, setup.autocast]
    if setup.companions:
        parts.append(setup.companions)
    return hashlib.sha256(canonical(parts).encode())


def canonical(value: Any) -> str:
    """JSON with sorted keys: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


UNCHECKED = frozenset({"created", "versions", "published", "name", "chunk_size"})
"""Parts of run.json that may differ when a run is resumed. The chunk size changes results only by rounding."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The parts in which two records differ; the folders of a data set may differ."""
    return [
        key
        for key in new
        if key not in UNCHECKED and canonical(_without_paths(old.get(key))) != canonical(_without_paths(new[key]))
    ]


def _without_paths(part: Any) -> Any:
    return {k: v for k, v in part.items() if k not in ("path", "annotations")} if isinstance(part, Mapping) else part
