"""The specification of a benchmark: its fields, checked before any model is loaded, read from TOML, YAML or by name.

.. code-block:: toml

    name = "my-models"
    models = ["efficientnet_lite0"]

    [data]
    path = "images"

    [[methods]]
    name = "igos"
    resolution = [28, 14]          # two rows of the table

    [[metrics]]
    name = "deletion_insertion"

Every error names the line and the field.
"""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from faithmap.errors import BenchError, BenchSettingError, did_you_mean, not_installed, one_line
from faithmap.methods.registry import ALIASES, METHODS


@dataclass(frozen=True)
class BenchMetric:
    """A metric that a benchmark can compute. How it is computed is in :mod:`faithmap.bench.evaluate`.

    Attributes:
        columns: column names in the store; True if higher is better, False if lower is better, None if neither.
        curves: columns of curves, one list per image.
        settings: keywords that the metric takes.
        boxes: whether the metric needs the boxes or masks of the objects.
        companions: whether the metric needs other images of the data set.
    """

    columns: Mapping[str, bool | None]
    settings: tuple[str, ...] = ()
    boxes: bool = False
    companions: bool = False
    curves: tuple[str, ...] = ()


METRICS: Mapping[str, BenchMetric] = MappingProxyType(
    {
        "deletion_insertion": BenchMetric(
            {"deletion": False, "insertion": True},
            ("protocol", "steps", "baseline", "resolution"),
            curves=("deletion_curve", "insertion_curve", "curve_fractions"),
        ),
        "infidelity": BenchMetric({"infidelity": False}, ("perturbation", "draws", "reading", "scaled")),
        "sensitivity": BenchMetric({"max_sensitivity": False, "mean_sensitivity": False}, ("radius", "draws")),
        "confidence": BenchMetric({"average_drop": False, "increase_in_confidence": True, "average_gain": True}, ("scaling",)),
        "evidence": BenchMetric({"jury": True, "jury_gain": True}, ("panel",)),
        "road": BenchMetric({"road": True}, ("fractions", "noise_std")),
        "saco": BenchMetric({"saco": True}, ("groups", "baseline")),
        "complexity": BenchMetric({"complexity": False, "sparseness": True}),
        "objective": BenchMetric({"objective": False}),
        "saturation": BenchMetric({"saturation": None}, ("target_layer", "positions", "baseline", "tolerance")),
        "top_features": BenchMetric({"top_deletion": False, "top_insertion": True}, ("count",)),
        "pointing_game": BenchMetric({"pointing_game": True}, ("tolerance",), boxes=True),
        "energy_pointing_game": BenchMetric({"energy_pointing_game": True}, boxes=True),
        "relevance_rank": BenchMetric({"relevance_rank": True}, boxes=True),
        "grid_pointing_game": BenchMetric(
            {"grid_mass": True, "grid_top": True, "grid_peak": True}, ("least_probability",), companions=True
        ),
        "difull": BenchMetric({"difull_leakage": False}),
        "planted_shortcut": BenchMetric(
            {"mark_found": True, "mark_share": True, "mark_rank": False}, ("mark", "size"), companions=True
        ),
    }
)
"""``jury`` is the mean value of the map over the jurors with a vote, ``jury_gain`` the same less that of a random map. What
a method optimised has no vote. ``objective`` is the last total loss of a method that optimises a mask. ``saturation`` is the
share of the path from baseline to image where the score has stopped changing. These two do not rate a heatmap; the papers'
tables include them. ``top_features`` tests the mean feature map of the most important channels of a class activation map; other
methods, and maps of several layers, have no value."""

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,59}$")]


