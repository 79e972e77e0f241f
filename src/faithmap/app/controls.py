"""Controls: the method and its settings, of those that fit the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from faithmap.app.models import OfferedModel
from faithmap.app.showing import titles_of
from faithmap.app.words import RefusedError
from faithmap.methods.registry import METHODS, PRESET, MethodVariant, assigned, split_entries
from faithmap.methods.settings import find_setting, settings_of as method_settings
from faithmap.studies.settings import BaselineName, ExplainSettings

DEFAULT = ""
"""Value of a control that stands for the method's default."""

_MAX = {"iterations": 2000, "samples": 20000}
"""Limits, so that no visitor blocks the others for hours."""

NUMBERS = ("resolution", "iterations", "samples")
LABELS = {
    "resolution": "Cells per side",
    "iterations": "Maximum number of iterations",
    "samples": "Samples",
    "baseline": "Baseline",
    "score": "Explained score",
    "target_layer": "Target layer",
}
"""Settings, in the order of the page, and their labels."""


@dataclass(frozen=True)
class MethodControls:
    """The controls of one tab: the method, a description of it, and its settings by name."""

    method: gr.Dropdown
    about: gr.Markdown
    settings: dict[str, Any]

    @property
    def all(self) -> list[Any]:
        """As inputs, in the order of the arguments of :func:`settings_of`."""
        return [self.method, *self.settings.values()]

    @property
    def changing(self) -> list[Any]:
        """As outputs of :func:`fitting`."""
        return [self.method, self.about, *self.settings.values()]


def make_controls(offered: OfferedModel, name: str) -> MethodControls:
    """The controls for a model; ``name`` is the tab's."""
    method = gr.Dropdown(
        titles_of(offered.methods), value=offered.default, label="Method", elem_id=f"{name}-method", filterable=True
    )
    about = gr.Markdown(about_method(offered.default), elem_classes="fm-about")
    with gr.Accordion("Settings", open=False, elem_id=f"{name}-settings"), gr.Row():
        settings = {setting: _control(setting, offered, f"{name}-{setting}") for setting in LABELS}
    return MethodControls(method, about, settings)


def _control(setting: str, offered: OfferedModel, elem_id: str) -> Any:
    offers_setting = setting in offered.methods[offered.default]
    common: dict[str, Any] = {"label": LABELS[setting], "visible": offers_setting, "elem_id": elem_id, "min_width": 150}
    if setting in NUMBERS:
        return gr.Number(default_number(offered.default, setting), precision=0, placeholder="default", **common)
    return gr.Dropdown(choices_of(setting, offered, offered.default), value=DEFAULT, **common)


def choices_of(setting: str, offered: OfferedModel, method: str) -> list[tuple[str, str]]:
    """The choices for a setting of a method; the first one is the method's default."""
    values: dict[str, list[str]] = {
        "baseline": list(get_args(BaselineName)),
        "score": method_settings(METHODS[method].explainer)["score"].choices,
        "target_layer": list(offered.layers),
    }
    labels = [value.replace("_", " ") if setting == "baseline" else value for value in values[setting]]
    return [("the method's default", DEFAULT), *zip(labels, values[setting], strict=True)]


def about_method(name: str) -> str:
    """What a method does, its cost, and its source."""
    method = METHODS[name]
    summary = method.summary[0].upper() + method.summary[1:]
    return f"{summary}. Passes of the model: {method.passes}. Source: {method.source}."


def default_number(method: str, setting: str) -> int | None:
    """The default of a setting if it is a plain number."""
    found = method_settings(METHODS[method].explainer).get(setting)
    return found.default if found is not None and type(found.default) is int else None


def fitting(offered: OfferedModel, method: str | None) -> list[Any]:
    """The controls for a model and a method; for a method that does not fit, those of the default method."""
    fits = titles_of(offered.methods)
    name = offered.default if method is None or method not in offered.methods else method
    updates: list[Any] = [gr.update(choices=fits, value=name), about_method(name)]
    for setting in LABELS:
        offers_setting = setting in offered.methods[name]
        if setting in NUMBERS:
            updates.append(gr.update(visible=offers_setting, value=default_number(name, setting)))
        else:
            updates.append(gr.update(visible=offers_setting, value=DEFAULT, choices=choices_of(setting, offered, name)))
    return updates


def settings_of(offered: OfferedModel, model: str, target: int | None, method: str, *values: Any) -> ExplainSettings:
    """The settings of the study; those with the method's default are left out.

    Raises:
        RefusedError: for a value that no control offers.
    """
    if method not in offered.methods:
        raise RefusedError("this method does not fit the model; choose another")
    settings: dict[str, Any] = {}
    for setting, value in zip(LABELS, values, strict=True):
        if value in (None, DEFAULT) or setting not in offered.methods[method]:
            continue
        if setting not in NUMBERS:
            settings[setting] = value
            continue
        number = checked_number(value, LABELS[setting], _MAX.get(setting, offered.max_resolution()))
        if number != default_number(method, setting):
            settings[setting] = number
    return ExplainSettings(model=model, method=method, target=None if target is None else str(target), **settings)


def checked_number(value: Any, label: str, largest: int) -> int:
    """A whole number from 1 to the largest. Gradio's own limits would refuse a number without a message.

    Raises:
        RefusedError: for anything else.
    """
    name = label.lower()
    if value is None:
        raise RefusedError(f"{name}: no number is given; give one from 1 to {largest}")
    if not isinstance(value, (int, float)) or value != value or not 1 <= value <= largest:
        raise RefusedError(f"{name}: {value} is not between 1 and {largest}; change it")
    return int(value)


_MAX_NUMBER = 20000
"""Limit of all other numbers."""


def entries_of(offered: OfferedModel, methods: Sequence[str], text: str) -> tuple[str, ...]:
    """The entries of a comparison: methods, and more of them in a text such as ``igos@14, igos:noise_std=0``.

    Raises:
        RefusedError: for no entry, a method that does not fit the model, or a number that no control offers.
        SettingError: for a text that is no entry.
    """
    texts = split_entries(text) if text.strip() else []
    entries = [MethodVariant.parse(entry) for entry in [*methods, *texts]]
    if not entries:
        raise RefusedError("choose at least one method, or give more entries")
    for entry in entries:
        _check_entry(offered, entry)
    return tuple(dict.fromkeys(map(str, entries)))


def _check_entry(offered: OfferedModel, entry: MethodVariant) -> None:
    if entry.name not in offered.methods:
        raise RefusedError(f"{entry.name} does not fit the model; choose another method")
    for side in entry.resolution or ():
        checked_number(side, f"resolution of {entry}", offered.max_resolution())
    for name, value in assigned(entry.settings, [entry.name])[entry.name].items():
        if name == PRESET:
            continue
        setting = find_setting(METHODS[entry.name].explainer, name, entry.name)[-1]
        if setting.of_run:
            raise RefusedError(f"{name} is the same for all methods; leave it out")
        largest = offered.max_resolution() if setting.name == "resolution" else _MAX.get(setting.name, _MAX_NUMBER)
        _check_numbers(value, name, largest)


def _check_numbers(value: Any, name: str, largest: int) -> None:
    """Refuse a value in plain form if any number in it is beyond the largest."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _check_numbers(item, name, largest)
    elif isinstance(value, (int, float)) and not abs(value) <= largest:
        raise RefusedError(f"{name}: {value} is more than {largest}; change it")
