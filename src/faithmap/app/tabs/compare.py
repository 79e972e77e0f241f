"""The third tab: several methods side by side."""

from __future__ import annotations

from typing import Any

import gradio as gr

from faithmap.app.controls import whole
from faithmap.app.models import Known
from faithmap.app.showing import compared, spoken_names
from faithmap.app.tabs.common import Job, Shared, class_of, make_asking, make_methods, stage_of
from faithmap.app.tabs.connecting import connect
from faithmap.app.words import RefusedError
from faithmap.app.work import MAX_METHODS, compare
from faithmap.studies.settings import CompareSettings

CELLS = 28
"""A side, where nothing else is chosen."""


def offered(known: Known) -> list[tuple[str, str]]:
    """The methods that fit the model, as they are called and by name."""
    return spoken_names(known.methods)


def proposed(known: Known) -> list[str]:
    """Those that the command compares, as far as they fit, without the slowest."""
    wanted = ("rank_descent", "expected_gradcam", "gradcam", "integrated_gradients")
    return [name for name in wanted if name in known.methods][:MAX_METHODS]


def make_compare(shared: Shared, known: Known) -> gr.Dropdown:
    """The tab; returns the methods, which change with the model."""
    methods, side = _controls(known)
    asking = make_asking("compare", "Compare")

    def question(word: str, model: str, guess: Any, other: Any, names: list[str], cells: Any) -> Job:
        known = shared.desk.models.get(model)
        if not names or any(name not in known.methods for name in names):
            raise RefusedError("choose at least one method, of those that fit the model")
        target = str(class_of(known, guess, other))
        resolution = whole(cells, "cells a side", known.cells())
        settings = CompareSettings(model=model, target=target, methods=tuple(names), resolution=resolution)
        subject = shared.subject(word, model)
        stage = stage_of(subject)
        return Job(
            lambda tells: compare(subject, settings, tells),
            lambda result: compared(result, stage),
            lambda grown: stage.growing("rank_descent", grown),
        )

    connect(shared.desk, asking, question, [*shared.chosen, methods, side])
    return methods


def _controls(known: Known) -> tuple[gr.Dropdown, gr.Number]:
    with gr.Row():
        methods = make_methods(offered(known), proposed(known), "Methods", "compare-methods")
        side = gr.Number(min(CELLS, known.cells()), precision=0, label="Cells a side", elem_id="compare-side")
    return methods, side
