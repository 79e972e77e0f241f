"""Asking: a specification by its file or its ready name, and what the command line changes of it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faithmap.bench.errors import BenchError, SettingError, needs
from faithmap.bench.spec import METRICS
from faithmap.text import one_line

if TYPE_CHECKING:
    from faithmap.bench.spec import Spec


TEMPLATE = """\
# A benchmark: every method explains every image with every model, and every metric judges every map.
#   faithmap bench plan FILE     what it will take
#   faithmap bench run FILE      run it; started again after whatever stopped it, it goes on where it was
#   faithmap bench report RUN    tables and pictures

name = "my-benchmark"
seed = 0              # of the sample and of all random numbers
shard_size = 16       # images in a unit of work, which is what a stopped run loses at the most
chunk_size = 32       # images in one pass of the model; fewer need less memory, and results do not depend on it
# autocast = "bfloat16"     # a lower precision for the model's passes

[[models]]
name = "efficientnet_lite0"       # see "faithmap models"; also torchvision/NAME, timm/NAME, hf/REPO
# weights = "my.safetensors"      # a checkpoint of your own
# factory = "my_module:load"      # or a function of your own that returns a faithmap.Classifier

[data]
kind = "folder"       # or csv (columns path and target), imagenet (a folder a class), voc, coco
path = "photographs"  # relative to this file
# sample = 500        # so many of them, drawn with the seed; without it, all
# target = "label"    # explain the image's own class; without it, what the model predicts
# split = "test"      # of voc
# annotations = "instances_val2014.json"     # of coco; of imagenet, its boxes

[[methods]]
name = "rank_descent" # the default of "faithmap explain"; see "faithmap methods" for all
resolution = [28, 14] # cells a side; a row of the table for each

[[methods]]
name = "igos"
resolution = [28, 14]
# settings = { iterations = 15 }

[[methods]]
name = "gradcam"

[[methods]]
name = "random_map"   # a control: what a map is worth that knows nothing
settings = { resolution = 28 }

[[metrics]]
name = "deletion_insertion"
settings = { protocol = "igos" }  # or "rise"

# [[metrics]]
# name = "infidelity"             # also sensitivity, confidence, road, complexity; with boxes pointing_game,
# settings = { draws = 200 }      # energy_pointing_game, relevance_rank
"""
"""What ``faithmap bench init`` writes."""


@dataclass(frozen=True)
class LoadedSpec:
    """A specification, where its relative paths begin, the file that a run keeps of it, and where its fields stand."""

    spec: Spec
    base: Path
    source: tuple[str, bytes]
    published: dict[str, Any] | None
    place: FieldLocator


def load_spec(
    name: str,
    *,
    models: Sequence[str] = (),
    images: Path | None = None,
    sample: int | None = None,
) -> LoadedSpec:
    """The specification that an argument stands for.

    Args:
        name: of a file, or of a ready specification.
        models: instead of those that it names.
        images: a folder or CSV file, instead of its data set.
        sample: images at the most, instead of its own number.

    Raises:
        BenchError: for what is neither, or cannot be read; for a ready one whose data set is not here, with what to get.
    """
    path = Path(name)
    if name in ready_names():
        text, base, suffix = ready_text(name), Path.cwd(), ".toml"
        spec = parse_spec(text, name)
    elif path.suffix.lower() in (".toml", ".yaml", ".yml"):
        spec = read_spec(path)
        text, base, suffix = path.read_text("utf-8-sig"), path.parent, path.suffix.lower()
    else:
        raise BenchError(f"{name!r} is no specification; give a .toml or .yaml file, or one of {', '.join(ready_names())}")
    if name in ready_names() and images is None and not (base / spec.data.path).exists():
        where = field_locator(text, name)(("data", "path"))
        raise BenchError(f"{where}: {spec.data.path} is not here; put there {ready_data(text)}, or give --images FOLDER")
    changed = _changed(spec, models, images, sample)
    told = [f"--model {model}" for model in models] + ([f"--images {images}"] if images else [])
    told += [f"--sample {sample}"] if sample is not None else []
    head = f"# changed on the command line: {one_line(' '.join(told))}\n" if told else ""
    numbers = published_numbers(spec.published) if spec.published in ready_names() and spec.published is not None else None
    read = field_locator(text, name, yaml=suffix != ".toml")
    given = {"models": "--model", "data": "--images", "metrics": "--images"}
    others = {part: option for part, option in given.items() if getattr(changed, part) != getattr(spec, part)}

    def place(field: FieldPath) -> str:
        return others.get(str(field[0])) or read(field)

    return LoadedSpec(changed, base, (f"spec{suffix}", (head + text).encode()), numbers, place)


def _changed(spec: Spec, models: Sequence[str], images: Path | None, sample: int | None) -> Spec:
    from faithmap.bench.spec import DataSpec, MetricSpec, ModelSpec  # noqa: PLC0415 - pydantic is an extra

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


FieldPath = tuple[str | int, ...]
FieldLocator = Callable[[FieldPath], str]
"""Says where a field stands, for people."""

MAX_BYTES = 2**20

_TOO_DEEP = "its lists or tables lie too deep in each other; give a specification as 'faithmap bench init' writes"

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_.-]+)\s*=""")


