"""Read a specification; what is wrong with it is said in one line, with the file's line and the field."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faithmap.bench.errors import BenchError, SettingError, needs

if TYPE_CHECKING:
    from faithmap.bench.spec import Spec

Field = tuple[str | int, ...]
Place = Callable[[Field], str]
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


def places(text: str, name: str, *, yaml: bool = False) -> Place:
    """Where the fields of a specification stand."""
    return _place(name, (_yaml if yaml else _toml)(text, name)[1])


def _place(name: str, line_of: Callable[[Field], int | None]) -> Place:
    def place(field: Field) -> str:
        line = line_of(field)
        return f"{name}, line {line}, {shown(field)}" if line else f"{name}, {shown(field)}"

    return place


@contextmanager
def placed(place: Place, *field: str | int, resolution: bool = False) -> Iterator[None]:
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


def validated(spec: type[Spec], content: Any, place: Place) -> Spec:
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


def _within(content: Any, loc: Sequence[str | int], *, missing: bool) -> Field:
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


def shown(field: Field) -> str:
    """A field for people, lists counted from 1.

    >>> shown(("methods", 0, "resolution"))
    'methods 1, resolution'
    """
    text = "".join(f" {part + 1}" if isinstance(part, int) else f", {part}" for part in field)
    return text.removeprefix(", ") or "the file"


def _toml(text: str, name: str) -> tuple[Any, Callable[[Field], int | None]]:
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


def toml_lines(text: str) -> dict[Field, int]:
    r"""The line of each table and key; what stands in a value has the line of its key.

    >>> toml_lines('a = 1\n[[b]]\nc.d = 2')
    {('a',): 1, ('b',): 2, ('b', 0): 2, ('b', 0, 'c', 'd'): 3}
    """
    table: Field = ()
    counts: dict[Field, int] = {}
    lines: dict[Field, int] = {}
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


def _numbered(names: list[str], counts: dict[Field, int], *, new: bool) -> Field:
    """A header's path, with the number of the last table in each list of tables."""
    path: Field = ()
    for i, part in enumerate(names):
        path = (*path, part)
        if new and i == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _yaml(text: str, name: str) -> tuple[Any, Callable[[Field], int | None]]:
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
    lines: dict[Field, int] = {}
    _walk(root, (), lines)
    return content, lambda field: _nearest(lines, field)


def _walk(node: Any, path: Field, lines: dict[Field, int], depth: int = 0) -> None:
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


def _nearest(lines: dict[Field, int], field: Field) -> int | None:
    """The line of a field, or of the smallest part of the file that it is missing in."""
    for length in range(len(field), 0, -1):
        if field[:length] in lines:
            return lines[field[:length]]
    return None
