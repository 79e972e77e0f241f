"""Explain: a heatmap of each image, the verdict of a jury, and deletion and insertion curves beside those of a random map."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.baselines import family_of
from faithmap.data import ImageError
from faithmap.errors import UserError, memory_errors, user_errors
from faithmap.explanation import Explanation
from faithmap.methods import Explainer
from faithmap.metrics import DeletionInsertion, JuryResult, deletion_insertion, evidence
from faithmap.metrics.functional import CONTROLS, PANELS, PROTOCOLS
from faithmap.model import Classifier
from faithmap.seeds import derived, image_generators
from faithmap.studies.base import (
    EXPLAIN_SHARE,
    InputImage,
    MethodProgress,
    Study,
    explained_class,
    make_explainer,
    read_input,
)
from faithmap.studies.result_folder import ImageJob, StudyFailed, StudyOutcome, StudyProgress, progress_part
from faithmap.studies.result_record import (
    BothCurves,
    ClassProbability,
    CurveAreas,
    ImageStudyRecord,
    PassCounts,
    ProtocolRecord,
)
from faithmap.studies.settings import ExplainSettings
from faithmap.viz import animation, flaw, overlay, placed, save_figure, save_image, show, strip
from faithmap.warning_types import recorded, suppressed

MAX_BATCH = 8
"""Images explained together on an accelerator. On a CPU one image fills a pass, and several are no faster."""

PREDICTED = 5
"""Number of most probable classes in the record."""


@dataclass(frozen=True)
class ExplainResult:
    """The explanation of one image.

    Attributes:
        image: that was explained.
        explanation: of one image.
        curves: deletion and insertion curves of the heatmap.
        random_curves: those of a random map of the same resolution.
        probabilities: of all classes.
        seconds: that each part of the work took.
        evidence: of the jury; None if none was asked.
    """

    image: InputImage
    explanation: Explanation
    curves: DeletionInsertion
    random_curves: DeletionInsertion
    probabilities: Float[Tensor, " classes"]
    seconds: Mapping[str, float]
    evidence: JuryResult | None = None


@dataclass
class ExplainStudy(Study[ExplainSettings, ExplainResult]):
    """Explains images with one method.

    Attributes:
        explainer: the method.
    """

    explainer: Explainer
    _explained: bool = field(default=False, init=False)  # afterwards a ValueError is caused by an image, not by the settings

    @classmethod
    def for_model(cls, settings: ExplainSettings, model: Classifier, target: int | None) -> ExplainStudy:
        """Prepare the method for a model that is already loaded."""
        with user_errors():
            return cls(settings, model, target, make_explainer(model, settings))

    @property
    def batch_size(self) -> int:
        """Number of images that are explained together."""
        return 1 if self.model.device.type == "cpu" else min(MAX_BATCH, self.settings.chunk)

    def process(self, jobs: Sequence[ImageJob], progress: StudyProgress) -> list[StudyOutcome]:
        """Read, explain and write a batch of images; images of one size in one call of the explainer.

        Raises:
            UserError: if no image can be explained with these settings, memory runs out, or a result cannot be written.
        """
        outcomes: list[StudyOutcome] = []
        images = []
        for job in jobs:
            try:
                images.append(read_input(job, self.model))
            except ImageError as error:
                outcomes.append(StudyFailed(job.file, str(error)))
        with memory_errors("--chunk", self.settings.chunk):
            for _, group in groupby(images, key=lambda image: image.input_size):
                outcomes += self._process_same_size(list(group), progress)
        return outcomes

    def _process_same_size(self, images: Sequence[InputImage], progress: StudyProgress) -> list[StudyOutcome]:
        try:
            explanation, probabilities, seconds = self._explain(images, progress)
        except (ValueError, ModuleNotFoundError) as error:
            if not self._explained:
                raise UserError(error) from error
            return [StudyFailed(image.job.file, f"{image.job.file}: {error}") for image in images]
        self._explained = True
        outcomes: list[StudyOutcome] = []
        for i, image in enumerate(images):
            rest = progress_part(progress, EXPLAIN_SHARE * len(images) + (1 - EXPLAIN_SHARE) * i, 1 - EXPLAIN_SHARE)
            try:
                result = self._evaluate(image, explanation[i], probabilities[i], seconds, rest)
            except ValueError as error:
                outcomes.append(StudyFailed(image.job.file, f"{image.job.file}: {error}"))
                continue
            rest(0.5, f"drawing the pictures of {image.job.file.name}")
            outcomes.append(self.write(result))
        return outcomes

    def analyse(self, image: InputImage, progress: StudyProgress) -> ExplainResult:
        """Explain one image, and evaluate its heatmap."""
        explanation, probabilities, seconds = self._explain([image], progress)
        rest = progress_part(progress, EXPLAIN_SHARE, 1 - EXPLAIN_SHARE)
        return self._evaluate(image, explanation[0], probabilities[0], seconds, rest)

    def _explain(
        self, images: Sequence[InputImage], progress: StudyProgress
    ) -> tuple[Explanation, Float[Tensor, "n classes"], float]:
        """The explanation of all images, the probabilities of all classes, and the mean seconds per image."""
        file = images[0].job.file.name
        activity = f"explaining {file}" if self.target is None else f"explaining {self.model.label(self.target)} in {file}"
        progress(0, activity)
        started = time.perf_counter()
        method_progress = MethodProgress(progress, activity, images[0], self.target, share=EXPLAIN_SHARE * len(images))
        explanation = self.explain(self.explainer, images, self.target, method_progress)
        probabilities = self.probabilities(torch.cat([image.image for image in images]))
        return explanation, probabilities, (time.perf_counter() - started) / len(images)

    def _evaluate(
        self,
        image: InputImage,
        explanation: Explanation,
        probabilities: Float[Tensor, " classes"],
        explaining: float,
        progress: StudyProgress,
    ) -> ExplainResult:
        """The curves of the heatmap and of a random map."""
        started = time.perf_counter()
        random_map = self.random_map(image, explanation.resolution, explained_class(explanation))

        def report(done: int = 0, total: int = 1) -> None:
            del done, total
            progress(0, f"evaluating deletion and insertion of {image.job.file.name}")

        report()
        with recorded() as messages:
            curves, random_curves = (
                deletion_insertion(
                    self.model,
                    image.image,
                    heatmap,
                    protocol=self.settings.protocol,
                    chunk_size=self.settings.chunk,
                    progress=report,
                )
                for heatmap in (explanation, random_map)
            )
        image = image.with_warnings(messages)
        seconds = {"explaining": explaining, "deletion_and_insertion": time.perf_counter() - started}
        found = self._judge(image, explanation, progress)
        if found is not None:
            seconds["evidence"] = time.perf_counter() - started - seconds["deletion_and_insertion"]
        return ExplainResult(image, explanation, curves, random_curves, probabilities, seconds, found)

    def _judge(self, image: InputImage, explanation: Explanation, progress: StudyProgress) -> JuryResult | None:
        """The evidence of the jury, if one is to be asked and the map's cells have an order."""
        panel = self.settings.evidence
        if panel == "none" or flaw(explanation.heatmap) is not None:
            return None
        activity = f"asking the jury about {image.job.file.name}, {PANELS[panel].passes()} forward passes"
        progress(0.25, activity)
        (generator,) = image_generators(derived(self.settings.seed, "jury"), [image.index])
        with suppressed():  # the curves of the same map have warned
            return evidence(
                self.model,
                image.image,
                explanation,
                panel=panel,
                generator=[generator],
                chunk_size=self.settings.chunk,
                progress=lambda done, total: progress(0.25 + 0.25 * done / total, activity),
            )

    def record(self, result: ExplainResult) -> ExplainRecord:
        """The content of result.json."""
        return ExplainRecord.of(result, self.model, self.settings.seed)

    def write_files(self, result: ExplainResult, folder: Path) -> None:
        """Write the raw heatmap and the pictures."""
        draw_pictures(folder, result, self.model, self.settings)
        np.save(folder / "heatmap.npy", result.explanation.heatmap[0].cpu().float().numpy())


