"""Train a masker: a small network that predicts masks for one classifier, from images without labels."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from faithmap.errors import UserError, memory_errors, user_errors, write_errors
from faithmap.methods.masks.masker_files import read_training, save_masker
from faithmap.methods.masks.masker_training import MaskerSettings, Training, begin, train_masker
from faithmap.model import Classifier, undisturbed
from faithmap.studies.base import find_files, load_model, read_input
from faithmap.studies.result_folder import ImageJob, ProgressDisplay
from faithmap.studies.settings import TrainMaskerSettings

CACHE_BYTES = 2**29
"""Bytes of images that stay in memory; the others are read again whenever a step needs them."""


@dataclass(frozen=True)
class TrainMaskerResult:
    """The trained masker.

    Attributes:
        file: that holds it.
        model: name of the classifier.
        steps: that were done in total.
        images: number of training images.
        recent_losses: of the last steps.
    """

    file: Path
    model: str
    steps: int
    images: int
    recent_losses: Sequence[float]

    def summary_lines(self) -> Iterator[tuple[str, str]]:
        """The summary for people: heading and text of each line."""
        yield "masker   ", f"{self.file}, for {self.model}"
        yield "trained  ", f"{self.steps} steps on {self.images} images"
        if self.recent_losses:
            mean = sum(self.recent_losses) / len(self.recent_losses)
            yield "loss     ", f"{mean:.3f}, the mean of the last {len(self.recent_losses)} steps"


def run_train_masker(paths: Sequence[Path], settings: TrainMaskerSettings, display: ProgressDisplay) -> TrainMaskerResult:
    """Train a masker and write it.

    Args:
        paths: image files and folders.
        settings: of the training.
        display: displays progress.

    Raises:
        UserError: for wrong input, settings or files; before any computation where possible.
    """
    files = _find_images(paths)
    _check_output(settings)
    training_settings = _training_settings(settings)
    model = load_model(settings)
    with user_errors():
        resumed = read_training(settings.out, model) if settings.resume else None
    images = TrainingImages(files, model)
    with display(len(files)) as progress:
        digest = _digest(images, lambda done: progress(done, "reading images"))
    training = _begin_or_resume(resumed, training_settings, images, digest, settings)

    def save(so_far: Training) -> None:
        with write_errors(settings.out):
            save_masker(so_far, settings.out)

    with display(settings.steps) as progress, memory_errors("--batch", settings.batch), user_errors():
        train_masker(
            model,
            images,
            steps=settings.steps,
            resume=training,
            progress=lambda done, _: progress(done, "training"),
            every=settings.every,
            save=save,
        )
    return TrainMaskerResult(settings.out, model.name, training.done, len(files), training.losses[-settings.every :])


@dataclass
class TrainingImages:
    """Images as the model receives them, read when they are needed.

    Attributes:
        files: of the images.
        model: whose preprocessing is applied.
    """

    files: Sequence[Path]
    model: Classifier
    _cache: dict[int, Tensor] = field(default_factory=dict)
    _cached_bytes: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Float[Tensor, "c h w"]:
        """One image.

        Raises:
            ImageError: for a file that has become unreadable.
        """
        return self._cache[index] if index in self._cache else self.read(index)[0]

    def read(self, index: int) -> tuple[Float[Tensor, "c h w"], str]:
        """One image, and the SHA-256 of its file; the image stays in memory if there is room."""
        file = self.files[index]
        read = read_input(ImageJob(file, file.parent), self.model)
        image = read.image[0]
        if index not in self._cache and self._cached_bytes + image.nbytes <= CACHE_BYTES:
            self._cache[index] = image
            self._cached_bytes += image.nbytes
        return image, read.digest


def _find_images(paths: Sequence[Path]) -> list[Path]:
    if not paths:
        raise UserError("no images are given; give image files, or folders of them")
    files, failures = find_files(paths)
    if failures:
        raise UserError(failures[0].message)
    return files


def _check_output(settings: TrainMaskerSettings) -> None:
    """Check that the file can be written, and that no other file is lost."""
    out = settings.out
    if settings.resume and settings.overwrite:
        raise UserError("--resume continues a training, --overwrite replaces it; give one of them")
    if settings.resume and not out.exists():
        raise UserError(f"{out}: there is no training to resume; leave out --resume, or give its file as --out")
    if os.path.lexists(out) and not out.is_file():
        raise UserError(f"{out}: is no file; give another --out")
    if os.path.lexists(out) and not (settings.resume or settings.overwrite):
        raise UserError(f"{out} exists; give --resume to continue it, --overwrite to replace it, or another --out")
    if os.path.lexists(out) and settings.overwrite:
        try:
            read_training(out)
        except ValueError as error:
            raise UserError(f"{out} is no masker of faithmap and is not replaced; move it, or give another --out") from error
    probe = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    with write_errors(out):
        probe.touch(exist_ok=False)
        probe.unlink()


def _training_settings(settings: TrainMaskerSettings) -> MaskerSettings:
    with user_errors():
        return MaskerSettings(
            channels=settings.channels,
            batch=settings.batch,
            learning_rate=settings.learning_rate,
            area=settings.area,
            seed=settings.seed,
        )


def _digest(images: TrainingImages, progress: Callable[[int], None]) -> str:
    """A digest of all images in their order. Every file is read once, before the first step.

    Raises:
        UserError: for a file that is no image, or images of several sizes.
    """
    digest = hashlib.sha256()
    sizes: dict[tuple[int, ...], Path] = {}
    for index, file in enumerate(images.files):
        with user_errors():
            image, of_file = images.read(index)
        sizes.setdefault(tuple(image.shape[-2:]), file)
        if len(sizes) > 1:
            (one, first), (other, second) = sizes.items()
            sides = f"{first} is {one[0]} x {one[1]} to the model and {second} {other[0]} x {other[1]}"
            raise UserError(f"{sides}; give images of one size")
        digest.update(of_file.encode())
        progress(index + 1)
    return digest.hexdigest()


def _begin_or_resume(
    resumed: Training | None,
    training_settings: MaskerSettings,
    images: TrainingImages,
    digest: str,
    settings: TrainMaskerSettings,
) -> Training:
    """The training to resume, if its settings and images are the same; otherwise a new one.

    Raises:
        UserError: for a training with other settings or images, or with more steps.
    """
    out = settings.out
    if resumed is None:
        with user_errors(), undisturbed(images.model):
            training = begin(images.model, images, training_settings)
        training.photos = digest
        return training
    for name in ("channels", "batch", "learning_rate", "area", "seed"):
        previous = getattr(resumed.settings, name)
        if getattr(training_settings, name) != previous:
            raise UserError(f"{out}: the training began with --{name.replace('_', '-')} {previous}; give the same again")
    if resumed.photos != digest:
        raise UserError(f"{out}: the training began with other images; give the same again, or another --out")
    if resumed.done > settings.steps:
        raise UserError(f"{out}: has done {resumed.done} steps already; give --steps above {settings.steps}")
    return resumed
