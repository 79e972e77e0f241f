"""A run's folder: what was planned, which files of rows are there, and published numbers to lay beside them.

``run.json`` says what was planned, ``units/*.parquet`` hold one row an image, ``published.json``, which may be missing, holds
the tables of a paper.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from faithmap.geometry import Geometry
from faithmap.text import one_line

SCHEMA = 1
"""The number of the layout that is understood."""

Size = tuple[int, int]

Entry = TypeVar("Entry", bound=BaseModel)


class RunError(ValueError):
    """A run that cannot be reported on. The message is one line: what was given, what is wrong with it, what to do."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class Model(_Entry):
    """A model of the plan, its part of a photograph if the plan says it."""

    name: str
    digest: str = ""
    geometry: dict[str, Any] | None = None

    @property
    def view(self) -> Geometry | None:
        """How the model cuts its images, None where that is not known."""
        if self.geometry is None:
            return None
        resize, crop = self.geometry.get("resize"), self.geometry.get("crop")
        size = tuple(resize) if isinstance(resize, list) else resize
        return Geometry(size, tuple(crop) if crop else None, self.geometry.get("interpolation", "bilinear"))


class Method(_Entry):
    """A method with its settings; ``id`` is what the rows call it."""

    id: str
    name: str = ""
    class_name: str | None = Field(None, alias="class")
    settings: dict[str, Any] = {}
    resolution: int | str | tuple[int, int] | None = None

    @property
    def cells(self) -> Size | None:
        """Rows and columns of cells, where the plan says them."""
        if self.resolution is None or isinstance(self.resolution, tuple):
            return self.resolution
        sides = [int(side) for side in re.findall(r"\d+", str(self.resolution))]
        return (sides[0], sides[-1]) if sides else None


class Metric(_Entry):
    """A metric with its settings; ``id`` is its column."""

    id: str
    name: str = ""
    settings: dict[str, Any] = {}
    higher_is_better: bool | None = None


class Data(_Entry):
    """Where the images are."""

    kind: str = ""
    path: str | None = None
    images: int | None = None
    digest: str | None = None


class Plan(_Entry):
    """``run.json``."""

    name: str = ""
    created: str = ""
    versions: dict[str, Any] = {}
    models: list[Model]
    methods: list[Method]
    metrics: list[Metric] = []
    data: Data = Data()
    seed: int | None = None
    units: int | None = None


class PublishedRow(_Entry):
    """A method's numbers, one entry a column; None where there is none, text where it is no number ("< 1")."""

    method: str
    ours: str | None = None
    values: list[list[float | str | None] | None]


class PublishedTable(_Entry):
    """A table of a paper: ``metrics`` names what stands in each entry."""

    name: str
    model: str | None = None
    note: str = ""
    metrics: list[str] = ["deletion", "insertion"]
    columns: list[str]
    rows: list[PublishedRow]

    @model_validator(mode="after")
    def _fits(self) -> PublishedTable:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(f"method {row.method!r} has {len(row.values)} values for {len(self.columns)} columns")
            if any(value is not None and len(value) != len(self.metrics) for value in row.values):
                raise ValueError(f"method {row.method!r} has an entry without one value for each of {', '.join(self.metrics)}")
        return self


class Published(_Entry):
    """``published.json``."""

    tables: list[PublishedTable]


@dataclass(frozen=True)
class Run:
    """A run's folder, its plan read and its files listed."""

    folder: Path
    plan: Plan
    files: Sequence[Path]
    published: Sequence[PublishedTable] = ()


def open_run(folder: Path) -> Run:
    """Read what was planned, and list the files of rows.

    Raises:
        RunError: where the folder is no run, or of a layout that is not understood.
    """
    plan = _read(folder / "run.json", Plan)
    if plan is None:
        raise RunError(f"{folder} is no run: it holds no run.json; give the folder that `faithmap bench run` wrote")
    files = sorted((folder / "units").glob("*.parquet"))
    if not files:
        raise RunError(f"{folder} holds no results yet: units/ has no Parquet file; run `faithmap bench run` first")
    published = _read(folder / "published.json", Published)
    return Run(folder, plan, files, published.tables if published else ())


def _read(path: Path, kind: type[Entry]) -> Entry | None:
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
    if number != SCHEMA or isinstance(number, bool):
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
