"""Fitting: whether a setting from a file can be meant where a method or metric takes one, by the annotation there.

Numbers, texts, lists and named objects are told apart; of whatever else an annotation allows, the method decides.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from faithmap.baselines import Blur, MedianBlur
from faithmap.methods.masks.steps import LineSearch, Nesterov

NAMED: Mapping[str, type] = {"blur": Blur, "median_blur": MedianBlur, "line_search": LineSearch, "nesterov": Nesterov}
"""What a table with a key ``kind`` stands for."""


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: object) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _all(each: Callable[[object], bool], count: int | None = None) -> Callable[[object], bool]:
    return lambda value: isinstance(value, tuple) and all(map(each, value)) and count in (None, len(value))


_PLAIN: dict[str, tuple[str, Callable[[object], bool]]] = {
    "int": ("a whole number", _is_int),
    "float": ("a number", _is_float),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "str": ("a text", lambda value: isinstance(value, str)),
    "None": ("", lambda value: value is None),
    "tuple[int, int]": ("two whole numbers", _all(_is_int, 2)),
    "tuple[float, float]": ("two numbers", _all(_is_float, 2)),
    "tuple[float, ...]": ("a list of numbers", _all(_is_float)),
    "Sequence[float]": ("a list of numbers", _all(_is_float)),
}


def misfit(value: object, annotation: str, names: Mapping[str, Any]) -> str | None:
    """What would fit, in words, where a value cannot be meant; None where it can, or where the annotation does not say.

    Args:
        value: from a file, lists made into tuples and tables into objects.
        annotation: as it stands in the code.
        names: of the module that it stands in.

    >>> misfit("many", "int | None", {})
    'a whole number'
    >>> misfit(3, "int | None", {}), misfit("x", "Unheard", {})
    (None, None)
    """
    wanted: list[str] = []
    for part in annotation.split(" | "):
        words, fits = _PLAIN.get(part) or _named(names.get(part))
        if fits is None or fits(value):
            return None
        wanted += [words] * bool(words)
    return " or ".join(wanted)


def _named(kind: Any) -> tuple[str, Callable[[object], bool] | None]:
    """What an alias or a class takes."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}", lambda value: value in get_args(kind)
    if isinstance(kind, type):
        word = next((name for name, made in NAMED.items() if made is kind), None)
        return "" if word is None else f'a table with kind = "{word}"', lambda value: isinstance(value, kind)
    return "", None


def field_annotation(kind: type, name: str) -> tuple[str, Mapping[str, Any]]:
    """Of a dataclass's field, and the names where it was written."""
    home = next(base for base in kind.__mro__ if name in inspect.get_annotations(base))
    return inspect.get_annotations(home)[name], vars(sys.modules[home.__module__])


def argument_annotation(function: Callable[..., Any], name: str) -> tuple[str, Mapping[str, Any]] | None:
    """Of a function's argument, and the names where it was written; None where it has no such argument."""
    found = inspect.signature(function).parameters.get(name)
    return None if found is None else (str(found.annotation), vars(sys.modules[function.__module__]))
