"""Worker: a model, the images of a shard, and one method after the other; a unit in, the bytes of its file out.

What comes out depends on the task alone: seeds follow from an image's content and a method's settings. An image that cannot
be read or explained becomes a row with its error, and disturbs no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.bench.dataset import open_source
from faithmap.bench.errors import BenchError
from faithmap.bench.explainers import make_explainer
from faithmap.bench.images import ImageReader, LoadedImage, grouped_by_shape, image_warnings
from faithmap.bench.metric_runners import MetricInput, run_metric
from faithmap.bench.models import ModelCache
from faithmap.bench.plan import PlannedMethod, Setup, Task, method_digest
from faithmap.bench.spec import METRICS
from faithmap.bench.store import ImageResult, encode
from faithmap.explanation import Explanation
from faithmap.methods.base import Explainer
from faithmap.model import Classifier
from faithmap.seeds import derived


@dataclass(frozen=True)
class FinishedUnit:
    """A unit that was done: its file's content, and what a progress line says of it."""

    key: str
    data: bytes
    images: int
    failed: int
    seconds: float
    model: str
    method: str


@dataclass
class BenchWorker:
    """Does tasks, on one device.

    Args:
        setup: what all workers are told.
        device: where the models are put; None for the CPU.
        models: that are loaded already.
    """

    setup: Setup
    device: str | None = None
    models: ModelCache | None = None
    explainers: dict[tuple[int, int], Explainer] = field(default_factory=dict)

    def run(self, tasks: Iterable[Task]) -> Iterator[FinishedUnit]:
        """One unit after the other; those of a model and shard that come together share its images.

        Raises:
            BenchError: for a model that is not the planned one, or where memory does not suffice.
        """
        boxed = any(METRICS[metric.name].boxes for metric in self.setup.metrics)
        reader = ImageReader(open_source(self.setup.data), boxes=boxed)
        try:
            with image_warnings():
                for together, photos in self._ahead(tasks, reader):
                    yield from self._shard(together, photos)
        finally:
            reader.close()

    def _ahead(self, tasks: Iterable[Task], reader: ImageReader) -> Iterator[tuple[list[Task], list[Future[LoadedImage]]]]:
        """Tasks of one model and shard, whose images are being read; the next ones' begin before these are done."""
        shards = ((key[0], list(group)) for key, group in groupby(tasks, key=lambda task: (task.unit.model, task.unit.shard)))
        waiting: tuple[list[Task], list[Future[LoadedImage]]] | None = None
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
        self.models = self.models or ModelCache(self.device)
        model, digest = self.models.get(planned.spec)
        if digest != planned.digest:
            raise BenchError(
                f"model {planned.id}: its weights have the digest {digest[:12]}, the run was planned with "
                f"{planned.digest[:12]}; give those weights, or another --out"
            )
        return model

    def _shard(self, tasks: Sequence[Task], asked: Sequence[Future[LoadedImage]]) -> Iterator[FinishedUnit]:
        started = time.perf_counter()
        photos = [future.result() for future in asked]
        model = self._model(tasks[0].unit.model)
        groups = [group for same in grouped_by_shape(photos) for group in seen(model, same, self.setup.chunk_size)]
        for task in tasks:
            yield self._unit(task, photos, groups, model, started)
            started = time.perf_counter()

    def _unit(
        self, task: Task, photos: Sequence[LoadedImage], groups: Sequence[ImageGroup], model: Classifier, started: float
    ) -> FinishedUnit:
        """Explain and measure every image of the shard, and pack the rows."""
        unit, planned = task.unit, self.setup.methods[task.unit.method]
        question = MethodRun(self.setup, planned, model, self._explainer(unit.model, unit.method, model))
        rows = {id(photo): failed_result(photo) for photo in photos}
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
        return FinishedUnit(unit.key, data, len(ordered), failed, time.perf_counter() - started, model_id, planned.id)

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


FAILURES = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError, AssertionError)
"""What one image can bring about; an interrupt, or memory that does not suffice, is no image's fault."""


def failed_result(photo: LoadedImage) -> ImageResult:
    """The row of an image of which nothing more is known."""
    return ImageResult(
        photo.item.number, photo.item.path, photo.sha256, label=photo.item.label, warnings=photo.warnings, error=photo.error
    )


@dataclass(frozen=True, eq=False)
class ImageGroup:
    """Photographs of one size, and what the model sees in them, asked once for all methods."""

    photos: Sequence[LoadedImage]
    images: Float[Tensor, "n c h w"]
    probabilities: Float[Tensor, "n classes"]

    @classmethod
    def of(cls, model: Classifier, photos: Sequence[LoadedImage], chunk_size: int) -> ImageGroup:
        """Ask the model."""
        images = torch.cat([photo.image for photo in photos if photo.image is not None])
        with torch.no_grad():
            seen = torch.cat([model(chunk).softmax(dim=1).cpu() for chunk in images.split(chunk_size)])
        return cls(photos, images, seen)

    def only(self, i: int) -> ImageGroup:
        """One of them."""
        return ImageGroup(self.photos[i : i + 1], self.images[i : i + 1], self.probabilities[i : i + 1])


