"""From files to walks along their paths: the part of ``faithmap saturation`` that needs torch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faithmap as fm
from faithmap.cli.alone import Alone, Drawn
from faithmap.cli.errors import UserError, blaming_the_user
from faithmap.cli.explain import Options
from faithmap.cli.inputs import Photo
from faithmap.cli.methods import make_explainer
from faithmap.cli.record import areas_of, described_photo, document
from faithmap.cli.report import Bar, Outcome, Tell
from faithmap.cli.results import SATURATION
from faithmap.cli.runner import open_model, run
from faithmap.cli.saturation import SaturationOptions
from faithmap.methods.cams import LayerExplainer, Saturation, saturation, top_features
from faithmap.viz import compare, saturation_curves, save_figure

Features = dict[str, tuple[fm.Explanation, fm.DeletionInsertion]]


def walk_files(paths: Sequence[Path], options: SaturationOptions, bar: Bar) -> Generator[Outcome, None, None]:
    """Walk to each image and write the results, one outcome after the other.

    Raises:
        UserError: see :func:`run`.
    """
    return run(paths, options, lambda: Walks.open(options), bar)


@dataclass(frozen=True)
class Walks(Alone):
    """Walks to one image after the other, and the methods whose channels are compared there."""

    options: SaturationOptions

    @classmethod
    def open(cls, options: SaturationOptions) -> Walks:
        """Load the model and set up the methods.

        Raises:
            UserError: for a model, weights, device, class, layer or method that does not exist or has no layer.
        """
        return cls.around(options, *open_model(options))

    @classmethod
    def around(cls, options: SaturationOptions, model: fm.Classifier, target: int | None) -> Walks:
        """Set up the methods for a model that is there already.

        Raises:
            UserError: for a setting, layer or method that does not exist or has no layer.
        """
        with blaming_the_user():
            explainers = {name: make_explainer(model, _options(name, options)) for name in options.methods}
        one_layer: dict[str, fm.Explainer] = {}
        for name, explainer in explainers.items():
            if not isinstance(explainer, LayerExplainer):
                raise UserError(f"{name} looks at no layer, whose channels could be compared; give class activation maps")
            one_layer[name] = replace(explainer, scales=1)  # the walk's; channels of several layers cannot be compared
        return cls(options, model, one_layer, target)

    def _found(self, photo: Photo, tell: Tell) -> tuple[dict[str, Any], Drawn]:
        """The walk, and what each method's channels show."""
        tell(0, f"walking to {photo.job.file.name}")
        return self.result(photo, self.walk(photo), self.features(photo, tell))

    def result(self, photo: Photo, walk: Saturation, features: Features) -> tuple[dict[str, Any], Drawn]:
        """The record, and what draws the pictures."""
        return self._record(photo, walk, features), lambda folder: self._draw(photo, walk, features, folder)

    def walk(self, photo: Photo) -> Saturation:
        """The path from the baseline to the photograph."""
        layer, start, chunk = self.options.target_layer, self.options.baseline, self.options.chunk
        return saturation(self.model, photo.image, self.target, target_layer=layer, baseline=start, chunk_size=chunk)

    def _draw(self, photo: Photo, walk: Saturation, features: Features, folder: Path) -> None:
        save_figure(saturation_curves(walk).figure.get_figure(root=True), folder / "saturation.png")
        figure = compare(photo.image, features, photo=photo.decode(), geometry=self.model.geometry, labels=self.model.labels)
        save_figure(figure, folder / "features.png")

    def features(self, photo: Photo, tell: Tell) -> Features:
        """What each method's most important channels show, and both games with it."""
        found: Features = {}
        for i, name in enumerate(self.explainers):
            tell((1 + i) / (1 + len(self.explainers)), f"explaining {photo.job.file.name} by {name}")
            found[name] = self.feature(name, photo)
        return found

    def feature(self, name: str, photo: Photo) -> tuple[fm.Explanation, fm.DeletionInsertion]:
        """The same of one method."""
        why = self.why(name, photo, self.target)
        top = top_features(self.model, photo.image, why, self.options.channels, chunk_size=self.options.chunk)
        return top, fm.deletion_insertion(self.model, photo.image, top, chunk_size=self.options.chunk)

    def _record(self, photo: Photo, walk: Saturation, features: Features) -> dict[str, Any]:
        first = next(iter(features.values()))[0]
        index = None if first.target is None else int(first.target[0])
        path = {name: getattr(walk, name).flatten().tolist() for name in ("positions", "score", "similarity", "gradient_norm")}
        record = {
            "schema": SATURATION,
            **described_photo(photo, self.model, self.options.seed),
            "target": {"index": index, "label": None if index is None else self.model.label(index)},
            "target_layer": walk.target_layer,
            "baseline": self.options.baseline,
            "saturated": float(walk.share()[0]),
            "path": path,
            "features": {name: areas_of(proof) for name, (_, proof) in features.items()},
            "warnings": list(photo.warnings),
        }
        return document(record)


def _options(name: Any, options: SaturationOptions) -> Options:
    return Options(method=name, target_layer=options.target_layer, chunk=options.chunk, seed=options.seed)
