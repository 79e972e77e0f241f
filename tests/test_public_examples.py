"""Every public class and function has an example that runs, and describes each of its parameters.

The examples are doctests: pytest runs them with ``--doctest-modules``. Here it is checked that they exist.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
MODULES = (
    "faithmap",
    "faithmap.bench.report",
    "faithmap.data",
    "faithmap.methods.cams",
    "faithmap.methods.captum_methods",
    "faithmap.methods.gradients",
    "faithmap.methods.masks",
    "faithmap.metrics",
    "faithmap.metrics.functional",
    "faithmap.metrics.known_truth",
    "faithmap.selection",
    "faithmap.targets",
    "faithmap.viz",
    "faithmap.zoo",
)
"""The modules that a user imports from."""


def public() -> dict[str, Callable[..., Any]]:
    """All public classes and functions, by their full names; one that several modules export is listed once."""
    found: dict[Callable[..., Any], str] = {}
    for module in map(importlib.import_module, MODULES):
        for name in getattr(module, "__all__"):  # noqa: B009
            item = getattr(module, name)
            if inspect.isclass(item) or inspect.isroutine(item):
                found.setdefault(item, f"{module.__name__}.{name}")
    return {name: item for item, name in sorted(found.items(), key=lambda entry: entry[1])}


def documented() -> dict[str, Callable[..., Any]]:
    """The classes and functions that README and docs import, by their full names."""
    found: dict[str, Callable[..., Any]] = {}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for module, names in re.findall(r"from (faithmap[\w.]*) import ([\w, ]+)", page.read_text()):
            for name in names.split(", "):
                item = getattr(importlib.import_module(module), name.strip())
                if inspect.isclass(item) or inspect.isroutine(item):
                    found[f"{module}.{name.strip()}"] = item
    return found


PUBLIC = {**documented(), **public()}


def parameters(item: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function, or of the constructor of a class; none for exceptions, dicts and protocols."""
    if getattr(item, "_is_protocol", False) or (isinstance(item, type) and issubclass(item, (BaseException, dict))):
        return []
    return list(inspect.signature(item).parameters.values())


def described(docstring: str) -> set[str]:
    """The names with an entry below ``Args:`` or ``Attributes:``."""
    sections = re.findall(r"(?:Args|Attributes):\n((?:[ \t]+\S.*\n?)+)", docstring)
    return {name for section in sections for name in re.findall(r"(?m)^\s+\*{0,2}(\w+):", section)}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (PUBLIC[name].__doc__ or "")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_of_a_public_name_is_described(name: str) -> None:
    names = {parameter.name for parameter in parameters(PUBLIC[name])}
    assert names <= described(inspect.getdoc(PUBLIC[name]) or "")


def method_descriptions(kind: type, method: str) -> set[str]:
    """The parameters that the docstring of a method describes, or that of a base with the same method."""
    functions = (inspect.unwrap(getattr(base, method)) for base in kind.__mro__ if method in vars(base))
    return {name for function in functions for name in described(inspect.getdoc(function) or "")}


@pytest.mark.parametrize("name", [name for name, item in PUBLIC.items() if isinstance(item, type)])
def test_the_parameters_of_public_methods_are_described(name: str) -> None:
    """Of methods with several; the only parameter of a method may be plain from its name and type."""
    kind = PUBLIC[name]
    assert isinstance(kind, type)
    for method, function in vars(kind).items():
        if method != "__call__" and (method.startswith("_") or not callable(getattr(kind, method))):
            continue
        names = [
            parameter.name
            for parameter in inspect.signature(getattr(kind, method)).parameters.values()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and parameter.name != "self"
        ]
        if isinstance(function, property) or len(names) < 2:
            continue
        assert set(names) <= method_descriptions(kind, method), method


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_signature_spells_its_settings_out(name: str) -> None:
    """No ``**settings: Any``: keywords are those of a TypedDict, whose keys are known."""
    for parameter in parameters(PUBLIC[name]):
        assert parameter.kind is not inspect.Parameter.VAR_POSITIONAL
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD or str(parameter.annotation).startswith("Unpack[")
