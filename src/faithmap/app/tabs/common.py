"""What every tab has: what the column on the left chose, a button that asks, one that cancels, and what is taken away.

What a click does is in :mod:`faithmap.app.tabs.connecting`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from faithmap.app.desk import Desk
from faithmap.app.models import Known
from faithmap.app.parts.parts import Fetch, Picker, Status
from faithmap.app.showing import Scene, Stage
from faithmap.app.viewer.component import Viewer
from faithmap.app.words import RefusedError
from faithmap.app.work import MAX_METHODS, Subject
from faithmap.explanation import Explanation

QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
SLOW: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "show_progress": "hidden",
    "api_visibility": "private",
}
"""How events are answered: at once, or in turn since they ask a model."""

UNANSWERED = """() => ({
    share: null, text: "the server does not answer; see whether faithmap still runs, and reload", error: true
})"""
"""What the browser itself says where nobody else can."""

Question = Callable[..., "Job"]
"""From the values of a tab's inputs to what is to be done."""


@dataclass(frozen=True)
class Job:
    """What a click asks for: the work, and how its result and what grows are shown."""

    work: Callable[..., Any]
    show: Callable[[Any], Scene]
    grow: Callable[[Explanation], Scene] | None = None


@dataclass(frozen=True)
class Shared:
    """What all tabs ask about: the photograph, the model, and its class."""

    desk: Desk
    picker: Picker
    model: gr.Dropdown
    guesses: gr.Radio
    other: gr.Dropdown

    def subject(self, word: str, model: str) -> Subject:
        """The photograph of that word, and the model."""
        return Subject(self.desk.shelf.get(word), self.desk.models.get(model).model)

    @property
    def chosen(self) -> list[Any]:
        """Inputs that every tab has."""
        return [self.picker, self.model, self.guesses, self.other]


def class_of(known: Known, guess: Any, other: Any) -> int:
    """The class that is chosen: one that was searched for, else one of the buttons.

    Raises:
        RefusedError: where none is.
    """
    value = other if type(other) is int else guess
    count = len(known.model.labels or ()) or None
    if type(value) is not int or value < 0 or (count is not None and value >= count):
        raise RefusedError("choose a class first")
    return value


@dataclass(frozen=True)
class Asking:
    """A tab's buttons and what they fill."""

    name: str
    start: gr.Button
    cancel: gr.Button
    status: Status
    viewer: Viewer
    taken: gr.Accordion
    command: gr.Code
    python: gr.Code
    pack: gr.Button
    fetch: Fetch


def make_buttons(name: str, text: str) -> tuple[gr.Button, gr.Button, Status]:
    """The button that asks, the one that cancels, and the line that says how it goes."""
    with gr.Row(elem_classes="fm-buttons"):
        start = gr.Button(text, variant="primary", elem_id=f"{name}-start")
        cancel = gr.Button("Cancel", interactive=False, scale=0, min_width=110, elem_id=f"{name}-cancel")
    return start, cancel, Status(None, elem_id=f"{name}-status")


def make_asking(name: str, text: str, *between: Callable[[], Any]) -> Asking:
    """Buttons, viewer, and what is taken away, from top to bottom; ``between`` makes parts above the viewer."""
    start, cancel, status = make_buttons(name, text)
    for make in between:
        make()
    viewer = Viewer(None, elem_id=f"{name}-viewer")
    with gr.Accordion("Take it away", open=False, visible=False, elem_id=f"{name}-take") as taken:
        command = gr.Code(label="The same in a terminal", language="shell", interactive=False, elem_id=f"{name}-command")
        python = gr.Code(label="The same in Python", language="python", interactive=False, elem_id=f"{name}-python")
        with gr.Row():
            pack = gr.Button("Result folder as a zip", elem_id=f"{name}-pack")
            fetch = Fetch(None, elem_id=f"{name}-fetch")
    return Asking(name, start, cancel, status, viewer, taken, command, python, pack, fetch)


def make_methods(offered: list[tuple[str, str]], proposed: list[str], label: str, place: str) -> gr.Dropdown:
    """A list to choose a few methods from; it takes a phone's whole width."""
    return gr.Dropdown(
        offered,
        value=proposed,
        multiselect=True,
        max_choices=MAX_METHODS,
        label=f"{label}, up to four",
        elem_id=place,
        scale=3,
        min_width=240,
    )


def stage_of(subject: Subject) -> Stage:
    """Where maps of the photograph are shown."""
    return Stage(subject.image(), subject.model)
