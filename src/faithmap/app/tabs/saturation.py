"""The fourth tab: how much of the path to the photograph no longer moves the score."""

from __future__ import annotations

from typing import Any

import gradio as gr

from faithmap.app.controls import OWN, choices_of, whole
from faithmap.app.models import CAMS, Known
from faithmap.app.parts.parts import Picture
from faithmap.app.showing import walk_picture, walked
from faithmap.app.tabs.common import Job, Shared, class_of, connect, make_asking, stage_of
from faithmap.app.words import RefusedError
from faithmap.app.work import MOST, Walked, walk
from faithmap.baselines import BASELINES
from faithmap.cli.saturation import SaturationOptions

CHANNELS = 10
"""That methods name, at the most."""


def make_saturation(shared: Shared, known: Known) -> list[Any]:
    """The tab; returns what changes with the model: the methods and the layers."""
    with gr.Row():
        methods = gr.Dropdown(
            known.cams,
            value=[name for name in CAMS if name in known.cams],
            multiselect=True,
            max_choices=MOST,
            label="Class activation maps, up to four",
            elem_id="saturation-methods",
            scale=3,
        )
        layer = gr.Dropdown(choices_of("target_layer", known), value=OWN, label="Layer", elem_id="saturation-layer")
    with gr.Row():
        baseline = gr.Dropdown(list(BASELINES), value="blur", label="Where the path begins", elem_id="saturation-baseline")
        channels = gr.Number(
            4, precision=0, minimum=1, maximum=CHANNELS, label="Channels of each method", elem_id="saturation-channels"
        )
    pictures: list[Picture] = []
    asking = make_asking("saturation", "Walk the path", lambda: pictures.append(Picture(None, elem_id="saturation-curves")))
    desk = shared.desk

    def question(word: str, model: str, guess: Any, other: Any, names: list[str], at: str, start: str, count: Any) -> Job:
        known = desk.models.get(model)
        if not names or any(name not in known.cams for name in names) or start not in BASELINES:
            raise RefusedError("choose at least one class activation map, and where the path begins")
        asked = shared.asked(word, model)
        options = SaturationOptions(
            model=model,
            target=str(class_of(known, guess, other)),
            methods=tuple(names),
            target_layer=at or None,
            baseline=start,  # type: ignore[arg-type] # checked above
            channels=whole(count, "channels", CHANNELS),
        )
        stage = stage_of(asked)
        return Job(lambda tells: walk(asked, options, tells), lambda result: walked(result, stage))

    def curves(result: Walked) -> list[Any]:
        source, words = walk_picture(result)
        return [{"src": source, "words": words}]

    inputs = [*shared.chosen, methods, layer, baseline, channels]
    connect(shared, asking, question, inputs, curves, [pictures[0]])
    return [methods, layer]
