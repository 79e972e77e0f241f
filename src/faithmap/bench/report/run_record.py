"""Read the record of a run (``run.json``), and list its result files.

Tables of a paper are under ``published`` in ``run.json``, or in a file ``published.json`` of the same form, which replaces
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from faithmap.baselines import Constant
from faithmap.bench.plan import SCHEMA
from faithmap.bench.run_folder import unit_files
from faithmap.errors import RunError
from faithmap.model import Geometry

Shape = tuple[int, int]
"""Rows and columns of cells, or height and width of an image."""

_Checked = TypeVar("_Checked", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class RunGeometry(_Record):
    """Resizing and cropping of a model's images."""

    resize: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    crop: tuple[PositiveInt, PositiveInt] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class RunModel(_Record):
    """A model."""

    name: str
    digest: str = ""
    geometry: RunGeometry | None = None
    mean: list[float] | None = None

    @property
    def zero(self) -> Constant | None:
        """The pixel value that is 0 in the model's normalised space; None if unknown."""
        return None if self.mean is None else Constant(tuple(self.mean))

    @property
    def view(self) -> Geometry | None:
        """Resizing and cropping of the images; None if unknown."""
        if self.geometry is None:
            return None
        return Geometry(self.geometry.resize, self.geometry.crop, self.geometry.interpolation)


class RunMethod(_Record):
    """A method with its settings; ``id`` is its name in rows, ``label`` its name for readers."""

    id: str
    name: str = ""
    label: str | None = None
    class_name: str | None = Field(None, alias="class")
    settings: dict[str, Any] = {}
    resolution: int | str | tuple[int, int] | None = None

    @property
    def cells(self) -> Shape | None:
        """Rows and columns of cells, if the record has them."""
        return shape_of(self.resolution)

    @property
    def title(self) -> str:
        """For readers."""
        return self.label or self.name or self.id


class RunMetric(_Record):
    """A metric with its settings; ``id`` is its column."""

    id: str
    name: str = ""
    settings: dict[str, Any] = {}
    higher_is_better: bool | None = None


class RunData(_Record):
    """The data set."""

    model_config = ConfigDict(extra="allow")

    kind: str = ""
    path: str | None = None
    images: int | None = None
    digest: str | None = None


class PublishedRow(_Record):
    """Published values of a method at a resolution, as numbers or text ("< 1"). ``method`` is the id of this run's method."""

    method: str | None = None
    label: str
    resolution: Annotated[str, BeforeValidator(lambda given: "" if given is None else given)] = ""
    values: dict[str, float | str | None]


class PublishedTable(_Record):
    """A table of a paper; its metrics are columns of the run or ``seconds``, its means are over images or over classes."""

    title: str
    over: Literal["images", "classes"] = "images"
    model: str | None = None
    note: str = ""
    metrics: list[str]
    rows: list[PublishedRow]


class Published(_Record):
    """The tables of a paper, and their source."""

    source: str = ""
    title: str = ""
    note: str = ""
    tables: list[PublishedTable]


class RunRecord(_Record):
    """``run.json``."""

    name: str = ""
    created: str | None = None
    versions: dict[str, Any] = {}
    models: list[RunModel]
    methods: list[RunMethod]
    metrics: list[RunMetric] = []
    data: RunData = RunData()
    seed: int | None = None
    units: int | None = None
    published: Published | None = None

    def cells_of_test(self, column: str) -> Shape | None:
        """The cells of a deletion and insertion test, if its settings give one resolution for all methods."""
        return next((shape_of(m.settings.get("resolution")) for m in self.metrics if m.id == column), None)


@dataclass(frozen=True)
class ReportedRun:
    """A run folder: its record, and its result files."""

    folder: Path
    plan: RunRecord
    files: Sequence[Path]
    published: Published | None = None


def open_run(folder: Path) -> ReportedRun:
    """Read the record, and list the result files.

    Raises:
        RunError: if the folder is no run, or has an unknown layout.
    """
    plan = _read(folder / "run.json", RunRecord, has_schema=True)
    if plan is None:
        raise RunError(f"{folder} is no run: it has no run.json; give a folder that `faithmap bench run` wrote")
    files = unit_files(folder)
    if not files:
        raise RunError(f"{folder} has no results yet: units/ has no Parquet file; run `faithmap bench run` first")
    published = _read(folder / "published.json", Published)
    return ReportedRun(folder, plan, files, published or plan.published)


def shape_of(resolution: Any) -> Shape | None:
    """Rows and columns of a resolution in any of its forms.

    >>> shape_of(28), shape_of("7x14"), shape_of(None)
    ((28, 28), (7, 14), None)
    """
    sides = [int(side) for side in re.findall(r"\d+", str(resolution))]
    return (sides[0], sides[-1]) if sides else None


def _read(path: Path, kind: type[_Checked], *, has_schema: bool = False) -> _Checked | None:
    """Read and check a JSON file; None if there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is not valid JSON ({error})") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if has_schema and (schema != SCHEMA or isinstance(schema, bool)):
        raise RunError(
            f"{path}: its schema is {schema!r}, but this version reads schema {SCHEMA}; use the faithmap that wrote it"
        )
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise RunError(f"{path}: {place}: {problem['msg']}" if place else f"{path}: {problem['msg']}") from error