class SpecTable(BaseModel):
    """A table of the file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSpec(SpecTable):
    """A model: a name that ``faithmap.load`` takes, or a user function that returns a Classifier.

    Attributes:
        name: of the model; with a factory, any name.
        weights: checkpoint file instead of the published weights.
        factory: ``module:function``, called without arguments.
        outputs: what the model returns for its classes: ``logits``, ``probabilities``, or ``sigmoid`` for several labels; None
            for what its configuration says. A factory says it in its Classifier.
    """

    name: str = Field(min_length=1, max_length=200)
    weights: Path | None = None
    factory: str | None = Field(default=None, pattern=r"^[\w.]+:[A-Za-z_]\w*$")
    outputs: Literal["logits", "probabilities", "sigmoid"] | None = None

    @model_validator(mode="after")
    def _check_weights_or_factory(self) -> ModelSpec:
        if self.weights is not None and self.factory is not None:
            raise ValueError("weights and factory are both given; the factory loads its own weights, leave one out")
        if self.outputs is not None and self.factory is not None:
            raise ValueError("outputs and factory are both given; give outputs to the Classifier that the factory returns")
        return self


class DataSpec(SpecTable):
    """The images.

    Attributes:
        kind: ``folder`` of images; ``csv`` with a column path and optionally target; ``imagenet``, one folder per class;
            ``voc``, the folder of one year; ``coco``, a folder of images.
        path: the folder, or the CSV file.
        annotations: coco: the JSON file of instances; imagenet: the folder of boxes.
        outlines: coco: the objects are the areas inside their outlines, and not their boxes. The pointing game on COCO is
            published with both; boxes are easier to hit.
        split: voc: the list of images.
        sample: number of images, drawn with the seed; None takes all.
        target: the class that is explained: ``predicted`` by the model, or the ``label`` of the image. None: ``label`` if the
            data set has boxes, else ``predicted``.
        classes: the model's class, by name or number, for class names of the data set.
    """

    kind: Literal["folder", "csv", "imagenet", "voc", "coco"] = "folder"
    path: Path
    annotations: Path | None = None
    outlines: bool = False
    split: str = "test"
    sample: PositiveInt | None = None
    target: Literal["predicted", "label"] | None = None
    classes: dict[str, str | int] = Field(default_factory=dict)

    @property
    def boxed(self) -> bool:
        """Whether the data set has boxes or masks of the objects."""
        return self.kind in ("voc", "coco") or (self.kind == "imagenet" and self.annotations is not None)

    @property
    def explains_labels(self) -> bool:
        """Whether the label of the image is explained, and not the predicted class."""
        return self.boxed if self.target is None else self.target == "label"

    @model_validator(mode="after")
    def _check_kind(self) -> DataSpec:
        if self.kind == "coco" and self.annotations is None:
            raise ValueError("coco needs annotations; give the JSON file of instances")
        if self.outlines and self.kind != "coco":
            raise ValueError(f"{self.kind} has no outlines of the objects, only coco has; leave outlines out")
        if self.kind == "folder" and self.target == "label":
            raise ValueError("a folder has no labels; give a csv with a column target, or explain the predicted class")
        return self


class MethodSpec(SpecTable):
    """A method, once per resolution.

    Attributes:
        name: as ``faithmap methods`` lists it.
        id: name in tables and files; without it, the name and the resolution.
        label: name for readers.
        resolution: cells per side, one number or a list.
        settings: keywords of the method.
    """

    name: str
    id: Identifier | None = None
    label: str | None = Field(default=None, max_length=80)
    resolution: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return _known(ALIASES.get(name, name), METHODS, "method")

    @property
    def resolutions(self) -> list[int | None]:
        """One per row of the table."""
        return [*self.resolution] if isinstance(self.resolution, list) else [self.resolution]

    def id_at(self, resolution: int | None) -> str:
        """The id of the method at a resolution."""
        base = self.id or self.name
        return base if resolution is None or (self.id and not isinstance(self.resolution, list)) else f"{base}-{resolution}"


class MetricSpec(SpecTable):
    """A metric; an ``id`` is put before its column names."""

    name: str
    id: Identifier | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_name_and_settings(self) -> MetricSpec:
        _known(self.name, METRICS, "metric")
        for setting in self.settings:
            if setting not in METRICS[self.name].settings:
                known = METRICS[self.name].settings
                hint = did_you_mean(setting, known, f"its settings: {', '.join(known) or 'it has none'}")
                raise ValueError(f"{setting!r} is no setting of {self.name}; {hint}")
        return self

    @property
    def columns(self) -> dict[str, bool | None]:
        """Columns in the store; True if higher is better, False if lower is better, None if neither."""
        return {self.column(name): better for name, better in METRICS[self.name].columns.items()}

    @property
    def curves(self) -> list[str]:
        """Columns of curves in the store."""
        return [self.column(name) for name in METRICS[self.name].curves]

    def column(self, name: str) -> str:
        """The name in the store of one of the metric's columns."""
        return f"{self.id}_{name}" if self.id else name


