"""The first tab: why this class."""

from __future__ import annotations

from typing import Any

from faithmap.app.asking import known_to
from faithmap.app.controls import fitting, make_controls, options_of
from faithmap.app.models import Known
from faithmap.app.showing import explained
from faithmap.app.tabs.common import QUICK, Job, Shared, class_of, make_asking, stage_of
from faithmap.app.tabs.connecting import connect
from faithmap.app.work import explain


def make_explain(shared: Shared, known: Known) -> list[Any]:
    """The tab; returns what changes with the model, as :func:`faithmap.app.controls.fitting` does."""
    controls = make_controls(known, "explain")
    asking = make_asking("explain", "Explain")
    desk = shared.desk

    def question(word: str, model: str, guess: Any, other: Any, method: str, *values: Any) -> Job:
        known = desk.models.get(model)
        settings = options_of(known, model, class_of(known, guess, other), method, *values)
        subject = shared.subject(word, model)
        stage = stage_of(subject)
        return Job(
            lambda tells: explain(subject, [settings], tells), lambda r: explained(r, stage), lambda g: stage.growing(method, g)
        )

    connect(desk, asking, question, [*shared.chosen, *controls.all])

    def change(model: str, method: str) -> list[Any]:
        return fitting(known_to(desk, model), method)[1:]

    controls.method.change(change, [shared.model, controls.method], controls.changing[1:], **QUICK)
    return controls.changing
