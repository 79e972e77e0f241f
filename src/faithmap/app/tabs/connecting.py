"""What a tab's buttons do: a click asks, and the answer fills the tab; Cancel ends the work; a zip is packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from faithmap.app.asking import CANCELLED, WAITING, Step, ask, failed, once
from faithmap.app.code import commands_of, python_of
from faithmap.app.desk import Desk, Result, Room
from faithmap.app.parcels import parcel_of
from faithmap.app.safety import BUSY
from faithmap.app.tabs.common import QUICK, SLOW, UNANSWERED, Asking, Question

GONE = {"share": None, "text": "this result is no longer here; ask again", "error": True}


@dataclass(frozen=True)
class Events:
    """What happens in a tab, each event a method that returns the values of its outputs.

    Attributes:
        desk: what the server keeps.
        name: of the tab.
        question: from the inputs' values to a job; runs in the desk's thread.
        more: from a result to the values of more outputs.
        count: of more outputs.
    """

    desk: Desk
    name: str
    question: Question
    more: Callable[[Any], list[Any]]
    count: int

    def begin(self, request: gr.Request) -> tuple[Any, ...]:
        """At once: both buttons, the line, and what was to be taken away."""
        self.desk.room(request.session_hash).start()
        return gr.update(interactive=False), gr.update(interactive=True), WAITING, gr.update(visible=False), None

    def run(self, request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        """In turn: the line, the scene, what is taken away, and what is more."""
        room = self.desk.room(request.session_hash)
        for step in self._steps(room, values):
            if step.result is None:
                scene = gr.skip() if step.scene is None else step.scene
                yield step.status, scene, *(gr.skip() for _ in range(3 + self.count))
            else:
                room.results[self.name] = step.result
                texts = (gr.update(visible=True), commands_of(step.result), python_of(step.result))
                yield step.status, step.scene, *texts, *self.more(step.result)

    def end(self) -> tuple[Any, ...]:
        """Both buttons."""
        return gr.update(interactive=True), gr.update(interactive=False)

    def busy(self) -> tuple[Any, ...]:
        """Both buttons, and the line where the question was not taken."""
        return *self.end(), {"share": None, "text": BUSY, "error": True}

    def cancel(self, request: gr.Request) -> dict[str, object]:
        """The line; the work ends."""
        self.desk.room(request.session_hash).running.set()
        return dict(CANCELLED)

    def pack(self, request: gr.Request) -> tuple[Any, ...]:
        """The line, and the link to the zip."""
        result: Result | None = self.desk.room(request.session_hash).results.get(self.name)
        if result is None:
            return GONE, None
        try:
            parcel = once(self.desk, lambda _: parcel_of(result, self.desk.place))
        except Exception as error:  # noqa: BLE001 - the page goes on
            return failed(error), None
        link = {"word": self.desk.parcels.put(parcel), "name": parcel.name}
        return {"share": None, "text": f"packed {parcel.name}"}, link

    def _steps(self, room: Room, values: tuple[Any, ...]) -> Iterator[Step[Any]]:
        try:
            job = once(self.desk, lambda _: self.question(*values))
        except Exception as error:  # noqa: BLE001 - the page goes on
            yield Step(failed(error))
            return
        yield from ask(self.desk, room, job.work, job.show, job.grow)


@dataclass(frozen=True)
class More:
    """Parts that a tab has besides the viewer, and what of a result goes into them."""

    of: Callable[[Any], list[Any]]
    parts: list[Any]


def connect(desk: Desk, asking: Asking, question: Question, inputs: list[Any], more: More | None = None) -> None:
    """Make a click on the button ask.

    Args:
        desk: what the server keeps.
        asking: the tab's parts.
        question: from the inputs' values to a job; runs in the desk's thread.
        inputs: of the question.
        more: more outputs.
    """
    others = more or More(lambda _: [], [])
    events = Events(desk, asking.name, question, others.of, len(others.parts))
    buttons = [asking.start, asking.cancel]
    begun = asking.start.click(events.begin, None, [*buttons, asking.status, asking.taken, asking.fetch], **QUICK)
    begun.failure(None, None, asking.status, js=UNANSWERED, **QUICK)
    outputs = [asking.status, asking.viewer, asking.taken, asking.command, asking.python, *others.parts]
    ran = begun.then(events.run, inputs, outputs, **SLOW)
    ran.success(events.end, None, buttons, **QUICK)
    ran.failure(events.busy, None, [*buttons, asking.status], **QUICK)
    asking.cancel.click(events.cancel, None, asking.status, **QUICK)
    asking.pack.click(events.pack, None, [asking.status, asking.fetch], **SLOW)
