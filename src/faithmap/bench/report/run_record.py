"""A run's folder: what was planned, which files of rows are there, and published numbers to lay beside them.

``run.json`` says what was planned, ``units/*.parquet`` hold one row an image. Tables of a paper stand under ``published`` in
``run.json``, or in a file ``published.json`` of the same form, which goes first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from faithmap.bench.plan import SCHEMA
from faithmap.bench.store import unit_files
from faithmap.geometry import Geometry
from faithmap.text import one_line

Size = tuple[int, int]

Checked = TypeVar("Checked", bound=BaseModel)


class RunError(ValueError):
    """A run that cannot be reported on. The message is one line: what was given, what is wrong with it, what to do."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class ViewRecord(_Entry):
    """How a model cuts its images."""

    resize: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    crop: tuple[PositiveInt, PositiveInt] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class ModelRecord(_Entry):
    """A model of the plan, its part of a photograph if the plan says it."""

    name: str
    digest: str = ""
    geometry: ViewRecord | None = None

    @property
    def view(self) -> Geometry | None:
        """How the model cuts its images, None where that is not known."""
        if self.geometry is None:
            return None
        return Geometry(self.geometry.resize, self.geometry.crop, self.geometry.interpolation)


class MethodRecord(_Entry):
    """A method with its settings; ``id`` is what the rows call it, ``label`` what readers do."""

    id: str
    name: str = ""
    label: str | None = None
    class_name: str | None = Field(None, alias="class")
    settings: dict[str, Any] = {}
    resolution: int | str | tuple[int, int] | None = None

    @property
    def cells(self) -> Size | None:
        """Rows and columns of cells, where the plan says them."""
        return size_of(self.resolution)

    @property
    def title(self) -> str:
        """For readers."""
        return self.label or self.name or self.id


class MetricRecord(_Entry):
    """A metric with its settings; ``id`` is its column."""

    id: str
    name: str = ""
    settings: dict[str, Any] = {}
    higher_is_better: bool | None = None


class DataRecord(_Entry):
    """Where the images are, and whatever else the plan says of them."""

    model_config = ConfigDict(extra="allow")

    kind: str = ""
    path: str | None = None
    images: int | None = None
    digest: str | None = None


class PublishedRow(_Entry):
    """Numbers of one method at one resolution; text where it is no number ("< 1"). ``method`` is ours, by id, if we have it."""

    method: str | None = None
    label: str
    resolution: Annotated[str, BeforeValidator(lambda given: "" if given is None else given)] = ""
    values: dict[str, float | str | None]


class PublishedTable(_Entry):
    """A table of a paper; its metrics are our columns, or ``seconds``, and its means are over images or over classes."""

    title: str
    over: Literal["images", "classes"] = "images"
    model: str | None = None
    note: str = ""
    metrics: list[str]
    rows: list[PublishedRow]


class Published(_Entry):
    """The tables of a paper, and where they are from."""

    source: str = ""
    title: str = ""
    note: str = ""
    tables: list[PublishedTable]


class PlanRecord(_Entry):
    """``run.json``."""

    name: str = ""
    created: str | None = None
    versions: dict[str, Any] = {}
    models: list[ModelRecord]
    methods: list[MethodRecord]
    metrics: list[MetricRecord] = []
    data: DataRecord = DataRecord()
    seed: int | None = None
    units: int | None = None
    published: Published | None = None

    def played_at(self, column: str) -> Size | None:
        """The cells that a game was played with, where all methods were given the same."""
        return next((size_of(m.settings.get("resolution")) for m in self.metrics if m.id == column), None)


@dataclass(frozen=True)
class ReportedRun:
    """A run's folder, its plan read and its files listed."""

    folder: Path
    plan: PlanRecord
    files: Sequence[Path]
    published: Published | None = None


def open_run(folder: Path) -> ReportedRun:
    """Read what was planned, and list the files of rows.

    Raises:
        RunError: where the folder is no run, or of a layout that is not understood.
    """
    plan = _read(folder / "run.json", PlanRecord, numbered=True)
    if plan is None:
        raise RunError(f"{folder} is no run: it holds no run.json; give the folder that `faithmap bench run` wrote")
    files = unit_files(folder)
    if not files:
        raise RunError(f"{folder} holds no results yet: units/ has no Parquet file; run `faithmap bench run` first")
    published = _read(folder / "published.json", Published)
    return ReportedRun(folder, plan, files, published or plan.published)


def size_of(resolution: Any) -> Size | None:
    """Rows and columns of a resolution in any of its spellings.

    >>> size_of(28), size_of("7x14"), size_of(None)
    ((28, 28), (7, 14), None)
    """
    sides = [int(side) for side in re.findall(r"\d+", str(resolution))]
    return (sides[0], sides[-1]) if sides else None


def _read(path: Path, kind: type[Checked], *, numbered: bool = False) -> Checked | None:
    """A JSON file, checked; None where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is no JSON ({error})") from error
    number = found.get("schema") if isinstance(found, dict) else None
    if numbered and (number != SCHEMA or isinstance(number, bool)):
        raise RunError(f"{path}: its schema is {number!r}, and {SCHEMA} is understood; use the faithmap that wrote it")
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise RunError(f"{path}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])