def _from_name(value: Any) -> Any:
    """A bare name means a table with only that name."""
    return {"name": value} if isinstance(value, str) else value


class Spec(SpecTable):
    """A benchmark.

    Attributes:
        name: of the run.
        seed: of the sample and of all random numbers.
        shard_size: images per work unit: what each worker loses at most if the run is killed.
        chunk_size: images per model pass, at most.
        autocast: lower precision for the model passes.
        models: at least one.
        data: the images.
        methods: at least one.
        metrics: none measures only time.
        published: name of a ready specification whose published numbers the report shows.
    """

    name: str = Field(default="benchmark", min_length=1, max_length=80)
    seed: int = Field(default=0, ge=0, lt=2**63)
    shard_size: PositiveInt = 16
    chunk_size: PositiveInt = 32
    autocast: Literal["bfloat16", "float16"] | None = None
    models: Annotated[list[Annotated[ModelSpec, BeforeValidator(_from_name)]], Field(min_length=1)]
    data: DataSpec
    methods: Annotated[list[Annotated[MethodSpec, BeforeValidator(_from_name)]], Field(min_length=1)]
    metrics: list[Annotated[MetricSpec, BeforeValidator(_from_name)]] = Field(default_factory=list)
    published: str | None = Field(default=None, pattern=r"^[a-z0-9-]+$")

    @field_validator("models")
    @classmethod
    def _check_models(cls, models: list[ModelSpec]) -> list[ModelSpec]:
        _refuse_duplicates([model.name for model in models], "models", "give each its own name")
        return models

    @field_validator("methods")
    @classmethod
    def _check_methods(cls, methods: list[MethodSpec]) -> list[MethodSpec]:
        ids = [method.id_at(resolution) for method in methods for resolution in method.resolutions]
        _refuse_duplicates(ids, "methods", "give each its own id")
        return methods

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: list[MetricSpec], info: ValidationInfo) -> list[MetricSpec]:
        _refuse_duplicates([column for metric in metrics for column in metric.columns], "metrics", "give the second an id")
        boxed = [metric.name for metric in metrics if METRICS[metric.name].boxes]
        data: DataSpec | None = info.data.get("data")
        if boxed and data is not None and not data.boxed:
            raise ValueError(f"{boxed[0]} needs boxes of the objects; give data of kind voc, coco or imagenet with boxes")
        return metrics


def _known(name: str, names: Iterable[str], what: str) -> str:
    choices = list(names)
    if name not in choices:
        hint = did_you_mean(name, choices, f"give one of {', '.join(choices)}")
        raise ValueError(f"{name!r} is no {what}; {hint}")
    return name


def _refuse_duplicates(names: list[str], what: str, remedy: str) -> None:
    """Names that differ only in case or punctuation count as equal: they become file and column names."""
    plain = [re.sub(r"\W", "_", name).casefold() for name in names]
    for name, key in zip(names, plain, strict=True):
        if (count := plain.count(key)) > 1:
            raise ValueError(f"{count} {what} are called {name!r}; {remedy}")