def draw_pictures(folder: Path, result: ExplainResult, model: Classifier, settings: ExplainSettings) -> None:
    """Draw all pictures into a folder; of a heatmap whose cells have no order only the panel, with a message."""
    image, explanation, original = result.image.image, result.explanation, result.image.original()
    panel = show(
        image,
        explanation,
        result.curves,
        photo=original,
        geometry=model.geometry,
        reference=result.random_curves,
        labels=model.labels,
        verdict=None if result.evidence is None else result.evidence.verdicts[0].sentence,
    )
    save_figure(panel, folder / "panel.png")
    if flaw(explanation.heatmap) is not None:
        return
    save_image(overlay(original, placed(explanation, original, model.geometry).cpu()), folder / "overlay.png")
    figure = strip(model, image, explanation, ratios=settings.ratios, chunk_size=settings.chunk)
    save_figure(figure, folder / "strip.png")
    if settings.animation is not None:
        animation(image, explanation, None, result.curves, folder / f"deletion_insertion.{settings.animation}")


@dataclass(frozen=True)
class MethodRecord:
    """The method, and all its settings."""

    name: str
    title: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class ScoredClass(ClassProbability):
    """A class, its probability, and the score that was explained."""

    score: float


@dataclass(frozen=True)
class HeatmapRecord:
    """The heatmap's file, and the centres of its rows and columns in input pixels; None if its corners are aligned."""

    file: str
    resolution: tuple[int, int]
    rows: list[float] | None
    columns: list[float] | None


