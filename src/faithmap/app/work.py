"""The studies that the page runs: an upload and settings in, results out.

They are the studies of the commands, with the same settings and random numbers. So the downloaded folder, the command and the
maps on the screen agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from faithmap.app.shelf import Upload
from faithmap.app.words import RefusedError
from faithmap.app.worker import JobReporter
from faithmap.metrics.functional import agreement_matrix
from faithmap.model import Classifier
from faithmap.studies.base import InputImage, input_from_bytes
from faithmap.studies.compare import CompareResult, CompareStudy
from faithmap.studies.explain import ExplainResult, ExplainStudy
from faithmap.studies.result_folder import ImageJob, progress_part
from faithmap.studies.saturation import SaturationResult, SaturationStudy
from faithmap.studies.settings import CompareSettings, ExplainSettings, SaturationSettings, StudySettings

MAX_METHODS = 4
"""Methods that are compared at once."""

MAX_PASSES = 400_000
"""Passes of the model that a method may take, more than with the largest numbers of the controls."""


@dataclass(frozen=True)
class Subject:
    """The subject of a job: an upload, and the explained model."""

    upload: Upload
    model: Classifier

    def image(self) -> InputImage:
        """What the model receives."""
        return input_from_bytes(ImageJob(Path(self.upload.name), Path("result")), self.upload.data, self.model)


@dataclass(frozen=True)
class Explained:
    """The explanations of one upload, for one class or for two.

    Attributes:
        subject: upload and model.
        studies: one for each class.
        results: one for each class.
    """

    subject: Subject
    studies: Sequence[ExplainStudy]
    results: Sequence[ExplainResult]


@dataclass(frozen=True)
class Compared:
    """Several methods on one upload, or one with several settings or resolutions.

    Attributes:
        subject: upload and model.
        study: the comparison.
        result: of the comparison.
        agreement: rank correlation of every two maps, at the shared resolution.
    """

    subject: Subject
    study: CompareStudy
    result: CompareResult
    agreement: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Saturated:
    """The saturation of the path to one upload."""

    subject: Subject
    study: SaturationStudy
    result: SaturationResult


def predict(subject: Subject) -> Float[Tensor, " classes"]:
    """The probabilities of all classes."""
    study = ExplainStudy.for_model(ExplainSettings(), subject.model, None)
    return study.probabilities(subject.image().image)[0]


def explain(subject: Subject, settings: Sequence[ExplainSettings], report: JobReporter) -> Explained:
    """Explain an upload with each of the settings.

    Raises:
        ValueError: for settings that do not fit.
        CancelledError: if the visitor cancelled it.
    """
    image = subject.image()
    studies = [ExplainStudy.for_model(one, subject.model, _class_of(one)) for one in settings]
    share = 1 / len(studies)
    results = [study.analyse(image, progress_part(report, i * share, share)) for i, study in enumerate(studies)]
    return Explained(subject, studies, results)


def compare(subject: Subject, settings: CompareSettings, report: JobReporter) -> Compared:
    """Compare several methods, or one with several settings or resolutions, for one class.

    Raises:
        RefusedError: for no method, too many, or one that takes too many passes.
        ValueError: for settings that do not fit.
    """
    _check_count(settings.methods)
    study = CompareStudy.for_model(settings, subject.model, _class_of(settings))
    image = subject.image()
    for name, explainer in study.explainers.items():
        passes = explainer.passes(image.image)
        if passes is not None and sum(passes) > MAX_PASSES:
            raise RefusedError(
                f"{name} takes about {sum(passes)} passes of the model; choose settings with at most {MAX_PASSES}"
            )
    result = study.analyse(image, report)
    maps = {name: study.shared_cells(result.explanations[name]).cpu() for name in study.entries}
    return Compared(subject, study, result, agreement_matrix(maps)[0].tolist())


def saturate(subject: Subject, settings: SaturationSettings, report: JobReporter) -> Saturated:
    """Measure saturation.

    Raises:
        RefusedError: for no method, or too many.
        ValueError: for settings that do not fit.
    """
    _check_count(settings.methods)
    study = SaturationStudy.for_model(settings, subject.model, _class_of(settings))
    return Saturated(subject, study, study.analyse(subject.image(), report))


def _check_count(methods: Sequence[str]) -> None:
    if not 1 <= len(methods) <= MAX_METHODS:
        raise RefusedError(f"{len(methods)} methods are chosen; choose one to {MAX_METHODS}")


def _class_of(settings: StudySettings) -> int | None:
    return None if settings.target is None else int(settings.target)
