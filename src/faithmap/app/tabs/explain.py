"""The tab "Explain": a heatmap for one class."""

from __future__ import annotations

from typing import Any

from faithmap.app.asking import offered_model
from faithmap.app.controls import fitting, make_controls, settings_of
from faithmap.app.models import OfferedModel
from faithmap.app.showing import explained
from faithmap.app.tabs.common import QUICK, SharedInputs, TabJob, class_of, make_parts, scene_maker
from faithmap.app.tabs.connecting import connect
from faithmap.app.work import explain


def make_explain(shared: SharedInputs, offered: OfferedModel) -> list[Any]:
    """Make the tab; returns what changes with the model, as :func:`faithmap.app.controls.fitting` does."""
    controls = make_controls(offered, "explain")
    parts = make_parts("explain", "Explain")
    state = shared.state

    def make_job(token: str, model: str, guess: Any, other: Any, method: str, *values: Any) -> TabJob:
        offered = state.models.get(model)
        settings = settings_of(offered, model, class_of(offered, guess, other), method, *values)
        subject = shared.subject(token, model)
        scenes = scene_maker(subject)
        return TabJob(
            lambda report: explain(subject, [settings], report),
            lambda result: explained(result, scenes),
            lambda unfinished: scenes.unfinished(method, unfinished),
        )

    connect(state, parts, make_job, [*shared.all, *controls.all])

    def change(model: str, method: str) -> list[Any]:
        return fitting(offered_model(state, model), method)[1:]

    controls.method.change(change, [shared.model, controls.method], controls.changing[1:], **QUICK)
    return controls.changing
