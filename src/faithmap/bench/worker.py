"""Worker: a model, the images of a shard, and one method after the other; a unit in, the bytes of its file out.

What comes out depends on the task alone: seeds follow from an image's content and a method's settings. An image that cannot
be read or explained becomes a row with its error, and disturbs no other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby

from faithmap.bench.catalog import METRICS
from faithmap.bench.errors import BenchError
from faithmap.bench.explainers import make_explainer
from faithmap.bench.models import Models
from faithmap.bench.photos import Photo, Reader, alike, listening
from faithmap.bench.plan import Setup, Task
from faithmap.bench.question import Group, Question, seen, unread
from faithmap.bench.sources import open_source
from faithmap.bench.store import encode
from faithmap.methods.base import Explainer
from faithmap.model import Classifier


@dataclass(frozen=True)
class Finished:
    """A unit that was done: its file's content, and what a progress line says of it."""

    key: str
    data: bytes
    images: int
    failed: int
    seconds: float
    model: str
    method: str


@dataclass
class Worker:
    """Does tasks, on one device.

    Args:
        setup: what all workers are told.
        device: where the models are put; None for the CPU.
        models: that are loaded already.
    """

    setup: Setup
    device: str | None = None
    models: Models | None = None
    explainers: dict[tuple[int, int], Explainer] = field(default_factory=dict)

    def run(self, tasks: Iterable[Task]) -> Iterator[Finished]:
        """One unit after the other; those of a model and shard that come together share its images.

        Raises:
            BenchError: for a model that is not the planned one, or where memory does not suffice.
        """
        boxed = any(METRICS[metric.name].boxes for metric in self.setup.metrics)
        reader = Reader(open_source(self.setup.data), boxes=boxed)
        try:
            with listening():
                for together, photos in self._ahead(tasks, reader):
                    yield from self._shard(together, photos)
        finally:
            reader.close()

    def _ahead(self, tasks: Iterable[Task], reader: Reader) -> Iterator[tuple[list[Task], list[Future[Photo]]]]:
        """Tasks of one model and shard, whose images are being read; the next ones' begin before these are done."""
        shards = ((key[0], list(group)) for key, group in groupby(tasks, key=lambda task: (task.unit.model, task.unit.shard)))
        waiting: tuple[list[Task], list[Future[Photo]]] | None = None
        for model, together in shards:
            if waiting is not None and waiting[0][0].unit.model != model:
                yield waiting
                waiting = None
            asked = together, reader.ask(together[0].items, self._model(model))
            if waiting is not None:
                yield waiting
            waiting = asked
        if waiting is not None:
            yield waiting

    def _model(self, number: int) -> Classifier:
        """Loaded once, and seen to be the planned one."""
        planned = self.setup.models[number]
        self.models = self.models or Models(self.device)
        model, digest = self.models.get(planned.spec)
        if digest != planned.digest:
            raise BenchError(
                f"model {planned.id}: its weights have the digest {digest[:12]}, the run was planned with "
                f"{planned.digest[:12]}; give those weights, or another --out"
            )
        return model

    def _shard(self, tasks: Sequence[Task], asked: Sequence[Future[Photo]]) -> Iterator[Finished]:
        started = time.perf_counter()
        photos = [future.result() for future in asked]
        model = self._model(tasks[0].unit.model)
        groups = [group for same in alike(photos) for group in seen(model, same, self.setup.chunk_size)]
        for task in tasks:
            yield self._unit(task, photos, groups, model, started)
            started = time.perf_counter()

    def _unit(
        self, task: Task, photos: Sequence[Photo], groups: Sequence[Group], model: Classifier, started: float
    ) -> Finished:
        """Explain and measure every image of the shard, and pack the rows."""
        unit, planned = task.unit, self.setup.methods[task.unit.method]
        question = Question(self.setup, planned, model, self._explainer(unit.model, unit.method, model))
        rows = {id(photo): unread(photo) for photo in photos}
        for group in groups:
            rows |= {id(photo): row for photo, row in zip(group.photos, question.rows(group), strict=True)}
        ordered = [rows[id(photo)] for photo in photos]
        failed = sum(row.error is not None for row in ordered)
        model_id = self.setup.models[unit.model].id
        header = {
            "schema": 1,
            "unit": unit.key,
            "model": model_id,
            "model_digest": self.setup.models[unit.model].digest,
            "method": planned.id,
            "method_settings": planned.settings,
            "shard": unit.shard,
            "images": len(ordered),
            "failed": failed,
            "versions": self.setup.versions,
        }
        same = {"model": model_id, "method": planned.id, "shard": unit.shard, "device": str(model.device)}
        data = encode(ordered, same, header, *_columns(self.setup))
        return Finished(unit.key, data, len(ordered), failed, time.perf_counter() - started, model_id, planned.id)

    def _explainer(self, number: int, method: int, model: Classifier) -> Explainer:
        """Made once; kept for the model that is held."""
        if any(held != number for held, _ in self.explainers):
            self.explainers.clear()
        if (number, method) not in self.explainers:
            planned, setup = self.setup.methods[method], self.setup
            self.explainers[number, method] = make_explainer(
                model,
                planned.name,
                planned.given,
                resolution=planned.resolution,
                chunk_size=setup.chunk_size,
                autocast=setup.autocast,
            )
        return self.explainers[number, method]


def _columns(setup: Setup) -> tuple[list[str], list[str]]:
    """Of the scalar metrics, and of the curves."""
    scalars = [column for metric in setup.metrics for column in metric.columns]
    games = [metric for metric in setup.metrics if metric.name == "deletion_insertion"]
    curves = ("deletion_curve", "insertion_curve", "curve_fractions")
    return scalars, [metric.column(curve) for metric in games for curve in curves]