FieldPath = tuple[str | int, ...]
"""Keys and list positions that lead to a field."""

FieldLocator = Callable[[FieldPath], str]
"""Describes the position of a field in the file."""

MAX_BYTES = 2**20
"""Of a specification file."""

_FOLDER = Path(__file__).parent
_TOO_DEEP = "lists or tables are nested too deeply; give a specification like the one that 'faithmap bench init' writes"


@dataclass(frozen=True)
class LoadedSpec:
    """A specification that was read and checked.

    Attributes:
        spec: the specification.
        base: folder of its relative paths.
        source: name and content of the copy that is kept in the run folder.
        published: numbers of a paper, shown beside the run's.
        locate: describes the position of a field in the file.
    """

    spec: Spec
    base: Path
    source: tuple[str, bytes]
    published: dict[str, Any] | None
    locate: FieldLocator


def load_spec(name: str, *, models: Sequence[str] = (), images: Path | None = None, sample: int | None = None) -> LoadedSpec:
    """Load a specification.

    Args:
        name: file, or name of a ready-made specification.
        models: instead of the specification's models.
        images: folder or CSV file, instead of its data set.
        sample: maximum number of images, instead of its own.

    Raises:
        BenchError: if there is no such specification, it is invalid, or the data set of a ready-made one is missing.
    """
    path = Path(name)
    ready = name in ready_names()
    if ready:
        text, base, suffix = ready_text(name), Path.cwd(), ".toml"
    elif path.suffix.lower() in (".toml", ".yaml", ".yml"):
        text, base, suffix = _read_text(path), path.parent, path.suffix.lower()
    else:
        hint = did_you_mean(name, ready_names(), f"give a .toml or .yaml file, or one of {', '.join(ready_names())}")
        raise BenchError(f"{name!r} is no specification; {hint}")
    spec, locate = _parse(text, name, yaml=suffix != ".toml")
    if ready and images is None and not (base / spec.data.path).exists():
        where = locate(("data", "path"))
        raise BenchError(
            f"{where}: {spec.data.path} does not exist; create it from {ready_data(text)}, or give --images FOLDER"
        )
    changed = _changed(spec, models, images, sample)
    options = [f"--model {model}" for model in models] + ([f"--images {images}"] if images else [])
    options += [f"--sample {sample}"] if sample is not None else []
    head = f"# changed on the command line: {one_line(' '.join(options))}\n" if options else ""
    published = published_numbers(spec.published) if spec.published is not None and spec.published in ready_names() else None
    locator = _options_first(locate, spec, changed)
    return LoadedSpec(changed, base, (f"spec{suffix}", (head + text).encode()), published, locator)


def read_spec(path: Path) -> Spec:
    """Read a TOML or YAML file.

    Raises:
        BenchError: if the file cannot be read or is invalid; names the line and the field.
    """
    return parse_spec(_read_text(path), str(path), yaml=path.suffix.lower() in (".yaml", ".yml"))


def parse_spec(text: str, name: str, *, yaml: bool = False) -> Spec:
    """Parse the text of a specification; ``name`` stands for the file in errors.

    Raises:
        BenchError: if the text is invalid; names the line and the field.
    """
    return _parse(text, name, yaml=yaml)[0]


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BenchError(f"{path}: more than {MAX_BYTES} bytes; give a specification")
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); give a .toml or .yaml file") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: not UTF-8 text; give a .toml or .yaml file") from error


def _parse(text: str, name: str, *, yaml: bool) -> tuple[Spec, FieldLocator]:
    content, line_of = (_parse_yaml if yaml else _parse_toml)(text, name)

    def locate(field: FieldPath) -> str:
        line = line_of(field)
        return f"{name}, line {line}, {field_name(field)}" if line else f"{name}, {field_name(field)}"

    try:
        return Spec.model_validate(content), locate
    except ValidationError as error:
        first, *others = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        field = _field_in(content, first["loc"], missing=first["type"] in ("missing", "extra_forbidden"))
        more = f" (and {len(others)} more)" if others else ""
        raise BenchError(f"{locate(field)}: {_problem(first)}{more}") from error


