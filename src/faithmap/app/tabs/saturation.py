"""The tab "Saturation": where along the path from baseline to photograph the score stops changing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from faithmap.app.controls import DEFAULT, checked_number, choices_of
from faithmap.app.models import CAMS, OfferedModel
from faithmap.app.parts.parts import Picture
from faithmap.app.showing import path_picture, saturated, titles_of
from faithmap.app.tabs.common import SharedInputs, TabJob, class_of, make_methods, make_parts, scene_maker
from faithmap.app.tabs.connecting import MoreOutputs, connect
from faithmap.app.words import RefusedError
from faithmap.app.work import Saturated, saturate
from faithmap.studies.settings import BaselineName, SaturationSettings

MAX_CHANNELS = 10
"""Number of channels that methods list."""


@dataclass(frozen=True)
class SaturationControls:
    """Class activation maps, the layer, the start of the path, and the number of channels."""

    methods: gr.Dropdown
    layer: gr.Dropdown
    baseline: gr.Dropdown
    channels: gr.Number

    @property
    def all(self) -> list[Any]:
        """The controls, as inputs of an event."""
        return [self.methods, self.layer, self.baseline, self.channels]


def make_saturation(shared: SharedInputs, offered: OfferedModel) -> list[Any]:
    """Make the tab; returns what changes with the model: the methods and the layers."""
    controls, pictures = _controls(offered), list[Picture]()
    curves = lambda: pictures.append(Picture(None, elem_id="saturation-curves"))  # noqa: E731 - made above the viewer
    parts = make_parts("saturation", "Analyse saturation", curves)

    def make_job(token: str, model: str, guess: Any, other: Any, *values: Any) -> TabJob:
        offered = shared.state.models.get(model)
        settings = saturation_settings(offered, model, class_of(offered, guess, other), *values)
        subject = shared.subject(token, model)
        scenes = scene_maker(subject)
        return TabJob(lambda report: saturate(subject, settings, report), lambda result: saturated(result, scenes))

    connect(shared.state, parts, make_job, [*shared.all, *controls.all], MoreOutputs(_curves, [*pictures]))
    return [controls.methods, controls.layer]


def saturation_settings(
    offered: OfferedModel, model: str, target: int, names: list[str], layer: str, baseline: Any, count: Any
) -> SaturationSettings:
    """The settings of the study.

    Raises:
        RefusedError: for a value that no control offers.
    """
    if not names or any(name not in offered.cams for name in names) or baseline not in get_args(BaselineName):
        raise RefusedError("choose at least one class activation map, and where the path starts")
    return SaturationSettings(
        model=model,
        target=str(target),
        methods=tuple(names),
        target_layer=layer or None,
        baseline=baseline,
        channels=checked_number(count, "channels", MAX_CHANNELS),
    )


def _curves(result: Saturated) -> list[Any]:
    source, description = path_picture(result)
    return [{"src": source, "words": description}]


def _controls(offered: OfferedModel) -> SaturationControls:
    with gr.Row():
        proposed = [name for name in CAMS if name in offered.cams]
        methods = make_methods(titles_of(offered.cams), proposed, "Class activation maps", "saturation-methods")
        layers = choices_of("target_layer", offered, offered.default)
        layer = gr.Dropdown(layers, value=DEFAULT, label="Target layer", elem_id="saturation-layer")
    with gr.Row():
        baselines = [(name.replace("_", " "), name) for name in get_args(BaselineName)]
        baseline = gr.Dropdown(baselines, value="blur", label="Where the path starts", elem_id="saturation-baseline")
        channels = gr.Number(4, precision=0, label="Channels per method", elem_id="saturation-channels")
    return SaturationControls(methods, layer, baseline, channels)