def read_spec(path: Path) -> Spec:
    """The specification in a TOML or YAML file.

    Raises:
        BenchError: for a file that cannot be read or says what no benchmark can do; names the line and the field.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BenchError(f"{path}: more than {MAX_BYTES} bytes; give a specification")
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); give a .toml or .yaml file") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: not UTF-8 text; give a .toml or .yaml file") from error
    return parse_spec(text, str(path), yaml=path.suffix.lower() in (".yaml", ".yml"))


def parse_spec(text: str, name: str, *, yaml: bool = False) -> Spec:
    """The same of a text."""
    try:
        from faithmap.bench.spec import Spec  # noqa: PLC0415 - pydantic is an extra
    except ModuleNotFoundError as error:
        raise needs(str(error.name)) from error
    content, line_of = (_yaml if yaml else _toml)(text, name)
    return validated(Spec, content, _place(name, line_of))


def field_locator(text: str, name: str, *, yaml: bool = False) -> FieldLocator:
    """Where the fields of a specification stand."""
    return _place(name, (_yaml if yaml else _toml)(text, name)[1])


def _place(name: str, line_of: Callable[[FieldPath], int | None]) -> FieldLocator:
    def place(field: FieldPath) -> str:
        line = line_of(field)
        return f"{name}, line {line}, {field_name(field)}" if line else f"{name}, {field_name(field)}"

    return place


@contextmanager
def located(place: FieldLocator, *field: str | int, resolution: bool = False) -> Iterator[None]:
    """An error of the block is said to be this field's; one of a setting, that setting's.

    Args:
        place: says where it stands.
        field: of the specification.
        resolution: whether the resolution is a field of its own here.
    """
    try:
        yield
    except BenchError as error:
        setting = error.setting if isinstance(error, SettingError) else None
        own = resolution and setting == "resolution"
        where = field if setting is None else (*field, setting) if own else (*field, "settings", setting)
        raise BenchError(f"{place(where)}: {error}") from error


def validated(spec: type[Spec], content: Any, place: FieldLocator) -> Spec:
    """The content as a specification."""
    from pydantic import ValidationError  # noqa: PLC0415

    try:
        return spec.model_validate(content)
    except ValidationError as error:
        first, *others = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        field = _within(content, first["loc"], missing=first["type"] in ("missing", "extra_forbidden"))
        more = f" (and {len(others)} more)" if others else ""
        raise BenchError(f"{place(field)}: {_problem(first)}{more}") from error


def _problem(error: Any) -> str:
    """What pydantic found, and what was given."""
    if error["type"] == "extra_forbidden":
        return "there is no such field; leave it out, or see 'faithmap bench init'"
    if error["type"] == "missing":
        return "is missing; give it"
    if error["type"] == "model_type":
        return f"{str(error['input'])[:60]!r} is no table of fields; give one, such as those of 'faithmap bench init'"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error["input"]
    told = isinstance(given, (str, int, float, bool)) and not str(error["msg"]).startswith("Value error")
    return f"{message[:1].lower()}{message[1:]}{f', not {str(given)[:60]!r}' if told else ''}"


def _within(content: Any, loc: Sequence[str | int], *, missing: bool) -> FieldPath:
    """The part of pydantic's path that is a path in the file: the names of the types that it tried are not."""
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