def seen(model: Classifier, photos: Sequence[LoadedImage], chunk_size: int) -> list[ImageGroup]:
    """Photographs of one size that the model has looked at; one that it cannot take has an error, and disturbs no other."""
    try:
        return [ImageGroup.of(model, photos, chunk_size)]
    except FAILURES as error:
        refuse(error, chunk_size)
        if len(photos) == 1:
            photos[0].error = f"{photos[0].item.path}: the model failed: {error or type(error).__name__}"
            return []
    return [group for photo in photos for group in seen(model, [photo], chunk_size)]


@dataclass(frozen=True, eq=False)
class MethodRun:
    """A method that is asked about groups of images."""

    setup: Setup
    planned: PlannedMethod
    model: Classifier
    explainer: Explainer

    def rows(self, group: ImageGroup) -> list[ImageResult]:
        """Of all images together; where that fails, of each alone, so that one that fails disturbs no other."""
        try:
            return self._rows(group)
        except FAILURES as error:
            refuse(error, self.setup.chunk_size)
            if len(group.photos) == 1:
                row = failed_result(group.photos[0])
                row.error = f"{self.planned.id}: {error or type(error).__name__}"
                return [row]
        return [row for i in range(len(group.photos)) for row in self.rows(group.only(i))]

    def _rows(self, group: ImageGroup) -> list[ImageResult]:
        """Explain, then measure."""
        why, seconds, memory = self._timed(lambda: self._why(group))
        precision = None if self.setup.autocast is None else getattr(torch, self.setup.autocast)
        case = MetricInput(
            *(self.model, self.explainer, group.images, group.photos, why),
            *(self.setup.seed, self.setup.chunk_size, precision),
        )
        values, spent, _ = self._timed(lambda: [run_metric(metric, case) for metric in self.setup.metrics])
        found = {column: each for part in values for column, each in part.items()}
        rows = [self._row(group, why, i, found) for i in range(len(group.photos))]
        for row in rows:
            row.seconds, row.peak_memory = seconds / len(rows), memory
            row.metric_seconds = spent / len(rows) if self.setup.metrics else None
        return rows

    def _why(self, group: ImageGroup) -> Explanation:
        seed = derived(self.setup.seed, method_digest(self.planned))
        generators = [torch.Generator(group.images.device).manual_seed(derived(seed, p.key)) for p in group.photos]
        return self.explainer(group.images, self._target(group), generator=generators)

    def _target(self, group: ImageGroup) -> list[int]:
        """The item's class, else the one that the model predicts."""
        predicted: list[int] = group.probabilities.argmax(dim=1).tolist()
        wanted = [photo.item.target for photo in group.photos]
        named = [self.model.find(want) if isinstance(want, str) else want for want in wanted]
        return [guess if want is None else want for want, guess in zip(named, predicted, strict=True)]

    def _row(self, group: ImageGroup, why: Explanation, i: int, found: dict[str, Sequence[Any]]) -> ImageResult:
        photo, diagnostics = group.photos[i], why.diagnostics[i] if why.diagnostics else {}
        assert why.target is not None  # noqa: S101 - a class is what was asked about
        assert why.score is not None  # noqa: S101
        target = int(why.target[i])
        curves = {name: values[i] for name, values in found.items() if name.endswith(("_curve", "curve_fractions"))}
        return ImageResult(
            photo.item.number,
            photo.item.path,
            photo.sha256,
            why.image_size,
            target,
            int(group.probabilities[i].argmax()),
            photo.item.label or self.model.label(target),
            float(group.probabilities[i, target]),
            float(why.score[i]),
            values={name: each[i] for name, each in found.items() if name not in curves},
            curves=curves,
            forward=diagnostics.get("forward_passes"),
            backward=diagnostics.get("backward_passes"),
            heatmap=why.heatmap[i].detach().float().cpu().numpy(),
            rows_at=None if why.rows is None else why.rows.tolist(),
            columns_at=None if why.columns is None else why.columns.tolist(),
            warnings=[*photo.warnings, *diagnostics.get("warnings", ())],
        )

    def _timed(self, work: Callable[[], Any]) -> tuple[Any, float, int | None]:
        """What comes of it, the seconds it took, and an accelerator's peak memory."""
        device = self.model.device
        cuda = device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
        started = time.perf_counter()
        result = work()
        if cuda:
            torch.cuda.synchronize(device)
        return result, time.perf_counter() - started, torch.cuda.max_memory_allocated(device) if cuda else None


def refuse(error: Exception, chunk_size: int) -> None:
    """Raise BenchError for what is the machine's fault: no image would fare better."""
    if isinstance(error, torch.OutOfMemoryError):
        raise BenchError(f"out of memory; give a chunk_size below {chunk_size}, or another device") from error
    if "CUDA error" in str(error):
        raise BenchError(f"the device failed ({error}); start the same command again") from error
