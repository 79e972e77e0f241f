"""``faithmap methods``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from faithmap.cli.arguments import Flag, MethodName
from faithmap.cli.report import make_console
from faithmap.methods.registry import METHODS

if TYPE_CHECKING:
    from faithmap.methods.settings import Setting

_WIDTH = 100
"""Characters in a line of a setting's description."""


def methods(
    method: Annotated[MethodName | None, Parameter(show_choices=False)] = None,
    /,
    *,
    as_json: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """List the methods: what each one does, its cost in passes of the model per image, and its source.

    With a method, list its settings: default, type and range, unit, and meaning. "faithmap explain --set NAME=VALUE" changes
    one; settings of an object are written with a dot, such as step.upper=100.

    Args:
        method: a method of the list.
        as_json: print one JSON document instead of text.
    """
    names = list(METHODS) if method is None else [method]
    console = make_console()
    if as_json:
        facts = [_facts(name, with_settings=method is not None) for name in names]
        console.print(json.dumps(facts if method is None else facts[0], indent=2))
    else:
        for line in _table() if method is None else _description(method):
            console.print(line)
    return 0


def _table() -> Iterator[str]:
    rows = [("method", "passes per image", "needs", "source", "what it does")]
    for name, method in METHODS.items():
        also = f"; also {', '.join(method.also)}" if method.also else ""
        rows.append((name, method.passes, ", ".join(method.needs) or "scores", method.source, method.summary + also))
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    for row in rows:
        yield "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _description(name: str) -> Iterator[str]:
    """A method and all its settings."""
    facts = _facts(name, with_settings=True)
    needs = ", ".join(facts["needs"]) or "scores"
    yield f"{name} ({facts['title']}): {facts['summary']}"
    yield f"{facts['passes']} passes per image; needs {needs}; {facts['source']}"
    if facts["presets"]:
        yield f"presets: {', '.join(facts['presets'])}"
    for setting in facts["settings"]:
        unit = f", {setting['unit']}" if setting["unit"] else ""
        where = "" if setting["plain"] else "; in Python only"
        yield ""
        yield f"  {setting['name']} = {setting['default']}"
        yield f"      ({setting['type']}{unit}{where})"
        for line in textwrap.wrap(setting["help"], _WIDTH):
            yield f"      {line}"


def _facts(name: str, *, with_settings: bool) -> dict[str, Any]:
    """A method as plain data."""
    method = METHODS[name]
    facts: dict[str, Any] = {key: getattr(method, key) for key in ("summary", "passes", "source", "needs", "also", "presets")}
    facts = {"name": name, **{key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}}
    return {**facts, "title": method.explainer.title, "settings": list(_settings(name))} if with_settings else facts


def _settings(name: str) -> Iterator[dict[str, Any]]:
    """All settings of a method, those of its default objects behind them."""
    from torch import nn  # noqa: PLC0415 - torch takes seconds; --help must not

    from faithmap.methods.settings import settings_of  # noqa: PLC0415

    kind = METHODS[name].explainer
    in_force = kind(nn.Identity()).settings
    for setting in settings_of(kind).values():
        yield _setting(setting, setting.name, in_force)
        for inner in setting.nested.values():
            yield _setting(inner, f"{setting.name}.{inner.name}", {})


def _setting(setting: Setting, name: str, in_force: Mapping[str, Any]) -> dict[str, Any]:
    default = setting.default if setting.default is not None else in_force.get(name)
    return {
        "name": name,
        "default": setting.plain_text(default),
        "type": setting.expected,
        "unit": setting.unit,
        "plain": setting.has_plain_form,
        "help": setting.help,
    }