def field_name(field: FieldPath) -> str:
    """A field for people, lists counted from 1.

    >>> field_name(("methods", 0, "resolution"))
    'methods 1, resolution'
    """
    text = "".join(f" {part + 1}" if isinstance(part, int) else f", {part}" for part in field)
    return text.removeprefix(", ") or "the file"


def _toml(text: str, name: str) -> tuple[Any, Callable[[FieldPath], int | None]]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", str(error))
        where, what = (f", line {found[2]}", found[1]) if found else ("", str(error))
        raise BenchError(f"{name}{where}: {what}; this is no TOML") from error
    except RecursionError as error:
        raise BenchError(f"{name}: {_TOO_DEEP}") from error
    lines = toml_lines(text)
    return content, lambda field: _nearest(lines, field)


def toml_lines(text: str) -> dict[FieldPath, int]:
    r"""The line of each table and key; what stands in a value has the line of its key.

    >>> toml_lines('a = 1\n[[b]]\nc.d = 2')
    {('a',): 1, ('b',): 2, ('b', 0): 2, ('b', 0, 'c', 'd'): 3}
    """
    table: FieldPath = ()
    counts: dict[FieldPath, int] = {}
    lines: dict[FieldPath, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _numbered(_parts(header[2]), counts, new=header[1] == "[[")
            for length in range(1, len(table) + 1):
                lines.setdefault(table[:length], number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_parts(key[1])), number)
    return lines


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in (dotted.split(".") if "'" not in dotted and '"' not in dotted else [dotted])]


def _numbered(names: list[str], counts: dict[FieldPath, int], *, new: bool) -> FieldPath:
    """A header's path, with the number of the last table in each list of tables."""
    path: FieldPath = ()
    for i, part in enumerate(names):
        path = (*path, part)
        if new and i == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _yaml(text: str, name: str) -> tuple[Any, Callable[[FieldPath], int | None]]:
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise needs(str(error.name)) from error
    try:
        content, root = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise BenchError(f"{name}{where}: {getattr(error, 'problem', None) or error}; this is no YAML") from error
    except RecursionError as error:
        raise BenchError(f"{name}: {_TOO_DEEP}") from error
    lines: dict[FieldPath, int] = {}
    _walk(root, (), lines)
    return content, lambda field: _nearest(lines, field)


def _walk(node: Any, path: FieldPath, lines: dict[FieldPath, int], depth: int = 0) -> None:
    if node is None or depth > 20:
        return
    lines.setdefault(path, node.start_mark.line + 1)
    if node.id == "mapping":
        for key, value in node.value:
            lines.setdefault((*path, key.value), key.start_mark.line + 1)
            _walk(value, (*path, key.value), lines, depth + 1)
    elif node.id == "sequence":
        for i, value in enumerate(node.value):
            _walk(value, (*path, i), lines, depth + 1)


def _nearest(lines: dict[FieldPath, int], field: FieldPath) -> int | None:
    """The line of a field, or of the smallest part of the file that it is missing in."""
    for length in range(len(field), 0, -1):
        if field[:length] in lines:
            return lines[field[:length]]
    return None


_HERE = Path(__file__).parent / "ready"


def ready_names() -> list[str]:
    """All of them.

    >>> ready_names()[:2]
    ['expected-gradcam', 'igos-table1']
    """
    return sorted(path.stem for path in _HERE.glob("*.toml"))


def ready_text(name: str) -> str:
    """The specification."""
    return (_HERE / f"{name}.toml").read_text("utf-8")


def ready_data(text: str) -> str:
    """What the data set of a ready specification is, and where it is from: the words behind its path.

    >>> ready_data(ready_text("igos-table6"))
    'VOCtrainval and VOCtest 2007 from host.robots.ox.ac.uk/pascal/VOC'
    """
    found = re.search(r'^path = "[^"]*" *# (.*)$', text, re.MULTILINE)
    return found[1] if found else "its data set"


def published_numbers(name: str) -> dict[str, Any]:
    """The paper's numbers: where they are from, and tables of rows that name methods of the specification."""
    found: dict[str, Any] = json.loads((_HERE / f"{name}.json").read_text("utf-8"))
    return found
