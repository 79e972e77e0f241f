"""Controls: which method and with which settings, of those that fit the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from faithmap.app.models import Known
from faithmap.app.showing import spoken_names
from faithmap.app.words import RefusedError
from faithmap.baselines import BASELINES
from faithmap.methods.registry import METHODS
from faithmap.studies.settings import ExplainSettings

OWN = ""
"""Stands for the method's own choice."""

_LARGEST = {"iterations": 2000, "samples": 20000}
"""So that no visitor keeps the others waiting for hours."""

HINTS = {
    "resolution": "Cells of the map a side",
    "iterations": "Iterations at the most",
    "samples": "Samples",
    "baseline": "What a removed pixel becomes",
    "score": "Score that is explained",
    "target_layer": "Layer that is looked at",
}
"""Settings, in the order of the page, and what they are called there."""


@dataclass(frozen=True)
class Controls:
    """The controls of one tab: the method, a sentence about it, and its settings by name."""

    method: gr.Dropdown
    about: gr.Markdown
    settings: dict[str, Any]

    @property
    def all(self) -> list[Any]:
        """As inputs, in the order that :func:`options_of` takes."""
        return [self.method, *self.settings.values()]

    @property
    def changing(self) -> list[Any]:
        """As outputs of :func:`fitting`."""
        return [self.method, self.about, *self.settings.values()]


def make_controls(known: Known, name: str) -> Controls:
    """The controls for a model; ``name`` tells those of one tab from another's."""
    method = gr.Dropdown(
        spoken_names(known.methods), value=known.default, label="Method", elem_id=f"{name}-method", filterable=True
    )
    about = gr.Markdown(about_method(known.default), elem_classes="fm-about")
    with gr.Accordion("Settings", open=False, elem_id=f"{name}-settings"), gr.Row():
        settings = {setting: _control(setting, known, f"{name}-{setting}") for setting in HINTS}
    return Controls(method, about, settings)


def _control(setting: str, known: Known, elem_id: str) -> Any:
    shown = setting in known.methods[known.default]
    common: dict[str, Any] = {"label": HINTS[setting], "visible": shown, "elem_id": elem_id, "min_width": 150}
    if setting in ("resolution", "iterations", "samples"):
        return gr.Number(own_value(known.default, setting), precision=0, placeholder="the method's own", **common)
    return gr.Dropdown(choices_of(setting, known), value=OWN, **common)


def choices_of(setting: str, known: Known) -> list[tuple[str, str]]:
    """What can be chosen, the method's own first."""
    values = {"baseline": list(BASELINES), "score": ["probability", "logit"], "target_layer": list(known.layers)}[setting]
    return [
        ("the method's own", OWN),
        *((value.replace("_", " ") if setting == "baseline" else value, value) for value in values),
    ]


def about_method(name: str) -> str:
    """What a method does, costs, and where it comes from."""
    method = METHODS[name]
    summary = method.summary[0].upper() + method.summary[1:]
    return f"{summary}. Passes of the model: {method.passes}. Source: {method.source}."


def own_value(method: str, setting: str) -> int | None:
    """A method's own number, where it is a plain one."""
    found = METHODS[method].explainer.__dataclass_fields__.get(setting)
    return found.default if found is not None and type(found.default) is int else None


def fitting(known: Known, method: str | None) -> list[Any]:
    """What the controls become for a model and a method; the default where that does not fit."""
    fits = spoken_names(known.methods)
    name = method if method in known.methods else known.default
    updates: list[Any] = [gr.update(choices=fits, value=name), about_method(name)]
    for setting in HINTS:
        shown = setting in known.methods[name]
        if setting in ("resolution", "iterations", "samples"):
            updates.append(gr.update(visible=shown, value=own_value(name, setting)))
        else:
            updates.append(gr.update(visible=shown, value=OWN, choices=choices_of(setting, known)))
    return updates


def options_of(known: Known, model: str, target: int | None, method: str, *values: Any, **more: Any) -> ExplainSettings:
    """As a command would have them; a setting that is the method's own is left out.

    Raises:
        RefusedError: for what no control offers.
    """
    if method not in known.methods:
        raise RefusedError("this method does not fit the model; choose another")
    settings: dict[str, Any] = {}
    for setting, value in zip(HINTS, values, strict=True):
        if value in (None, OWN) or setting not in known.methods[method]:
            continue
        if setting not in ("resolution", *_LARGEST):
            settings[setting] = value
            continue
        number = whole(value, HINTS[setting], known.cells() if setting == "resolution" else _LARGEST[setting])
        if number != own_value(method, setting):
            settings[setting] = number
    return ExplainSettings(model=model, method=method, target=None if target is None else str(target), **settings, **more)


def whole(value: Any, name: str, largest: int) -> int:
    """A number from 1 to the largest. Gradio's own limits would refuse it without a word of why.

    Raises:
        RefusedError: for anything else.
    """
    if value is None:
        raise RefusedError(f"{name.lower()}: there is no number; give one from 1 to {largest}")
    if not isinstance(value, (int, float)) or value != value or not 1 <= value <= largest:
        raise RefusedError(f"{name.lower()}: {value} is not between 1 and {largest}; change it")
    return int(value)
