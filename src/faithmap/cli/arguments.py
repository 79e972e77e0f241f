"""Arguments of the study commands: how a text is parsed, and the group of an option in ``--help``.

The arguments of a command are a dataclass that derives from the settings of its study (:mod:`faithmap.studies.settings`) and
from :class:`CommonArguments`. It declares again only the settings that are parsed in a special way. Names, defaults and
descriptions are those of the settings; a description in a study's own settings replaces that of the common ones. Annotations
are not postponed: cyclopts would look up their names in the module of the command.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

from cyclopts import Group, Parameter, Token
from cyclopts.types import PositiveInt

from faithmap.methods.registry import METHODS, MethodVariant, method_named, split_entries
from faithmap.studies.settings import MapPart, Outputs, Resolution, StudySettings

_BOX = Parameter(group=Group("Class, model, results and run", sort_key=1))

Flag: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]
"""A flag that is off unless it is given."""

Assignments: TypeAlias = Annotated[tuple[str, ...], Parameter(negative="", metavar="NAME=VALUE", show_default=False)]
"""Settings of methods."""

Out: TypeAlias = Annotated[Path, _BOX]
"""The folder for the results, whose default differs from study to study."""


@dataclass(frozen=True, kw_only=True)
class CommonArguments(StudySettings):
    """Arguments that all studies of images have.

    Args:
        json: print one JSON document instead of text, and no progress.
    """

    target: Annotated[str | None, _BOX] = None
    model: Annotated[str, _BOX] = StudySettings.model
    weights: Annotated[Path | None, _BOX] = None
    outputs: Annotated[Outputs | None, _BOX] = None
    out: Out = StudySettings.out
    overwrite: Annotated[Flag, _BOX] = False
    seed: Annotated[int, _BOX] = StudySettings.seed
    device: Annotated[str | None, _BOX] = None
    chunk: Annotated[PositiveInt, _BOX] = StudySettings.chunk
    set: Annotated[Assignments, _BOX] = ()
    json: Annotated[Flag, _BOX] = False


def parse_method(_: Any, tokens: Sequence[Token]) -> str:
    """``igos``, or another name of a method such as ``mwp``; returns the registry's name."""
    return method_named(tokens[0].value)


def parse_methods(_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """``igos,gradcam``: names separated by commas, each method once."""
    return tuple(dict.fromkeys(method_named(name.strip()) for name in tokens[0].value.split(",")))


def parse_entries(_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """``igos@28,igos@28:noise_std=0``: entries separated by commas, each once."""
    return tuple(dict.fromkeys(str(MethodVariant.parse(entry)) for entry in split_entries(tokens[0].value)))


def parse_parts(_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """``overlay,curves``: parts separated by commas, each once, the curves below a map."""
    names = tuple(dict.fromkeys(name.strip() for name in tokens[0].value.split(",")))
    for name in names:
        if name not in get_args(MapPart):
            raise ValueError(f'"{name}" is no part of the picture; give some of {", ".join(get_args(MapPart))}')
    if names[0] == "curves":
        raise ValueError("the curves stand below a map; give overlay or cells first, such as overlay,curves")
    return names


def parse_resolution(_: Any, tokens: Sequence[Token]) -> Resolution:
    """``28`` is a square, ``14x20`` is 14 rows and 20 columns."""
    text = tokens[0].value
    cells = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", text)
    if cells is None:
        raise ValueError(f'"{text}" is no resolution; give cells per side, such as 28, or rows and columns, such as 14x20')
    rows, columns = cells.groups()
    return int(rows) if columns is None else (int(rows), int(columns))


_FRACTION = re.compile(r"(?P<over>\d{1,9}(\.\d{0,9})?|\.\d{1,9})(/(?P<under>\d{1,9}))?")


def parse_fraction(_: Any, tokens: Sequence[Token]) -> float:
    """``0.03`` or ``8/255``: more than 0, and at most 1."""
    return _fraction(tokens[0].value)


def parse_fractions(_: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    """``0.05,0.1``: fractions separated by commas, each more than 0 and at most 1."""
    return tuple(_fraction(text.strip()) for text in tokens[0].value.split(","))


def _fraction(text: str) -> float:
    number = _FRACTION.fullmatch(text)
    under = float(number["under"] or 1) if number else 0.0
    value = float(number["over"]) / under if number and under else 0.0
    if not 0 < value <= 1:
        raise ValueError(f'"{text}" is not more than 0 and at most 1; give a number such as 0.03, or 8/255')
    return value


_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_time(_: Any, tokens: Sequence[Token]) -> float:
    """``90s``, ``2m`` or ``1h`` in seconds."""
    text = tokens[0].value
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([smh])", text)
    if found is None or float(found[1]) == 0:
        raise ValueError(f'"{text}" is no time; give seconds, minutes or hours, such as 90s, 2m or 1h')
    return float(found[1]) * _SECONDS[found[2]]


if TYPE_CHECKING:
    MethodName: TypeAlias = str
else:
    MethodName = Annotated[Literal[tuple(METHODS)], Parameter(converter=parse_method, n_tokens=1)]
"""The name of a method in ``faithmap.methods.registry``, which is read without torch."""

MethodNames: TypeAlias = Annotated[
    tuple[str, ...], Parameter(converter=parse_methods, n_tokens=1, negative="", metavar="NAMES")
]
MethodEntries: TypeAlias = Annotated[
    tuple[str, ...], Parameter(converter=parse_entries, n_tokens=1, negative="", metavar="ENTRIES")
]
MapParts: TypeAlias = Annotated[tuple[MapPart, ...], Parameter(converter=parse_parts, n_tokens=1, negative="", metavar="PARTS")]
OptionalResolution: TypeAlias = Annotated[
    Resolution | None, Parameter(converter=parse_resolution, n_tokens=1, negative="", metavar="CELLS")
]
Fraction: TypeAlias = Annotated[float, Parameter(converter=parse_fraction, n_tokens=1, negative="")]
Fractions: TypeAlias = Annotated[
    tuple[float, ...], Parameter(converter=parse_fractions, n_tokens=1, negative="", metavar="SHARES")
]