def _changed(spec: Spec, models: Sequence[str], images: Path | None, sample: int | None) -> Spec:
    """The specification with the command line's models, images and sample."""
    update: dict[str, Any] = {}
    if models:
        update["models"] = [ModelSpec(name=model) for model in models]
    if images is not None:
        kind = "csv" if images.suffix.lower() == ".csv" else "folder"
        update["data"] = DataSpec.model_validate(
            {"kind": kind, "path": images.absolute(), "sample": sample, "target": "predicted"}
        )
        metrics = [metric for metric in spec.metrics if not METRICS[metric.name].boxes]
        update["metrics"] = metrics if len(metrics) == len(spec.metrics) else [*metrics, MetricSpec(name="deletion_insertion")]
    elif sample is not None:
        update["data"] = spec.data.model_copy(update={"sample": sample})
    return spec.model_copy(update=update)


def _options_first(locate: FieldLocator, spec: Spec, changed: Spec) -> FieldLocator:
    """Locate fields that the command line changed by the name of the option."""
    options = {"models": "--model", "data": "--images", "metrics": "--images"}
    given = {field: option for field, option in options.items() if getattr(changed, field) != getattr(spec, field)}
    return lambda field: given.get(str(field[0])) or locate(field)


def field_name(field: FieldPath) -> str:
    """A field for users; positions in lists are counted from 1.

    >>> field_name(("methods", 0, "resolution"))
    'methods 1, resolution'
    """
    text = "".join(f" {part + 1}" if isinstance(part, int) else f", {part}" for part in field)
    return text.removeprefix(", ") or "the file"


@contextmanager
def located(locate: FieldLocator, *field: str | int, resolution: bool = False) -> Iterator[None]:
    """Put the place of a field before the message of a BenchError of the block.

    Args:
        locate: describes the position of a field in the file.
        field: the field, unless the error names one of its settings.
        resolution: whether the resolution is a field and not a setting.
    """
    try:
        yield
    except BenchError as error:
        setting = error.setting if isinstance(error, BenchSettingError) else None
        if setting is not None:
            field = (*field, setting) if resolution and setting == "resolution" else (*field, "settings", setting)
        raise BenchError(f"{locate(field)}: {error}") from error


def _problem(error: Any) -> str:
    """A pydantic error in words, with the value that was given."""
    if error["type"] == "extra_forbidden":
        return "there is no such field; leave it out, or see 'faithmap bench init'"
    if error["type"] == "missing":
        return "is missing; give it"
    if error["type"] == "model_type":
        return f"{str(error['input'])[:60]!r} is no table of fields; give one, such as those of 'faithmap bench init'"
    message = str(error["msg"]).removeprefix("Value error, ")
    value = error["input"]
    plain = isinstance(value, (str, int, float, bool)) and not str(error["msg"]).startswith("Value error")
    return f"{message[:1].lower()}{message[1:]}{f', not {str(value)[:60]!r}' if plain else ''}"


def _field_in(content: Any, loc: Sequence[str | int], *, missing: bool) -> FieldPath:
    """The part of pydantic's location that is a path in the file, without the names of the types that pydantic tried."""
    field: list[str | int] = []
    for key in loc:
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            if missing and key == loc[-1]:
                field.append(key)
            break
        field.append(key)
    return tuple(field)


def _parse_toml(text: str, name: str) -> tuple[Any, Callable[[FieldPath], int | None]]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", str(error))
        where, what = (f", line {found[2]}", found[1]) if found else ("", str(error))
        raise BenchError(f"{name}{where}: {what}; not valid TOML") from error
    except RecursionError as error:
        raise BenchError(f"{name}: {_TOO_DEEP}") from error
    return content, lambda field: toml_line(text, field)


