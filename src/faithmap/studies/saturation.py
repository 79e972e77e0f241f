"""Saturation: where along the path from a baseline to an image the score stops changing, and the most important channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from faithmap.errors import UserError, user_errors
from faithmap.explanation import Explanation
from faithmap.methods.cams import LayerExplainer, Saturation, saturation, top_features
from faithmap.metrics import DeletionInsertion, deletion_insertion
from faithmap.model import Classifier
from faithmap.studies.base import InputImage, MethodProgress, Study, explained_class, make_explainers
from faithmap.studies.result_folder import StudyProgress
from faithmap.studies.result_record import ClassRecord, CurveAreas, ImageStudyRecord
from faithmap.studies.settings import ExplainSettings, SaturationSettings
from faithmap.viz import compare, saturation_curves, save_figure
from faithmap.warning_types import recorded


@dataclass(frozen=True)
class SaturationResult:
    """The path to one image, and the most important channels of each method.

    Attributes:
        image: that was studied.
        path: score, similarity and gradient norm along the path.
        features: by method, the map of its most important channels, and its deletion and insertion curves.
    """

    image: InputImage
    path: Saturation
    features: Mapping[str, tuple[Explanation, DeletionInsertion]]


@dataclass
class SaturationStudy(Study[SaturationSettings, SaturationResult]):
    """Measures saturation.

    Attributes:
        explainers: the class activation maps, by name, each at one layer.
    """

    explainers: Mapping[str, LayerExplainer]

    @classmethod
    def for_model(cls, settings: SaturationSettings, model: Classifier, target: int | None) -> SaturationStudy:
        """Prepare the methods for a model that is already loaded.

        Raises:
            UserError: for a method, layer or setting that does not exist, or a method without a target layer.
        """
        with user_errors():
            chosen = {name: _method_settings(name, settings) for name in settings.methods}
            made = make_explainers(model, chosen, settings.set)
        explainers = {}
        for name, explainer in made.items():
            if not isinstance(explainer, LayerExplainer):
                raise UserError(f"{name} has no target layer, whose channels could be compared; give class activation maps")
            explainers[name] = replace(explainer, scales=1)  # channels of several layers cannot be compared
        return cls(settings, model, target, explainers)

    def analyse(self, image: InputImage, progress: StudyProgress) -> SaturationResult:
        """Follow the path to the image, and find the most important channels of every method."""
        file, share = image.job.file.name, 1 / (1 + len(self.explainers))
        settings, features = self.settings, {}
        progress(0, f"following the path to {file}")
        with recorded() as messages:
            path = saturation(
                self.model,
                image.image,
                self.target,
                target_layer=settings.target_layer,
                baseline=settings.baseline,
                chunk_size=settings.chunk,
            )
        image = image.with_warnings(messages)
        for i, (name, explainer) in enumerate(self.explainers.items()):
            activity = f"explaining {file} by {explainer.title}"
            progress((1 + i) * share, activity)
            reported = MethodProgress(progress, activity, image, self.target, (1 + i) * share, share)
            explanation = self.explain(explainer, [image], self.target, reported)
            with recorded() as messages:
                top = top_features(self.model, image.image, explanation, settings.channels, chunk_size=settings.chunk)
                curves = deletion_insertion(self.model, image.image, top, chunk_size=settings.chunk)
            features[name], image = (top, curves), image.with_warnings(messages)
        return SaturationResult(image, path, features)

    def record(self, result: SaturationResult) -> SaturationRecord:
        """The content of result.json."""
        return SaturationRecord.of(result, self.model, self.settings)

    def write_files(self, result: SaturationResult, folder: Path) -> None:
        """Draw the curves along the path, and the most important channels of every method."""
        save_figure(saturation_curves(result.path).figure.get_figure(root=True), folder / "saturation.png")
        original, model = result.image.original(), self.model
        features = {top.title: (top, curves) for top, curves in result.features.values()}
        figure = compare(result.image.image, features, photo=original, geometry=model.geometry, labels=model.labels)
        save_figure(figure, folder / "features.png")


def _method_settings(name: str, settings: SaturationSettings) -> ExplainSettings:
    return ExplainSettings(method=name, target_layer=settings.target_layer, chunk=settings.chunk, seed=settings.seed)


@dataclass(frozen=True)
class PathRecord:
    """Measurements at each position of the path, from the baseline (0) to the image (1)."""

    positions: list[float]
    score: list[float]
    similarity: list[float]
    gradient_norm: list[float]


@dataclass(frozen=True)
class SaturationRecord(ImageStudyRecord):
    """Everything that is needed to repeat the measurement, and everything that was measured."""

    schema: ClassVar[str] = "faithmap.saturation/1"
    summary_keys: ClassVar[tuple[str, ...]] = ("target", "saturated", "features", "warnings")

    target: ClassRecord
    target_layer: str
    baseline: str
    saturated: float
    path: PathRecord
    features: Mapping[str, CurveAreas]

    @classmethod
    def of(cls, result: SaturationResult, model: Classifier, settings: SaturationSettings) -> SaturationRecord:
        """Describe a result."""
        path, (first, _) = result.path, next(iter(result.features.values()))
        return cls(
            source=result.image.source(model, settings.seed),
            warnings=tuple(result.image.warnings),
            target=ClassRecord.of(explained_class(first), model),
            target_layer=path.target_layer,
            baseline=settings.baseline,
            saturated=float(path.share()[0]),
            path=PathRecord(
                path.positions.tolist(),
                path.score.flatten().tolist(),
                path.similarity.flatten().tolist(),
                path.gradient_norm.flatten().tolist(),
            ),
            features={name: CurveAreas.of(curves) for name, (_, curves) in result.features.items()},
        )

    def summary_lines(self, folder: Path) -> Iterator[tuple[str, str]]:
        """The summary for people: the saturated share of the path, and the scores of every method's channels."""
        yield "", f"{self.source.file.path}: {self.target.label}"
        yield "  saturated       ", f"{100 * self.saturated:.0f} % of the path, at {self.target_layer}"
        for name, areas in self.features.items():
            yield f"  {name}  ", f"its top channels: insertion {areas.insertion:.3f}, deletion {areas.deletion:.3f}"
        yield "  pictures        ", str(folder)