@dataclass(frozen=True)
class AreasRecord:
    """Areas of the heatmap's curves, and of those of a random map."""

    heatmap: CurveAreas
    random: CurveAreas


@dataclass(frozen=True)
class CurvesRecord:
    """Curves of the heatmap, and of a random map."""

    heatmap: BothCurves
    random: BothCurves


@dataclass(frozen=True)
class JurorRecord:
    """The value of one juror for the heatmap and the control maps, and why it has no vote; empty if it has one."""

    name: str
    heatmap: float
    random: float
    centred: float
    edges: float
    no_vote: str


@dataclass(frozen=True)
class EvidenceRecord:
    """The verdict of the jury, the mean gain over each control map, and the jurors."""

    level: str
    sentence: str
    votes: int
    gain: Mapping[str, float]
    jurors: tuple[JurorRecord, ...]

    @classmethod
    def of(cls, result: JuryResult) -> EvidenceRecord:
        """The evidence for one image."""
        (verdict,) = result.verdicts
        rows = zip(result.jurors, result.values[:, 0], result.reasons, strict=True)
        jurors = []
        for name, values, reason in rows:
            own, random, centred, edges = values.tolist()
            jurors.append(JurorRecord(name, own, random, centred, edges, reason[0]))
        gain = dict(zip(("random", "centred", "edges"), verdict.gain, strict=True))
        return cls(verdict.level, verdict.sentence, verdict.votes, gain, tuple(jurors))

    def lines(self) -> Iterator[tuple[str, str]]:
        """For people: the verdict, the gains, and who has no vote."""
        yield "  verdict         ", f"{self.level}: {self.sentence}"
        if self.votes:
            gains = ", ".join(f"{gain:+.3f} to {name}" for name, gain in zip(CONTROLS, self.gain.values(), strict=True))
            yield "  evidence        ", f"insertion minus deletion, mean of {self.votes} jurors: {gains}"
        silent = [f"{juror.name} ({juror.no_vote})" for juror in self.jurors if juror.no_vote]
        if silent and self.level != "unrecognised":
            yield "  without a vote  ", "; ".join(silent)


