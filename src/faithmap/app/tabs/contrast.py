"""The tab "Why this and not that": heatmaps for two classes, and their difference."""

from __future__ import annotations

from typing import Any

import gradio as gr

from faithmap.app.asking import offered_model
from faithmap.app.controls import fitting, make_controls, settings_of
from faithmap.app.models import OfferedModel
from faithmap.app.showing import explained
from faithmap.app.tabs.common import QUICK, SharedInputs, TabJob, class_of, make_parts, scene_maker
from faithmap.app.tabs.connecting import connect
from faithmap.app.words import RefusedError
from faithmap.app.work import explain


def make_contrast(shared: SharedInputs, offered: OfferedModel) -> tuple[list[Any], list[Any]]:
    """Make the tab; returns what changes with the model, and the two classes."""
    with gr.Row():
        this = gr.Dropdown([], label="Why this class", elem_id="contrast-this", filterable=True)
        that = gr.Dropdown([], label="and not that one", elem_id="contrast-that", filterable=True)
    controls = make_controls(offered, "contrast")
    parts = make_parts("contrast", "Show both")
    state = shared.state

    def make_job(token: str, model: str, one: Any, two: Any, method: str, *values: Any) -> TabJob:
        offered = state.models.get(model)
        classes = [class_of(offered, None, one), class_of(offered, None, two)]
        if classes[0] == classes[1]:
            raise RefusedError("both classes are the same; choose two")
        subject = shared.subject(token, model)
        settings = [settings_of(offered, model, target, method, *values) for target in classes]
        scenes = scene_maker(subject)
        return TabJob(
            lambda report: explain(subject, settings, report),
            lambda result: explained(result, scenes),
            lambda unfinished: scenes.unfinished(method, unfinished),
        )

    connect(state, parts, make_job, [shared.picker, shared.model, this, that, *controls.all])

    def change(model: str, method: str) -> list[Any]:
        return fitting(offered_model(state, model), method)[1:]

    controls.method.change(change, [shared.model, controls.method], controls.changing[1:], **QUICK)
    return controls.changing, [this, that]
