"""What every command over photographs does around its work: files, folders, progress, outcomes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Protocol

import faithmap as fm
from faithmap.cli.errors import blaming_the_user
from faithmap.cli.inputs import find_files
from faithmap.cli.report import Bar, Outcome, Tell, starting_at
from faithmap.cli.results import Job, check, output_folder, plan
from faithmap.data import sample_photo


class Work(Protocol):
    """What is done with a few files at a time."""

    @property
    def together(self) -> int:
        """How many."""

    def do(self, jobs: Sequence[Job], tell: Tell) -> list[Outcome]:
        """Read, compute and write, one outcome for each job."""


class Place(Protocol):
    """The options that say where results go."""

    @property
    def out(self) -> Path:
        """The folder for all of them."""

    @property
    def overwrite(self) -> bool:
        """Whether older ones are replaced."""


class Asked(Protocol):
    """The options that say which class of which model is asked about."""

    @property
    def model(self) -> str:
        """By name."""

    @property
    def weights(self) -> Path | None:
        """A checkpoint file."""

    @property
    def device(self) -> str | None:
        """Where to compute."""

    @property
    def target(self) -> str | None:
        """The class, by name or number."""


def open_model(options: Asked) -> tuple[fm.Classifier, int | None]:
    """The model, and the class that is asked about; None for the one that it predicts.

    Raises:
        UserError: for a model, weights, device or class that does not exist.
    """
    with blaming_the_user():
        model = fm.load(options.model, weights=options.weights, device=options.device)
        return model, None if options.target is None else model.find(options.target)


def run(paths: Sequence[Path], options: Place, open_work: Callable[[], Work], bar: Bar) -> Generator[Outcome, None, None]:
    """Do the work on the files that the paths stand for, one outcome after the other.

    Args:
        paths: as the user gave them; none stand for the photograph that comes with faithmap.
        options: as the user gave them.
        open_work: loads what the work needs, after everything that can be refused without it has been.
        bar: draws progress.

    Raises:
        UserError: for what makes all of it impossible; before anything is computed, where that can be known so early.
    """
    files, failures = find_files(paths or [sample_photo()])
    jobs = plan(files, options.out)
    check(jobs, overwrite=options.overwrite)
    yield from failures
    if not jobs:
        return
    with output_folder(options.out):
        work = open_work()
        for start in range(0, len(jobs), work.together):
            with bar(len(jobs)) as tell:
                outcomes = work.do(jobs[start : start + work.together], starting_at(start, tell))
            yield from outcomes
