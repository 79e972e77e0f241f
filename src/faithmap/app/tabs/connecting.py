"""The buttons of a tab: start runs a job and shows its result, Cancel ends it, and the zip file is packed on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from faithmap.app.asking import CANCELLED, WAITING, PageUpdate, error_status, run_job, run_short_job
from faithmap.app.code import commands_of, python_of
from faithmap.app.desk import AppState, Result, Session
from faithmap.app.parcels import pack_download
from faithmap.app.safety import BUSY
from faithmap.app.tabs.common import NO_SERVER, QUICK, SLOW, MakeTabJob, TabParts

GONE = {"share": None, "text": "this result is no longer here; compute it again", "error": True}


@dataclass(frozen=True)
class TabEvents:
    """The events of a tab. Each is a method that returns the values of its outputs.

    Attributes:
        state: of the server.
        name: of the tab.
        make_job: makes a job from the inputs' values; runs in the job thread.
        more: the values of further outputs, from a result.
        count: number of further outputs.
    """

    state: AppState
    name: str
    make_job: MakeTabJob
    more: Callable[[Any], list[Any]]
    count: int

    def begin(self, request: gr.Request) -> tuple[Any, ...]:
        """At once: both buttons, the status line, the downloads and the link."""
        self.state.session(request.session_hash).start()
        return gr.update(interactive=False), gr.update(interactive=True), WAITING, gr.update(visible=False), None

    def run(self, request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        """When it is its turn: the status line, the scene, the downloads and further outputs."""
        session = self.state.session(request.session_hash)
        for update in self._updates(session, values):
            if update.result is None:
                scene = gr.skip() if update.scene is None else update.scene
                yield update.status, scene, *(gr.skip() for _ in range(3 + self.count))
            else:
                session.results[self.name] = update.result
                texts = (gr.update(visible=True), commands_of(update.result), python_of(update.result))
                yield update.status, update.scene, *texts, *self.more(update.result)

    def end(self) -> tuple[Any, ...]:
        """When the job has ended: the states of both buttons."""
        return gr.update(interactive=True), gr.update(interactive=False)

    def busy(self) -> tuple[Any, ...]:
        """Both buttons, and the status line of a job that was not accepted."""
        return *self.end(), {"share": None, "text": BUSY, "error": True}

    def cancel(self, request: gr.Request) -> dict[str, object]:
        """Cancel the job; the status line."""
        self.state.session(request.session_hash).cancelled.set()
        return dict(CANCELLED)

    def pack(self, request: gr.Request) -> tuple[Any, ...]:
        """The status line, and the link to the zip file."""
        result: Result | None = self.state.session(request.session_hash).results.get(self.name)
        if result is None:
            return GONE, None
        try:
            download = run_short_job(self.state, lambda _: pack_download(result, self.state.folder))
        except Exception as error:  # noqa: BLE001 - the page stays usable
            return error_status(error), None
        link = {"token": self.state.downloads.put(download), "name": download.name}
        return {"share": None, "text": f"packed {download.name}"}, link

    def _updates(self, session: Session, values: tuple[Any, ...]) -> Iterator[PageUpdate[Any]]:
        try:
            job = run_short_job(self.state, lambda _: self.make_job(*values))
        except Exception as error:  # noqa: BLE001 - the page stays usable
            yield PageUpdate(error_status(error))
            return
        yield from run_job(self.state, session, job.work, job.show, job.show_unfinished)


@dataclass(frozen=True)
class MoreOutputs:
    """Parts that a tab has besides the viewer, and their values from a result."""

    values: Callable[[Any], list[Any]]
    parts: list[Any]


def connect(state: AppState, parts: TabParts, make_job: MakeTabJob, inputs: list[Any], more: MoreOutputs | None = None) -> None:
    """Connect the buttons of a tab.

    Args:
        state: of the server.
        parts: of the tab.
        make_job: makes a job from the inputs' values; runs in the job thread.
        inputs: of the job.
        more: further outputs.
    """
    others = more or MoreOutputs(lambda _: [], [])
    events = TabEvents(state, parts.name, make_job, others.values, len(others.parts))
    buttons = [parts.start, parts.cancel]
    begun = parts.start.click(events.begin, None, [*buttons, parts.status, parts.downloads, parts.link], **QUICK)
    begun.failure(None, None, parts.status, js=NO_SERVER, **QUICK)
    outputs = [parts.status, parts.viewer, parts.downloads, parts.command, parts.python, *others.parts]
    ran = begun.then(events.run, inputs, outputs, **SLOW)
    ran.success(events.end, None, buttons, **QUICK)
    ran.failure(events.busy, None, [*buttons, parts.status], **QUICK)
    parts.cancel.click(events.cancel, None, parts.status, **QUICK)
    parts.pack.click(events.pack, None, [parts.status, parts.link], **SLOW)
