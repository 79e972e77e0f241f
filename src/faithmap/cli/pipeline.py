"""From files to result folders, a few images at a time: the part of ``faithmap explain`` that needs torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.cli.errors import UserError, blaming_memory, blaming_the_user, os_problem
from faithmap.cli.explain import Options
from faithmap.cli.inputs import Photo, read_photo
from faithmap.cli.methods import make_explainer
from faithmap.cli.pictures import draw
from faithmap.cli.record import Findings, describe_findings
from faithmap.cli.report import Bar, Done, Failed, Outcome, Tell
from faithmap.cli.results import Job, write_record
from faithmap.cli.runner import open_model, run
from faithmap.files import complete_or_absent
from faithmap.methods.base import Progress
from faithmap.warning_types import suppressed

TOGETHER = 8
"""Images explained at once on an accelerator. On a processor one fills a pass, and more together are no faster."""


def explain_files(paths: Sequence[Path], options: Options, bar: Bar) -> Generator[Outcome, None, None]:
    """Explain images and write their results, one outcome after the other.

    Raises:
        UserError: see :func:`run`.
    """
    return run(paths, options, lambda: Session.open(options), bar)


@dataclass
class Session:
    """A model and what is asked of it.

    Attributes:
        options: as the user gave them.
        model: loaded once.
        explainer: around the model.
        target: the class to explain; None for each image's own.
        proven: whether an image was explained, so that the settings cannot be what is wrong.
    """

    options: Options
    model: fm.Classifier
    explainer: fm.Explainer
    target: int | None
    proven: bool = False

    @classmethod
    def open(cls, options: Options) -> Session:
        """Load the model and set up the method.

        Raises:
            UserError: for a model, weights, device, class or setting that does not exist.
        """
        return cls.around(options, *open_model(options))

    @classmethod
    def around(cls, options: Options, model: fm.Classifier, target: int | None) -> Session:
        """Set up the method for a model that is there already.

        Raises:
            UserError: for a setting that does not exist.
        """
        with blaming_the_user():
            return cls(options, model, make_explainer(model, options), target)

    @property
    def together(self) -> int:
        """Images that are explained at once."""
        return 1 if self.model.device.type == "cpu" else min(TOGETHER, self.options.chunk)

    def do(self, jobs: Sequence[Job], tell: Tell) -> list[Outcome]:
        """Read, explain and write a few images.

        Raises:
            UserError: where no image can be explained with these settings, or results cannot be written.
        """
        outcomes: list[Outcome] = []
        photos = []
        for job in jobs:
            try:
                photos.append(read_photo(job, self.model))
            except fm.ImageError as error:
                outcomes.append(Failed(job.file, str(error)))
        with blaming_memory("--chunk", self.options.chunk):
            for _, group in groupby(photos, key=lambda photo: photo.image.shape):
                outcomes += self._explain_alike(list(group), tell)
        return outcomes

    def _explain_alike(self, photos: Sequence[Photo], tell: Tell) -> list[Outcome]:
        """The same for images of one size, in one call of the explainer."""
        name, share = photos[0].job.file.name, 0.9 * len(photos)
        tell(0, f"explaining {name}")
        started = time.perf_counter()
        images = torch.cat([photo.image for photo in photos])
        try:
            why = self.why(images, photos, lambda done, total: tell(share * done / total, f"explaining {name}"))
        except (ValueError, ModuleNotFoundError) as error:
            if not self.proven:
                raise UserError(error) from error
            return [Failed(photo.job.file, f"{photo.job.file}: {error}") for photo in photos]
        self.proven = True
        probabilities = self.probabilities(images)
        seconds = (time.perf_counter() - started) / len(photos)
        outcomes = []
        for i, photo in enumerate(photos):
            tell(share + 0.1 * i, f"playing deletion and insertion of {photo.job.file.name}")
            outcomes.append(self._finish(photo, why[i], probabilities[i], seconds, partial(tell, share + 0.1 * i + 0.05)))
        return outcomes

    def why(self, images: Float[Tensor, "n c h w"], photos: Sequence[Photo], progress: Progress) -> fm.Explanation:
        """Ask the explainer; what it warns of stands in the diagnostics, image by image."""
        generators = fm.image_generators(self.options.seed, [photo.index for photo in photos], self.model.device)
        with suppressed():
            return self.explainer(images, self.target, generator=generators, progress=progress)

    def _finish(
        self,
        photo: Photo,
        why: fm.Explanation,
        probabilities: Float[Tensor, " classes"],
        seconds: float,
        say: Callable[[str], None],
    ) -> Outcome:
        """Hold the heatmap against a random one, and write everything down."""
        try:
            found = self.prove(photo, why, probabilities, seconds)
        except ValueError as error:
            return Failed(photo.job.file, f"{photo.job.file}: {error}")
        say(f"drawing the pictures of {photo.job.file.name}")
        return self.write(found)

    def prove(
        self,
        photo: Photo,
        why: fm.Explanation,
        probabilities: Float[Tensor, " classes"],
        seconds: float,
        progress: Progress | None = None,
    ) -> Findings:
        """Play both games with the heatmap, and with a random one.

        Args:
            photo: what was explained.
            why: its explanation.
            probabilities: of all classes.
            seconds: that explaining took.
            progress: called between the games.

        Raises:
            ValueError: where the heatmap cannot be played with.
        """
        started = time.perf_counter()
        proof, chance = (self._play(photo, heatmap, progress) for heatmap in (why, self._random(photo, why)))
        spent = {"explaining": seconds, "deletion_and_insertion": time.perf_counter() - started}
        return Findings(photo, why, proof, chance, probabilities, spent)

    def write(self, found: Findings) -> Done:
        """Write the result folder of one image.

        Raises:
            UserError: where it cannot be written.
        """
        record, folder = describe_findings(found, self.model, self.options.seed), found.photo.job.folder
        try:
            with complete_or_absent(folder, overwrite=self.options.overwrite) as aside:
                draw(aside, found, self.model, self.options)
                np.save(aside / "heatmap.npy", found.why.heatmap[0].cpu().float().numpy())
                write_record(aside, record)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({os_problem(error)}); give another --out") from error
        return Done(folder, record)

    def _play(self, photo: Photo, why: fm.Explanation, progress: Progress | None) -> fm.DeletionInsertion:
        protocol, chunk = self.options.protocol, self.options.chunk
        return fm.deletion_insertion(self.model, photo.image, why, protocol=protocol, chunk_size=chunk, progress=progress)

    def _random(self, photo: Photo, why: fm.Explanation) -> fm.Explanation:
        """A map of chance, from random numbers that the explainer did not see."""
        (generator,) = fm.image_generators(self.options.seed, [~photo.index])
        noise = torch.rand(why.heatmap.shape, generator=generator).to(why.heatmap)
        return fm.Explanation.from_array(noise, why.image_size, target=why.target, method="random")

    @torch.no_grad()
    def probabilities(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Of all classes, on the processor."""
        logits = torch.cat([self.model(chunk) for chunk in images.split(self.options.chunk)])
        return logits.softmax(dim=1).cpu()
