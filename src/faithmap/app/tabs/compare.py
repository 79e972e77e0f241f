"""The tab "Compare": several methods side by side, or one with several settings or resolutions."""

from __future__ import annotations

from typing import Any

import gradio as gr

from faithmap.app.controls import checked_number, entries_of
from faithmap.app.models import OfferedModel
from faithmap.app.showing import compared, titles_of
from faithmap.app.tabs.common import SharedInputs, TabJob, class_of, make_methods, make_parts, scene_maker
from faithmap.app.tabs.connecting import connect
from faithmap.app.work import MAX_METHODS, compare
from faithmap.studies.settings import CompareSettings

PROPOSED = ("rank_descent", "expected_fusedcam", "gradcam", "integrated_gradients")
"""The methods that are chosen at first; slow ones are not among them."""


def offered_methods(offered: OfferedModel) -> list[tuple[str, str]]:
    """The methods that fit the model, as choices of a control."""
    return titles_of(offered.methods)


def proposed_methods(offered: OfferedModel) -> list[str]:
    """The methods that are chosen at first."""
    return [name for name in PROPOSED if name in offered.methods][:MAX_METHODS]


def make_compare(shared: SharedInputs, offered: OfferedModel) -> gr.Dropdown:
    """Make the tab; returns the methods, which change with the model."""
    with gr.Row():
        methods = make_methods(offered_methods(offered), proposed_methods(offered), "Methods", "compare-methods")
        cells = min(CompareSettings.resolution, offered.max_resolution())
        side = gr.Number(cells, precision=0, label="Cells per side", elem_id="compare-side")
    more = gr.Textbox(
        label="More entries: methods with a resolution or settings of their own",
        placeholder="igos@14, igos@28:noise_std=0",
        max_lines=1,
        elem_id="compare-entries",
    )
    parts = make_parts("compare", "Compare")

    def make_job(token: str, model: str, guess: Any, other: Any, names: list[str], cells: Any, text: str) -> TabJob:
        offered = shared.state.models.get(model)
        methods = entries_of(offered, names, text)
        target = str(class_of(offered, guess, other))
        resolution = checked_number(cells, "cells per side", offered.max_resolution())
        settings = CompareSettings(model=model, target=target, methods=methods, resolution=resolution)
        subject = shared.subject(token, model)
        scenes = scene_maker(subject)
        return TabJob(
            lambda report: compare(subject, settings, report),
            lambda result: compared(result, scenes),
            lambda unfinished: scenes.unfinished("rank_descent", unfinished),
        )

    connect(shared.state, parts, make_job, [*shared.all, methods, side, more])
    return methods
