"""Compare: several methods on the same images, with deletion and insertion at one resolution."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from faithmap.errors import user_errors
from faithmap.explanation import Explanation
from faithmap.methods import Explainer
from faithmap.metrics import DeletionInsertion, deletion_insertion
from faithmap.model import Classifier
from faithmap.studies.base import (
    EXPLAIN_SHARE,
    InputImage,
    MethodProgress,
    Study,
    explained_class,
    has_resolution,
    make_explainers,
)
from faithmap.studies.result_folder import StudyProgress
from faithmap.studies.result_record import ClassRecord, CurveAreas, ImageStudyRecord, PassCounts, ProtocolRecord
from faithmap.studies.settings import CompareSettings, ExplainSettings
from faithmap.viz import compare, save_figure
from faithmap.warning_types import recorded

RANDOM = "random"
"""Name of the random map among the methods."""


@dataclass(frozen=True)
class CompareResult:
    """All methods on one image.

    Attributes:
        image: that was explained.
        explanations: by method, at the method's own resolution; the last one is a random map.
        curves: deletion and insertion curves by method, at the shared resolution.
        seconds: that explaining took, by method; the random map has none.
    """

    image: InputImage
    explanations: Mapping[str, Explanation]
    curves: Mapping[str, DeletionInsertion]
    seconds: Mapping[str, float]


@dataclass
class CompareStudy(Study[CompareSettings, CompareResult]):
    """Compares methods.

    Attributes:
        explainers: the methods, by name.
    """

    explainers: Mapping[str, Explainer]

    @classmethod
    def for_model(cls, settings: CompareSettings, model: Classifier, target: int | None) -> CompareStudy:
        """Prepare the methods for a model that is already loaded."""
        with user_errors():
            explainers = make_explainers(model, [_method_settings(name, settings) for name in settings.methods])
        return cls(settings, model, target, explainers)

    def analyse(self, image: InputImage, progress: StudyProgress) -> CompareResult:
        """Explain the image by every method, and evaluate each map; all methods explain the class of the first."""
        file, share = image.job.file.name, 1 / len(self.explainers)
        explanations, curves, seconds = {}, {}, {}
        target = self.target
        for i, (name, explainer) in enumerate(self.explainers.items()):
            activity = f"explaining {file} by {explainer.title}"
            progress(i * share, activity)
            started = time.perf_counter()
            reported = MethodProgress(progress, activity, image, target, i * share, EXPLAIN_SHARE * share)
            explanations[name] = self.explain(explainer, [image], target, reported)
            seconds[name] = time.perf_counter() - started
            target = explained_class(explanations[name])
            progress((i + EXPLAIN_SHARE) * share, f"evaluating deletion and insertion of {file} by {explainer.title}")
            with recorded() as messages:
                curves[name] = self.evaluate(image, explanations[name])
            image = image.with_warnings(messages)
        if target is None:
            raise ValueError("no method is given; give at least one")
        explanations[RANDOM] = self.random_map(image, (self.settings.resolution, self.settings.resolution), target)
        with recorded():  # the same as of the methods
            curves[RANDOM] = self.evaluate(image, explanations[RANDOM])
        return CompareResult(image, explanations, curves, seconds)

    def shared_cells(self, explanation: Explanation) -> Float[Tensor, "1 r c"]:
        """A map at the resolution of the comparison."""
        size = (self.settings.resolution, self.settings.resolution)
        return explanation.cells if explanation.resolution == size else explanation.at(size)

    def evaluate(self, image: InputImage, explanation: Explanation) -> DeletionInsertion:
        """The deletion and insertion curves at the resolution of the comparison."""
        cells = self.shared_cells(explanation).to(image.image)
        return deletion_insertion(self.model, image.image, cells, explanation.target, chunk_size=self.settings.chunk)

    def record(self, result: CompareResult) -> CompareRecord:
        """The content of result.json."""
        return CompareRecord.of(result, self.model, self.settings.seed)

    def write_files(self, result: CompareResult, folder: Path) -> None:
        """Draw the methods side by side; the areas of the random map are in the title."""
        pairs = {map_.title: (map_, result.curves[name]) for name, map_ in result.explanations.items() if name != RANDOM}
        figure = compare(
            result.image.image, pairs, photo=result.image.original(), geometry=self.model.geometry, labels=self.model.labels
        )
        random = CurveAreas.of(result.curves[RANDOM])
        title = figure.texts[-1]
        title.set_text(f"{title.get_text()}; a random map: {random.deletion:.3f} and {random.insertion:.3f}")
        save_figure(figure, folder / "comparison.png")


def _method_settings(name: str, settings: CompareSettings) -> ExplainSettings:
    """One method's settings: the resolution of the comparison where it is a setting."""
    resolution = settings.resolution if has_resolution(name) else None
    return ExplainSettings(method=name, resolution=resolution, chunk=settings.chunk, seed=settings.seed, set=settings.set)


@dataclass(frozen=True)
class ComparedMethod:
    """One method of a comparison."""

    settings: Mapping[str, Any]
    resolution: tuple[int, int]
    scores: CurveAreas
    passes: PassCounts
    seconds: float | None


@dataclass(frozen=True)
class CompareRecord(ImageStudyRecord):
    """Everything that is needed to repeat the comparison, and the scores of every method."""

    schema: ClassVar[str] = "faithmap.comparison/1"
    summary_keys: ClassVar[tuple[str, ...]] = ("target", "methods", "warnings")

    target: ClassRecord
    protocol: ProtocolRecord
    methods: Mapping[str, ComparedMethod]

    @classmethod
    def of(cls, result: CompareResult, model: Classifier, seed: int) -> CompareRecord:
        """Describe a result."""
        warned = (w for map_ in result.explanations.values() for d in map_.diagnostics for w in d.get("warnings", ()))
        methods = {
            name: ComparedMethod(
                explanation.settings,
                explanation.resolution,
                CurveAreas.of(result.curves[name]),
                PassCounts.of(explanation.diagnostics[0] if explanation.diagnostics else {}),
                result.seconds.get(name),
            )
            for name, explanation in result.explanations.items()
        }
        return cls(
            source=result.image.source(model, seed),
            warnings=result.image.with_warnings(list(warned)).warnings,
            target=ClassRecord.of(explained_class(result.explanations[RANDOM]), model),
            protocol=ProtocolRecord.of(result.curves[RANDOM]),
            methods=methods,
        )

    def summary_lines(self, folder: Path) -> Iterator[tuple[str, str]]:
        """The summary for people: a table of all methods."""
        width = max(map(len, self.methods)) + 4
        yield "", f"{self.source.file.path}: {self.target.label}"
        yield "  " + "method".ljust(width), "deletion  insertion  difference  forwards  backwards  seconds"
        for name, method in self.methods.items():
            areas = f"{method.scores.deletion:8.3f}  {method.scores.insertion:9.3f}  {method.scores.difference:10.3f}"
            cost = (
                ""
                if method.seconds is None
                else f"  {method.passes.forward:8}  {method.passes.backward:9}  {method.seconds:7.1f}"
            )
            yield "  " + name.ljust(width), areas + cost
        yield "  picture".ljust(width + 2), str(folder / "comparison.png")
