"""Parts that all tabs have: the choices of the left column, a button that starts a job, one that cancels it, and downloads.

:mod:`faithmap.app.tabs.connecting` defines what the buttons do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from faithmap.app.desk import AppState
from faithmap.app.models import OfferedModel
from faithmap.app.parts.parts import DownloadLink, Picker, StatusLine
from faithmap.app.showing import Scene, SceneMaker
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
"""Settings of events: at once, or one after another because they use a model."""

NO_SERVER = """() => ({
    share: null, text: "the server does not answer; check that faithmap still runs, and reload", error: true
})"""
"""A status line that the browser makes itself."""


@dataclass(frozen=True)
class TabJob:
    """The job that a click starts: the work, and the scenes of its result and of an unfinished map."""

    work: Callable[..., Any]
    show: Callable[[Any], Scene]
    show_unfinished: Callable[[Explanation], Scene] | None = None


MakeTabJob = Callable[..., TabJob]
"""Makes a job from the values of a tab's inputs."""


@dataclass(frozen=True)
class SharedInputs:
    """The inputs of all tabs: the photograph, the model, and the class."""

    state: AppState
    picker: Picker
    model: gr.Dropdown
    guesses: gr.Radio
    other: gr.Dropdown

    def subject(self, token: str, model: str) -> Subject:
        """The photograph of that token, and the model."""
        return Subject(self.state.uploads.get(token), self.state.models.get(model).model)

    @property
    def all(self) -> list[Any]:
        """All inputs, in the order of a job's arguments."""
        return [self.picker, self.model, self.guesses, self.other]


def class_of(offered: OfferedModel, guess: Any, other: Any) -> int:
    """The chosen class: the one of the search, otherwise the one of the buttons.

    Raises:
        RefusedError: if none is chosen.
    """
    value = other if type(other) is int else guess
    count = len(offered.model.labels or ()) or None
    if type(value) is not int or value < 0 or (count is not None and value >= count):
        raise RefusedError("choose a class first")
    return value


@dataclass(frozen=True)
class TabParts:
    """The buttons of a tab, and its outputs."""

    name: str
    start: gr.Button
    cancel: gr.Button
    status: StatusLine
    viewer: Viewer
    downloads: gr.Accordion
    command: gr.Code
    python: gr.Code
    pack: gr.Button
    link: DownloadLink


def make_buttons(name: str, text: str) -> tuple[gr.Button, gr.Button, StatusLine]:
    """The button that starts a job, the one that cancels it, and the status line."""
    with gr.Row(elem_classes="fm-buttons"):
        start = gr.Button(text, variant="primary", elem_id=f"{name}-start")
        cancel = gr.Button("Cancel", interactive=False, scale=0, min_width=110, elem_id=f"{name}-cancel")
    return start, cancel, StatusLine(None, elem_id=f"{name}-status")


def make_parts(name: str, text: str, *between: Callable[[], Any]) -> TabParts:
    """Buttons, viewer and downloads, from top to bottom; ``between`` makes parts above the viewer."""
    start, cancel, status = make_buttons(name, text)
    for make in between:
        make()
    viewer = Viewer(None, elem_id=f"{name}-viewer")
    with gr.Accordion("Export", open=False, visible=False, elem_id=f"{name}-take") as downloads:
        common: dict[str, Any] = {"interactive": False, "wrap_lines": True}  # the keyboard cannot reach a box that scrolls
        command = gr.Code(label="The same in a terminal", language="shell", elem_id=f"{name}-command", **common)
        python = gr.Code(label="The same in Python", language="python", elem_id=f"{name}-python", **common)
        with gr.Row():
            pack = gr.Button("Result folder as a zip file", elem_id=f"{name}-pack")
            link = DownloadLink(None, elem_id=f"{name}-fetch")
    return TabParts(name, start, cancel, status, viewer, downloads, command, python, pack, link)


def make_methods(offered: list[tuple[str, str]], proposed: list[str], label: str, elem_id: str) -> gr.Dropdown:
    """A list to choose a few methods from; on a phone it has the whole width."""
    return gr.Dropdown(
        offered,
        value=proposed,
        multiselect=True,
        max_choices=MAX_METHODS,
        label=f"{label}, up to four",
        elem_id=elem_id,
        scale=3,
        min_width=240,
    )


def scene_maker(subject: Subject) -> SceneMaker:
    """Makes scenes of the photograph."""
    return SceneMaker(subject.image(), subject.model)
