"""Compare: several methods on the same images, or one with several settings or resolutions, with deletion and insertion."""

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
from faithmap.methods.registry import MethodVariant
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
    options_of,
)
from faithmap.studies.result_folder import StudyProgress
from faithmap.studies.result_record import (
    BothCurves,
    ClassRecord,
    CurveAreas,
    ImageStudyRecord,
    PassCounts,
    ProtocolRecord,
)
from faithmap.studies.settings import CompareSettings, ExplainSettings
from faithmap.viz import compare, save_figure
from faithmap.warning_types import recorded

RANDOM = "random"
"""Name of the random map among the methods; ``random@14`` is that of another resolution than the shared one."""


@dataclass(frozen=True)
class CompareResult:
    """All methods on one image.

    Attributes:
        image: that was explained.
        explanations: by entry, at the method's own resolution; the last ones are random maps.
        curves: deletion and insertion curves by entry, at the resolution of the entry.
        seconds: that explaining took, by entry; the random maps have none.
    """

    image: InputImage
    explanations: Mapping[str, Explanation]
    curves: Mapping[str, DeletionInsertion]
    seconds: Mapping[str, float]


@dataclass
class CompareStudy(Study[CompareSettings, CompareResult]):
    """Compares methods.

    Attributes:
        entries: the methods with their own resolutions and settings, by their texts.
        explainers: the methods, by the same texts.
    """

    entries: Mapping[str, MethodVariant]
    explainers: Mapping[str, Explainer]

    @classmethod
    def for_model(cls, settings: CompareSettings, model: Classifier, target: int | None) -> CompareStudy:
        """Prepare the methods for a model that is already loaded."""
        with user_errors():
            entries = {str(entry): entry for entry in map(MethodVariant.parse, settings.methods)}
            chosen = {text: _method_settings(entry, settings) for text, entry in entries.items()}
            explainers = make_explainers(model, chosen, settings.set)
        return cls(settings, model, target, entries, explainers)

    @property
    def shared_resolution(self) -> tuple[int, int]:
        """Of the entries that have none of their own."""
        return (self.settings.resolution, self.settings.resolution)

    @property
    def random_maps(self) -> Mapping[str, tuple[int, int]]:
        """Name and resolution of one random map for every resolution of the entries."""
        sizes = dict.fromkeys(entry.resolution or self.shared_resolution for entry in self.entries.values())
        return {self.random_name(size): size for size in sizes}

    def random_name(self, size: tuple[int, int] | None) -> str:
        """Name of the random map of an entry's own resolution, or of the shared one."""
        return RANDOM if size in (None, self.shared_resolution) else str(MethodVariant(RANDOM, size))

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
                curves[name] = self.evaluate(image, explanations[name], self.entries[name].resolution)
            image = image.with_warnings(messages)
        if target is None:
            raise ValueError("no method is given; give at least one")
        for name, size in self.random_maps.items():
            explanations[name] = self.random_map(image, size, target)
            with recorded():  # the same as of the methods
                curves[name] = self.evaluate(image, explanations[name], size)
        return CompareResult(image, explanations, curves, seconds)

    def shared_cells(self, explanation: Explanation, size: tuple[int, int] | None = None) -> Float[Tensor, "1 r c"]:
        """A map at a resolution; None for the shared one of the comparison."""
        size = size or self.shared_resolution
        return explanation.cells if explanation.resolution == size else explanation.at(size)

    def ranked_cells(self, explanation: Explanation, size: tuple[int, int] | None) -> Float[Tensor, "1 r c"]:
        """The cells that are deleted and inserted, at an entry's own resolution, or at the shared one of the comparison.

        A map that has the entry's own resolution is ranked by its cells as they are.
        """
        return explanation.heatmap if explanation.resolution == size else self.shared_cells(explanation, size)

    def evaluate(self, image: InputImage, explanation: Explanation, size: tuple[int, int] | None = None) -> DeletionInsertion:
        """The deletion and insertion curves of :meth:`ranked_cells`."""
        cells = self.ranked_cells(explanation, size).to(image.image)
        return deletion_insertion(self.model, image.image, cells, explanation.target, chunk_size=self.settings.chunk)

    def record(self, result: CompareResult) -> CompareRecord:
        """The content of result.json."""
        return CompareRecord.of(result, self.model, self.settings.seed)

    def write_files(self, result: CompareResult, folder: Path) -> None:
        """Draw the methods side by side, with the curves of the random maps."""
        pairs = {
            entry_title(entry, result.explanations[text]): (result.explanations[text], result.curves[text])
            for text, entry in self.entries.items()
        }
        figure = compare(
            result.image.image,
            pairs,
            photo=result.image.original(),
            geometry=self.model.geometry,
            labels=self.model.labels,
            parts=self.settings.parts,
            references=[result.curves[name] for name in self.random_maps],
        )
        save_figure(figure, folder / "comparison.png")


def _method_settings(entry: MethodVariant, settings: CompareSettings) -> ExplainSettings:
    """One method's settings: the resolution of the entry, or that of the comparison, where it is a setting."""
    shared = settings.resolution if has_resolution(entry.name) else None
    resolution = entry.resolution if "resolution" in options_of(entry.name) else None
    return ExplainSettings(
        method=entry.name, resolution=resolution or shared, chunk=settings.chunk, seed=settings.seed, set=entry.settings
    )


def entry_title(entry: MethodVariant, explanation: Explanation) -> str:
    """The method with the resolution and the settings of its own, which tell two entries of one method apart."""
    rows, columns = entry.resolution or (0, 0)
    size = "" if entry.resolution is None else f", {rows} \N{MULTIPLICATION SIGN} {columns}"
    return "\n".join([f"{explanation.title}{size}", ", ".join(entry.settings)]).rstrip()


@dataclass(frozen=True)
class ComparedMethod:
    """One method of a comparison: the resolution of its own map, and that at which the map was evaluated."""

    settings: Mapping[str, Any]
    resolution: tuple[int, int]
    evaluated_at: tuple[int, int]
    scores: CurveAreas
    curves: BothCurves
    passes: PassCounts
    seconds: float | None


@dataclass(frozen=True)
class CompareRecord(ImageStudyRecord):
    """Everything that is needed to repeat the comparison, and the scores of every method.

    ``protocol`` is that of the first method; those of methods with another ``evaluated_at`` differ in resolution and steps.
    """

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
                result.curves[name].resolution,
                CurveAreas.of(result.curves[name]),
                BothCurves.of(result.curves[name]),
                PassCounts.of(explanation.diagnostics[0] if explanation.diagnostics else {}),
                result.seconds.get(name),
            )
            for name, explanation in result.explanations.items()
        }
        return cls(
            source=result.image.source(model, seed),
            warnings=result.image.with_warnings(list(warned)).warnings,
            target=ClassRecord.of(explained_class(next(iter(result.explanations.values()))), model),
            protocol=ProtocolRecord.of(next(iter(result.curves.values()))),
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