@dataclass(frozen=True)
class ExplainRecord(ImageStudyRecord):
    """Everything that is needed to repeat the explanation, and everything that was computed."""

    schema: ClassVar[str] = "faithmap.result/1"
    summary_keys: ClassVar[tuple[str, ...]] = ("target", "predicted", "evidence", "scores", "warnings")

    window: Mapping[str, float]
    method: MethodRecord
    target: ScoredClass
    predicted: tuple[ClassProbability, ...]
    heatmap: HeatmapRecord
    optimises: tuple[str, ...]
    evidence: EvidenceRecord | None
    protocol: ProtocolRecord
    scores: AreasRecord
    curves: CurvesRecord
    passes: PassCounts
    seconds: Mapping[str, float]
    diagnostics: Mapping[str, Any]

    @classmethod
    def of(cls, result: ExplainResult, model: Classifier, seed: int) -> ExplainRecord:
        """Describe a result."""
        explanation, image = result.explanation, result.image
        if explanation.score is None:
            raise ValueError("the explanation has no score")
        diagnostics = dict(explanation.diagnostics[0])
        warned = diagnostics.pop("warnings", ())
        index, probabilities = explained_class(explanation), result.probabilities
        best = probabilities.topk(min(PREDICTED, len(probabilities))).indices.tolist()
        return cls(
            source=image.source(model, seed),
            warnings=image.with_warnings(warned).warnings,
            window=model.geometry.window(image.size)._asdict(),
            method=MethodRecord(explanation.method, explanation.title, explanation.settings),
            target=ScoredClass(index, model.label(index), float(probabilities[index]), float(explanation.score[0])),
            predicted=tuple(ClassProbability.among(i, probabilities, model) for i in best),
            heatmap=HeatmapRecord(
                "heatmap.npy",
                explanation.resolution,
                None if explanation.rows is None else explanation.rows.tolist(),
                None if explanation.columns is None else explanation.columns.tolist(),
            ),
            optimises=explanation.optimises,
            evidence=None if result.evidence is None else EvidenceRecord.of(result.evidence),
            protocol=ProtocolRecord.of(result.curves),
            scores=AreasRecord(CurveAreas.of(result.curves), CurveAreas.of(result.random_curves)),
            curves=CurvesRecord(BothCurves.of(result.curves), BothCurves.of(result.random_curves)),
            passes=PassCounts(diagnostics.pop("forward_passes", None), diagnostics.pop("backward_passes", None)),
            seconds=result.seconds,
            diagnostics=diagnostics,
        )

    @property
    def layers(self) -> Sequence[str]:
        """The target layers of a method that has some."""
        layers: Sequence[str] = self.diagnostics.get("target_layer", ()) if "layer_found_by" in self.diagnostics else ()
        return layers

    @property
    def own_measure(self) -> bool:
        """Whether the method optimised scores under the removal of the protocol."""
        return family_of(PROTOCOLS[self.protocol.name].deletion_baseline) in self.optimises

    def summary_lines(self, folder: Path) -> Iterator[tuple[str, str]]:
        """The summary for people."""
        predicted = ", ".join(f"{guess.label} {guess.probability:.3f}" for guess in self.predicted[:3])
        rows, columns = self.heatmap.resolution
        own, random = self.scores.heatmap, self.scores.random
        yield "", self.source.file.path
        yield "  predicted       ", predicted
        yield "  explained       ", f"{self.target.label}, by {self.method.title} at {rows} x {columns}"
        if self.layers:
            yield "  target layer    ", f"{', '.join(self.layers)} ({self.diagnostics['layer_found_by']})"
        if self.evidence is not None:
            yield from self.evidence.lines()
        deletion, insertion = ("lower is better", "higher is better")
        if self.own_measure:
            deletion = insertion = "optimised by this method: no evidence for it"
        yield "  deletion        ", f"{own.deletion:.3f}, a random map {random.deletion:.3f} ({deletion})"
        yield "  insertion       ", f"{own.insertion:.3f}, a random map {random.insertion:.3f} ({insertion})"
        yield "  pictures        ", str(folder)
