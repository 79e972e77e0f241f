"""From photographs to a masker: the part of ``faithmap train-masker`` that needs torch."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.cli.errors import UserError, blaming_memory, blaming_the_user, os_problem
from faithmap.cli.inputs import find_files, read_photo
from faithmap.cli.masker import MaskerOptions
from faithmap.cli.report import Bar
from faithmap.cli.results import Job
from faithmap.methods.masks.masker_files import read_training, save_masker
from faithmap.methods.masks.masker_training import MaskerSettings, Training, begin, train_masker
from faithmap.model import undisturbed

KEPT = 2**29
"""Bytes of photographs that stay in memory; the others are read whenever their turn comes."""


def train(paths: Sequence[Path], options: MaskerOptions, bar: Bar) -> Iterator[tuple[str, str]]:
    """Train a masker and write it, then say what there is, line by line.

    Raises:
        UserError: for all that a user can put right; before anything is computed, where that can be known so early.
    """
    files = _files(paths)
    _check_place(options)
    settings = _settings(options)
    with blaming_the_user():
        model = fm.load(options.model, weights=options.weights, device=options.device)
        before = read_training(options.out, model) if options.resume else None
    photos = Album(files, model)
    with bar(len(files)) as tell:
        told = _told(photos, lambda done: tell(done, "reading photographs"))
    training = _started(before, settings, photos, told, options)

    def save(so_far: Training) -> None:
        try:
            save_masker(so_far, options.out)
        except OSError as error:
            raise UserError(f"{options.out}: cannot be written ({os_problem(error)}); give another --out") from error

    with bar(options.steps) as tell, blaming_memory("--batch", options.batch), blaming_the_user():
        train_masker(
            model,
            photos,
            steps=options.steps,
            resume=training,
            progress=lambda done, _: tell(done, "training"),
            every=options.every,
            save=save,
        )
    recent = training.losses[-options.every :]
    yield "masker   ", f"{options.out}, for {model.name}"
    yield "trained  ", f"{training.done} steps on {len(files)} photographs"
    if recent:
        yield "loss     ", f"{sum(recent) / len(recent):.3f}, the mean of the last {len(recent)} steps"


@dataclass
class Album:
    """Photographs as the model sees them, read when they are needed.

    Attributes:
        files: of the photographs.
        model: whose preprocessing they go through.
    """

    files: Sequence[Path]
    model: fm.Classifier
    _kept: dict[int, Tensor] = field(default_factory=dict)
    _bytes: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Float[Tensor, "c h w"]:
        """One of them.

        Raises:
            ImageError: for a file that has become unreadable.
        """
        return self._kept[index] if index in self._kept else self.read(index)[0]

    def read(self, index: int) -> tuple[Float[Tensor, "c h w"], str]:
        """One of them, and the SHA-256 of its file; stays in memory if there is room."""
        file = self.files[index]
        photo = read_photo(Job(file, file.parent), self.model)
        image = photo.image[0]
        if index not in self._kept and self._bytes + image.nbytes <= KEPT:
            self._kept[index] = image
            self._bytes += image.nbytes
        return image, photo.digest


def _files(paths: Sequence[Path]) -> list[Path]:
    if not paths:
        raise UserError("no photographs are given; give image files, or folders of them")
    files, failures = find_files(paths)
    if failures:
        raise UserError(failures[0].message)
    return files


def _check_place(options: MaskerOptions) -> None:
    """See that the file can be written, and that nothing is lost by it."""
    out = options.out
    if options.resume and options.overwrite:
        raise UserError("--resume goes on with a training, --overwrite forgets it; give one of them")
    if options.resume and not out.exists():
        raise UserError(f"{out}: there is no training to go on with; leave out --resume, or give its file as --out")
    if os.path.lexists(out) and not out.is_file():
        raise UserError(f"{out}: is no file; give another --out")
    if os.path.lexists(out) and not (options.resume or options.overwrite):
        raise UserError(f"{out} exists; give --resume to go on with it, --overwrite to replace it, or another --out")
    if os.path.lexists(out) and options.overwrite:
        try:
            read_training(out)
        except ValueError as error:
            raise UserError(f"{out} is no masker of faithmap and is not replaced; move it, or give another --out") from error
    probe = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({os_problem(error)}); give another --out") from error


def _settings(options: MaskerOptions) -> MaskerSettings:
    with blaming_the_user():
        return MaskerSettings(
            channels=options.channels,
            batch=options.batch,
            learning_rate=options.learning_rate,
            area=options.area,
            seed=options.seed,
        )


def _told(photos: Album, progress: Callable[[int], None]) -> str:
    """What tells these photographs, in this order, from others; every file is read once, before any step is taken.

    Raises:
        UserError: for a file that is no image, or images of several sizes.
    """
    digest = hashlib.sha256()
    sizes: dict[tuple[int, ...], Path] = {}
    for index, file in enumerate(photos.files):
        with blaming_the_user():
            image, of_file = photos.read(index)
        sizes.setdefault(tuple(image.shape[-2:]), file)
        if len(sizes) > 1:
            (one, first), (other, second) = sizes.items()
            sides = f"{first} is {one[0]} x {one[1]} to the model and {second} {other[0]} x {other[1]}"
            raise UserError(f"{sides}; give photographs of one size")
        digest.update(of_file.encode())
        progress(index + 1)
    return digest.hexdigest()


def _started(before: Training | None, settings: MaskerSettings, photos: Album, told: str, options: MaskerOptions) -> Training:
    """The training that goes on, if it is the one that was asked for; else a new one.

    Raises:
        UserError: for a training that began otherwise, or is further than that.
    """
    if before is None:
        with blaming_the_user(), undisturbed(photos.model):
            training = begin(photos.model, photos, settings)
        training.photos = told
        return training
    for name in ("channels", "batch", "learning_rate", "area", "seed"):
        began = getattr(before.settings, name)
        if getattr(settings, name) != began:
            raise UserError(f"{options.out}: the training began with --{name.replace('_', '-')} {began}; give that again")
    if before.photos != told:
        raise UserError(f"{options.out}: the training began with other photographs; give those again, or another --out")
    if before.done > options.steps:
        raise UserError(f"{options.out}: has done {before.done} steps already; give --steps above {options.steps}")
    return before
