"""From files to comparisons, one image at a time: the part of ``faithmap compare`` that needs torch."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.cli.alone import Alone, Drawn
from faithmap.cli.compare import CompareOptions
from faithmap.cli.errors import blaming_the_user
from faithmap.cli.explain import Options
from faithmap.cli.inputs import Photo
from faithmap.cli.methods import has_resolution, make_explainer
from faithmap.cli.record import areas_of, describe_comparison
from faithmap.cli.report import Bar, Outcome, Tell
from faithmap.cli.runner import open_model, run
from faithmap.viz import compare, save_figure

CHANCE = "random"


def compare_files(paths: Sequence[Path], options: CompareOptions, bar: Bar) -> Generator[Outcome, None, None]:
    """Compare the methods on images and write the results, one outcome after the other.

    Raises:
        UserError: see :func:`run`.
    """
    return run(paths, options, lambda: Contest.open(options), bar)


@dataclass(frozen=True)
class Contest(Alone):
    """The methods, compared on one image after the other."""

    options: CompareOptions

    @classmethod
    def open(cls, options: CompareOptions) -> Contest:
        """Load the model and set up the methods.

        Raises:
            UserError: for a model, weights, device, class or setting that does not exist.
        """
        return cls.around(options, *open_model(options))

    @classmethod
    def around(cls, options: CompareOptions, model: fm.Classifier, target: int | None) -> Contest:
        """Set up the methods for a model that is there already.

        Raises:
            UserError: for a setting that does not exist.
        """
        with blaming_the_user():
            explainers = {name: make_explainer(model, _options(name, options)) for name in options.methods}
        return cls(options, model, explainers, target)

    def _found(self, photo: Photo, tell: Tell) -> tuple[dict[str, Any], Drawn]:
        """Every method's explanation and games, and those of chance."""
        whys, seconds = self._explained(photo, tell)
        proofs = {name: self.played(photo, why) for name, why in whys.items()}
        return self.result(photo, whys, proofs, seconds)

    def result(
        self,
        photo: Photo,
        whys: dict[str, fm.Explanation],
        proofs: dict[str, fm.DeletionInsertion],
        seconds: dict[str, float],
    ) -> tuple[dict[str, Any], Drawn]:
        """The record, and what draws the picture."""
        record = describe_comparison(photo, self.model, self.options.seed, whys, proofs, seconds)
        return record, lambda folder: self._draw(photo, whys, proofs, folder / "comparison.png")

    def _explained(self, photo: Photo, tell: Tell) -> tuple[dict[str, fm.Explanation], dict[str, float]]:
        """Every method's explanation of the same class, and a random map of the same resolution as the games."""
        target: Any = self.target
        whys, seconds = {}, {}
        for i, name in enumerate(self.explainers):
            tell(i / len(self.explainers), f"explaining {photo.job.file.name} by {name}")
            started = time.perf_counter()
            whys[name] = self.why(name, photo, target)
            seconds[name] = time.perf_counter() - started
            target = whys[name].target
        return {**whys, CHANCE: self.chance(photo, target)}, seconds

    def chance(self, photo: Photo, target: Any) -> fm.Explanation:
        """A random map of the resolution of the games."""
        (generator,) = fm.image_generators(self.options.seed, [~photo.index])
        side = self.options.resolution
        size = (photo.image.shape[-2], photo.image.shape[-1])
        noise = torch.rand(1, side, side, generator=generator)
        return fm.Explanation(noise, size, target=target, method="random")

    def cells(self, why: fm.Explanation) -> Float[Tensor, "1 r c"]:
        """A map at the resolution that all share."""
        side = self.options.resolution
        return why.cells if why.resolution == (side, side) else why.at((side, side))

    def played(self, photo: Photo, why: fm.Explanation) -> fm.DeletionInsertion:
        """Both games at the resolution that all share."""
        cells = self.cells(why).to(photo.image)
        return fm.deletion_insertion(self.model, photo.image, cells, why.target, chunk_size=self.options.chunk)

    def _draw(self, photo: Photo, whys: dict[str, fm.Explanation], proofs: dict[str, fm.DeletionInsertion], path: Path) -> None:
        """The methods on the photograph; what chance scores stands in the title."""
        pairs = {name: (why, proofs[name]) for name, why in whys.items() if name != CHANCE}
        figure = compare(photo.image, pairs, photo=photo.decode(), geometry=self.model.geometry, labels=self.model.labels)
        chance = areas_of(proofs[CHANCE])
        figure.texts[-1].set_text(
            f"{figure.texts[-1].get_text()}; a random map: {chance['deletion']:.3f} and {chance['insertion']:.3f}"
        )
        save_figure(figure, path)


def _options(name: Any, options: CompareOptions) -> Options:
    """One method's settings: the resolution where it has one."""
    resolution = options.resolution if has_resolution(name) else None
    return Options(method=name, resolution=resolution, chunk=options.chunk, seed=options.seed)
