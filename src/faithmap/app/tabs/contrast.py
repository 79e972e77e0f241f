"""The second tab: why this class and not that one."""

from __future__ import annotations

from typing import Any

import gradio as gr

from faithmap.app.asking import known_to
from faithmap.app.controls import fitting, make_controls, options_of
from faithmap.app.models import Known
from faithmap.app.showing import explained
from faithmap.app.tabs.common import QUICK, Job, Shared, class_of, make_asking, stage_of
from faithmap.app.tabs.connecting import connect
from faithmap.app.words import RefusedError
from faithmap.app.work import explain


def make_contrast(shared: Shared, known: Known) -> tuple[list[Any], list[Any]]:
    """The tab; returns what changes with the model, and the two classes."""
    with gr.Row():
        this = gr.Dropdown([], label="Why this class", elem_id="contrast-this", filterable=True)
        that = gr.Dropdown([], label="and not that one", elem_id="contrast-that", filterable=True)
    controls = make_controls(known, "contrast")
    asking = make_asking("contrast", "Show both")
    desk = shared.desk

    def question(word: str, model: str, one: Any, two: Any, method: str, *values: Any) -> Job:
        known = desk.models.get(model)
        classes = [class_of(known, None, one), class_of(known, None, two)]
        if classes[0] == classes[1]:
            raise RefusedError("both classes are the same; choose two")
        subject = shared.subject(word, model)
        settings = [options_of(known, model, target, method, *values) for target in classes]
        stage = stage_of(subject)
        return Job(
            lambda tells: explain(subject, settings, tells), lambda r: explained(r, stage), lambda g: stage.growing(method, g)
        )

    connect(desk, asking, question, [shared.picker, shared.model, this, that, *controls.all])

    def change(model: str, method: str) -> list[Any]:
        return fitting(known_to(desk, model), method)[1:]

    controls.method.change(change, [shared.model, controls.method], controls.changing[1:], **QUICK)
    return controls.changing, [this, that]
