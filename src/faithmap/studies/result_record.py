"""Records: the content of result.json, as dataclasses whose fields are its keys, and the versions of the software."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from faithmap._version import __version__
from faithmap.baselines import describe_baseline
from faithmap.metrics import Curve, DeletionInsertion
from faithmap.model import Classifier, describe


class StudyRecord(ABC):
    """The record of one result folder; subclasses are dataclasses.

    Attributes:
        schema: name and version of the format.
        summary_keys: fields that the summary for programs repeats.
    """

    schema: ClassVar[str]
    summary_keys: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def sources(self) -> dict[str, Any]:
        """The image files, as the first entry of the summary."""

    @abstractmethod
    def warning_lines(self) -> Iterator[str]:
        """The warnings, one line each."""

    @abstractmethod
    def summary_lines(self, folder: Path) -> Iterator[tuple[str, str]]:
        """The summary for people: heading and text of each line."""

    def document(self) -> dict[str, Any]:
        """The content of result.json."""
        return {"schema": self.schema, **plain_data(self)}

    def summary(self, folder: Path) -> dict[str, Any]:
        """The summary for programs: the main fields, and the folder that has all of them."""
        document = self.document()
        return {**self.sources, "folder": str(folder), **{key: document[key] for key in self.summary_keys}}


def plain_data(value: Any) -> Any:
    """A value as JSON can represent it: dataclasses become objects, numbers that are not finite become null.

    >>> plain_data({"step": (1.0, float("nan"))})
    {'step': [1.0, None]}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_data(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain_data(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class ImageFileRecord:
    """The image file: ``size`` is (height, width)."""

    path: str
    sha256: str
    bytes: int
    size: tuple[int, int]


@dataclass(frozen=True)
class ModelRecord:
    """The model: ``input_size`` is (height, width) of what it received."""

    name: str
    digest: str | None
    classes: int | None
    device: str
    input_size: tuple[int, int]

    @classmethod
    def of(cls, model: Classifier, input_size: tuple[int, int]) -> ModelRecord:
        """Describe a model."""
        return cls(**describe(model), device=str(model.device), input_size=input_size)


@dataclass(frozen=True)
class SeedRecord:
    """The seed of the run, and the image's index for random numbers."""

    run: int
    image: int


@dataclass(frozen=True)
class ClassRecord:
    """A class of the model."""

    index: int
    label: str

    @classmethod
    def of(cls, index: int, model: Classifier) -> ClassRecord:
        """The class of that index."""
        return cls(index, model.label(index))


@dataclass(frozen=True)
class ClassProbability(ClassRecord):
    """A class, and its probability."""

    probability: float

    @classmethod
    def among(cls, index: int, probabilities: Float[Tensor, " classes"], model: Classifier) -> ClassProbability:
        """The class of that index, with its probability."""
        return cls(index, model.label(index), float(probabilities[index]))


@dataclass(frozen=True)
class CurveAreas:
    """Areas under the deletion curve and the insertion curve, and insertion minus deletion."""

    deletion: float
    insertion: float
    difference: float

    @classmethod
    def of(cls, curves: DeletionInsertion) -> CurveAreas:
        """The areas of one image's curves."""
        return cls(float(curves.deletion.area[0]), float(curves.insertion.area[0]), float(curves.difference[0]))


@dataclass(frozen=True)
class CurvePoints:
    """One curve of one image: the score at each fraction."""

    fractions: tuple[float, ...]
    scores: tuple[float, ...]

    @classmethod
    def of(cls, curve: Curve) -> CurvePoints:
        """The points of one image's curve."""
        return cls(tuple(curve.fractions.tolist()), tuple(curve.scores[0].tolist()))


@dataclass(frozen=True)
class BothCurves:
    """Scores of the deletion curve and the insertion curve at the same fractions."""

    fractions: tuple[float, ...]
    deletion: tuple[float, ...]
    insertion: tuple[float, ...]

    @classmethod
    def of(cls, curves: DeletionInsertion) -> BothCurves:
        """The curves of one image."""
        deletion, insertion = CurvePoints.of(curves.deletion), CurvePoints.of(curves.insertion)
        return cls(deletion.fractions, deletion.scores, insertion.scores)


@dataclass(frozen=True)
class ProtocolRecord:
    """The protocol of deletion and insertion, at the resolution and with the number of steps that were used."""

    name: str
    unit: str
    resolution: tuple[int, int]
    steps: int
    deletion_baseline: Mapping[str, Any]
    insertion_baseline: Mapping[str, Any]

    @classmethod
    def of(cls, curves: DeletionInsertion) -> ProtocolRecord:
        """The protocol of these curves."""
        protocol = curves.protocol
        return cls(
            protocol.name,
            protocol.unit,
            curves.resolution,
            len(curves.deletion.fractions) - 1,
            describe_baseline(protocol.deletion_baseline),
            describe_baseline(protocol.insertion_baseline),
        )


@dataclass(frozen=True)
class PassCounts:
    """Forward and backward passes of the model; None if the method does not count them."""

    forward: int | None
    backward: int | None

    @classmethod
    def of(cls, diagnostics: Mapping[str, Any]) -> PassCounts:
        """The counts among a method's diagnostics."""
        return cls(diagnostics.get("forward_passes"), diagnostics.get("backward_passes"))


@dataclass(frozen=True)
class ImageSource:
    """What one image was studied with: the versions of the software, the file, the model and the seeds."""

    versions: Mapping[str, str | None]
    file: ImageFileRecord
    model: ModelRecord
    seed: SeedRecord


@dataclass(frozen=True)
class ImageStudyRecord(StudyRecord):
    """The record of a study of one image. The keys of ``source`` stand at the top level of result.json."""

    source: ImageSource
    warnings: tuple[str, ...]

    @property
    def sources(self) -> dict[str, Any]:
        """The image file."""
        return {"file": self.source.file.path}

    def warning_lines(self) -> Iterator[str]:
        """The warnings, with the file's name in front."""
        return (f"{self.source.file.path}: {warning}" for warning in self.warnings)

    def document(self) -> dict[str, Any]:
        """The content of result.json."""
        document = super().document()
        source = document.pop("source")
        return {"schema": document.pop("schema"), **source, **document}


def dependency_versions() -> dict[str, str | None]:
    """The versions of faithmap, Python, torch and timm; None for a package that is not installed.

    >>> list(dependency_versions())
    ['faithmap', 'python', 'torch', 'timm']
    """
    packages = {name: _package_version(name) for name in ("torch", "timm")}
    return {"faithmap": __version__, "python": sys.version.split()[0], **packages}


def _package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
