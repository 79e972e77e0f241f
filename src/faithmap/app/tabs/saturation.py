"""The fourth tab: how much of the path to the photograph no longer moves the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from faithmap.app.controls import OWN, choices_of, whole
from faithmap.app.models import CAMS, Known
from faithmap.app.parts.parts import Picture
from faithmap.app.showing import path_picture, saturated, spoken_names
from faithmap.app.tabs.common import Job, Shared, class_of, make_asking, make_methods, stage_of
from faithmap.app.tabs.connecting import More, connect
from faithmap.app.words import RefusedError
from faithmap.app.work import Saturated, saturate
from faithmap.baselines import BASELINES
from faithmap.studies.settings import SaturationSettings

CHANNELS = 10
"""That methods name, at the most."""


@dataclass(frozen=True)
class Controls:
    """What can be chosen: class activation maps, the layer, where the path begins, and how many channels."""

    methods: gr.Dropdown
    layer: gr.Dropdown
    baseline: gr.Dropdown
    channels: gr.Number

    @property
    def all(self) -> list[Any]:
        """As inputs."""
        return [self.methods, self.layer, self.baseline, self.channels]


def make_saturation(shared: Shared, known: Known) -> list[Any]:
    """The tab; returns what changes with the model: the methods and the layers."""
    controls, pictures = _controls(known), list[Picture]()
    asking = make_asking("saturation", "Walk the path", lambda: pictures.append(Picture(None, elem_id="saturation-curves")))

    def question(word: str, model: str, guess: Any, other: Any, *values: Any) -> Job:
        known = shared.desk.models.get(model)
        settings = options_of(known, model, class_of(known, guess, other), *values)
        subject = shared.subject(word, model)
        stage = stage_of(subject)
        return Job(lambda tells: saturate(subject, settings, tells), lambda result: saturated(result, stage))

    connect(shared.desk, asking, question, [*shared.chosen, *controls.all], More(_curves, [*pictures]))
    return [controls.methods, controls.layer]


def options_of(
    known: Known, model: str, target: int, names: list[str], layer: str, start: str, count: Any
) -> SaturationSettings:
    """As the command would have them.

    Raises:
        RefusedError: for what no control offers.
    """
    if not names or any(name not in known.cams for name in names) or start not in BASELINES:
        raise RefusedError("choose at least one class activation map, and where the path begins")
    return SaturationSettings(
        model=model,
        target=str(target),
        methods=tuple(names),
        target_layer=layer or None,
        baseline=start,  # type: ignore[arg-type] # checked above
        channels=whole(count, "channels", CHANNELS),
    )


def _curves(result: Saturated) -> list[Any]:
    source, words = path_picture(result)
    return [{"src": source, "words": words}]


def _controls(known: Known) -> Controls:
    with gr.Row():
        proposed = [name for name in CAMS if name in known.cams]
        methods = make_methods(spoken_names(known.cams), proposed, "Class activation maps", "saturation-methods")
        layer = gr.Dropdown(choices_of("target_layer", known), value=OWN, label="Layer", elem_id="saturation-layer")
    with gr.Row():
        baselines = [(name.replace("_", " "), name) for name in BASELINES]
        baseline = gr.Dropdown(baselines, value="blur", label="Where the path begins", elem_id="saturation-baseline")
        channels = gr.Number(4, precision=0, label="Channels a method", elem_id="saturation-channels")
    return Controls(methods, layer, baseline, channels)
