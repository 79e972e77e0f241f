"""Work on one photograph at a time: what ``faithmap compare``, ``faithmap saturation`` and ``faithmap adversarial`` share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faithmap as fm
from faithmap.cli.adversarial import AdversarialOptions
from faithmap.cli.compare import CompareOptions
from faithmap.cli.errors import UserError, blaming_memory, os_problem
from faithmap.cli.inputs import Photo, read_photo
from faithmap.cli.report import Done, Failed, Outcome, Tell
from faithmap.cli.results import Job, write_record
from faithmap.cli.saturation import SaturationOptions
from faithmap.files import complete_or_absent
from faithmap.methods.base import Progress
from faithmap.warning_types import suppressed

Drawn = Callable[[Path], None]
"""Draws the pictures of a result into a folder."""


@dataclass(frozen=True)
class Alone(ABC):
    """A model, the methods, and the class that they explain; None for each image's own."""

    options: AdversarialOptions | CompareOptions | SaturationOptions
    model: fm.Classifier
    explainers: dict[str, fm.Explainer]
    target: int | None

    @property
    def together(self) -> int:
        """One image at a time: the methods are many."""
        return 1

    def do(self, jobs: Sequence[Job], tell: Tell) -> list[Outcome]:
        """Work on each image.

        Raises:
            UserError: where results cannot be written, or memory does not suffice.
        """
        return [self._one(job, tell) for job in jobs]

    @abstractmethod
    def _found(self, photo: Photo, tell: Tell) -> tuple[dict[str, Any], Drawn]:
        """The record of one image, and what draws its pictures."""

    def _one(self, job: Job, tell: Tell) -> Outcome:
        """Read one image, work on it, and write what came of it."""
        try:
            with blaming_memory("--chunk", self.options.chunk):
                record, draw = self._found(read_photo(job, self.model), tell)
        except fm.ImageError as error:
            return Failed(job.file, str(error))
        except (ValueError, ModuleNotFoundError) as error:
            return Failed(job.file, f"{job.file}: {error}")
        return self.write(job, record, draw)

    def write(self, job: Job, record: dict[str, Any], draw: Drawn) -> Done:
        """Write the result folder of one image.

        Raises:
            UserError: where it cannot be written.
        """
        try:
            with complete_or_absent(job.folder, overwrite=self.options.overwrite) as aside:
                draw(aside)
                write_record(aside, record)
        except OSError as error:
            raise UserError(f"{job.folder}: cannot be written ({os_problem(error)}); give another --out") from error
        return Done(job.folder, record)

    def why(self, name: str, photo: Photo, target: Any, progress: Progress | None = None) -> fm.Explanation:
        """Ask one method; what it warns of stands in the diagnostics."""
        generators = fm.image_generators(self.options.seed, [photo.index], self.model.device)
        with suppressed():
            return self.explainers[name](photo.image, target, generator=generators, progress=progress)