def toml_line(text: str, field: FieldPath) -> int | None:
    r"""The line of a key or table header in valid TOML; for a missing field, the line of the table that it is missing in.

    tomllib reports no positions. A file's beginning is parsed instead: the field is on the first line n for which the first n
    lines hold it, completed up to the end of a value that spans several lines.

    >>> text = "a = 1\n[[b]]\nc = '''\n[[b]]\n'''\nd = 2"
    >>> toml_line(text, ("b", 0)), toml_line(text, ("b", 0, "d")), toml_line(text, ("b", 0, "e"))
    (2, 6, 2)
    """
    lines = text.split("\n")
    while field and not _has(tomllib.loads(text), field):
        field = field[:-1]

    def holds_field(count: int) -> bool:
        while True:
            try:
                return _has(tomllib.loads("\n".join(lines[:count])), field)
            except tomllib.TOMLDecodeError:
                count += 1

    return bisect_left(range(len(lines) + 1), x=True, key=holds_field) if field else None


def _has(content: Any, field: FieldPath) -> bool:
    try:
        for key in field:
            content = content[key]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _parse_yaml(text: str, name: str) -> tuple[Any, Callable[[FieldPath], int | None]]:
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise not_installed("yaml") from error
    try:
        content, root = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise BenchError(f"{name}{where}: {getattr(error, 'problem', None) or error}; not valid YAML") from error
    except RecursionError as error:
        raise BenchError(f"{name}: {_TOO_DEEP}") from error
    lines: dict[FieldPath, int] = {}
    _collect_lines(root, (), lines)

    def line_of(field: FieldPath) -> int | None:
        return next((lines[field[:length]] for length in range(len(field), 0, -1) if field[:length] in lines), None)

    return content, line_of


def _collect_lines(node: Any, field: FieldPath, lines: dict[FieldPath, int], depth: int = 0) -> None:
    """The line of each node of a YAML document, to a depth of 20."""
    if node is None or depth > 20:
        return
    lines.setdefault(field, node.start_mark.line + 1)
    if node.id == "mapping":
        for key, value in node.value:
            lines.setdefault((*field, key.value), key.start_mark.line + 1)
            _collect_lines(value, (*field, key.value), lines, depth + 1)
    elif node.id == "sequence":
        for i, value in enumerate(node.value):
            _collect_lines(value, (*field, i), lines, depth + 1)


def template() -> str:
    """The specification that ``faithmap bench init`` writes."""
    return (_FOLDER / "template.toml").read_text("utf-8")


def ready_names() -> list[str]:
    """The ready-made specifications: the tables of the papers that this project follows.

    The papers' weights and data do not come with this project; the comment at the top of each file names them. Each also runs
    on other models and images: ``faithmap bench run igos-table1 --model efficientnet_lite0 --images FOLDER``.

    >>> ready_names()[:2]
    ['expected-gradcam', 'igos-table1']
    """
    return sorted(path.stem for path in (_FOLDER / "ready").glob("*.toml"))


def ready_text(name: str) -> str:
    """The text of a ready-made specification."""
    return (_FOLDER / "ready" / f"{name}.toml").read_text("utf-8")


def ready_data(text: str) -> str:
    """The data set of a ready-made specification and its source: the comment behind its path.

    >>> ready_data(ready_text("igos-table6"))
    'VOCtrainval and VOCtest 2007 from host.robots.ox.ac.uk/pascal/VOC'
    """
    found = re.search(r'^path = "[^"]*" *# (.*)$', text, re.MULTILINE)
    return found[1] if found else "its data set"


def published_numbers(name: str) -> dict[str, Any]:
    """The paper's numbers: their source, and tables of rows that name methods of the specification."""
    found: dict[str, Any] = json.loads((_FOLDER / "ready" / f"{name}.json").read_text("utf-8"))
    return found
