"""Question: a method that is asked about images of one size, and the rows that come of it.

An image that cannot be explained becomes a row with its error, and disturbs no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.bench.errors import BenchError
from faithmap.bench.measures import Case, measured
from faithmap.bench.photos import Photo
from faithmap.bench.plan import PlannedMethod, Setup, method_digest
from faithmap.bench.rows import Row
from faithmap.explanation import Explanation
from faithmap.methods.base import Explainer
from faithmap.model import Classifier
from faithmap.seeds import derived

FAILURES = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError, AssertionError)
"""What one image can bring about; an interrupt, or memory that does not suffice, is no image's fault."""


def unread(photo: Photo) -> Row:
    """The row of an image of which nothing more is known."""
    return Row(
        photo.item.number, photo.item.path, photo.sha256, label=photo.item.label, warnings=photo.warnings, error=photo.error
    )


@dataclass(frozen=True, eq=False)
class Group:
    """Photographs of one size, and what the model sees in them, asked once for all methods."""

    photos: Sequence[Photo]
    images: Float[Tensor, "n c h w"]
    probabilities: Float[Tensor, "n classes"]

    @classmethod
    def of(cls, model: Classifier, photos: Sequence[Photo], chunk_size: int) -> Group:
        """Ask the model."""
        images = torch.cat([photo.image for photo in photos if photo.image is not None])
        with torch.no_grad():
            seen = torch.cat([model(chunk).softmax(dim=1).cpu() for chunk in images.split(chunk_size)])
        return cls(photos, images, seen)

    def only(self, i: int) -> Group:
        """One of them."""
        return Group(self.photos[i : i + 1], self.images[i : i + 1], self.probabilities[i : i + 1])


def seen(model: Classifier, photos: Sequence[Photo], chunk_size: int) -> list[Group]:
    """Photographs of one size that the model has looked at; one that it cannot take has an error, and disturbs no other."""
    try:
        return [Group.of(model, photos, chunk_size)]
    except FAILURES as error:
        refuse(error, chunk_size)
        if len(photos) == 1:
            photos[0].error = f"{photos[0].item.path}: the model failed: {error or type(error).__name__}"
            return []
    return [group for photo in photos for group in seen(model, [photo], chunk_size)]


@dataclass(frozen=True, eq=False)
class Question:
    """A method that is asked about groups of images."""

    setup: Setup
    planned: PlannedMethod
    model: Classifier
    explainer: Explainer

    def rows(self, group: Group) -> list[Row]:
        """Of all images together; where that fails, of each alone, so that one that fails disturbs no other."""
        try:
            return self._rows(group)
        except FAILURES as error:
            refuse(error, self.setup.chunk_size)
            if len(group.photos) == 1:
                row = unread(group.photos[0])
                row.error = f"{self.planned.id}: {error or type(error).__name__}"
                return [row]
        return [row for i in range(len(group.photos)) for row in self.rows(group.only(i))]

    def _rows(self, group: Group) -> list[Row]:
        """Explain, then measure."""
        why, seconds, memory = self._timed(lambda: self._why(group))
        precision = None if self.setup.autocast is None else getattr(torch, self.setup.autocast)
        case = Case(
            *(self.model, self.explainer, group.images, group.photos, why),
            *(self.setup.seed, self.setup.chunk_size, precision),
        )
        values, spent, _ = self._timed(lambda: [measured(metric, case) for metric in self.setup.metrics])
        found = {column: each for part in values for column, each in part.items()}
        rows = [self._row(group, why, i, found) for i in range(len(group.photos))]
        for row in rows:
            row.seconds, row.peak_memory = seconds / len(rows), memory
            row.metric_seconds = spent / len(rows) if self.setup.metrics else None
        return rows

    def _why(self, group: Group) -> Explanation:
        seed = derived(self.setup.seed, method_digest(self.planned))
        generators = [torch.Generator(group.images.device).manual_seed(derived(seed, p.key)) for p in group.photos]
        return self.explainer(group.images, self._target(group), generator=generators)

    def _target(self, group: Group) -> list[int]:
        """The item's class, else the one that the model predicts."""
        predicted: list[int] = group.probabilities.argmax(dim=1).tolist()
        wanted = [photo.item.target for photo in group.photos]
        named = [self.model.find(want) if isinstance(want, str) else want for want in wanted]
        return [guess if want is None else want for want, guess in zip(named, predicted, strict=True)]

    def _row(self, group: Group, why: Explanation, i: int, found: dict[str, Sequence[Any]]) -> Row:
        photo, diagnostics = group.photos[i], why.diagnostics[i] if why.diagnostics else {}
        assert why.target is not None  # noqa: S101 - a class is what was asked about
        assert why.score is not None  # noqa: S101
        target = int(why.target[i])
        curves = {name: values[i] for name, values in found.items() if name.endswith(("_curve", "curve_fractions"))}
        return Row(
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
