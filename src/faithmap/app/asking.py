"""From a click to an answer: the work is done in the desk's thread, and what comes of it on the way reaches the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from faithmap.app.desk import Desk, Result, Room
from faithmap.app.models import Known
from faithmap.app.showing import Scene
from faithmap.app.words import CancelledError, line_for
from faithmap.app.worker import Answer, News, Tells
from faithmap.explanation import Explanation

R = TypeVar("R", bound=Result)

WAITING = {"share": 0.0, "text": "waiting for the model"}
CANCELLED = {"share": None, "text": "cancelled"}


def status_of(news: News) -> dict[str, object]:
    """The line under the button."""
    return {"share": news.share, "text": f"{news.doing} ({news.seconds:.1f} s)"}


def failed(error: BaseException) -> dict[str, object]:
    """The same where it did not work."""
    if isinstance(error, CancelledError):
        return dict(CANCELLED)
    return {"share": None, "text": line_for(error), "error": True}


class Step(Generic[R]):
    """What reaches the page at once: the line under the button, a scene, and the result at the end.

    Attributes:
        status: how it goes.
        scene: to be shown; None leaves what is shown.
        result: when it is there.
    """

    def __init__(self, status: dict[str, object], scene: Scene | None = None, result: R | None = None) -> None:
        self.status, self.scene, self.result = status, scene, result


def ask(
    desk: Desk,
    room: Room,
    work: Callable[[Tells], R],
    show: Callable[[R], Scene],
    grow: Callable[[Explanation], Scene] | None = None,
) -> Iterator[Step[R]]:
    """Do the work, step by step; never raises, and ends with the result or with a line that says why there is none.

    Args:
        desk: whose thread works.
        room: whose work it is.
        work: what is done.
        show: makes the scene of the result.
        grow: makes that of a map that is not finished.
    """
    last: Explanation | None = None
    try:
        for said in desk.worker.run(work, room.running):
            if isinstance(said, Answer):
                scene = show(said.value)
                yield Step({"share": None, "text": f"done in {said.seconds:.1f} s"}, scene, said.value)
                return
            scene_now = None
            if grow is not None and said.grown is not None and said.grown is not last:
                last, scene_now = said.grown, grow(said.grown)
            yield Step(status_of(said), scene_now)
    except Exception as error:  # noqa: BLE001 - the page goes on, whatever happened
        yield Step(failed(error))


def once(desk: Desk, work: Callable[[Tells], Any]) -> Any:
    """Do short work in the desk's thread, and wait for it.

    Raises:
        Exception: whatever the work raises.
    """
    for said in desk.worker.run(work):
        if isinstance(said, Answer):
            return said.value
    raise CancelledError


def known_to(desk: Desk, model: str) -> Known:
    """What is known of a model: at once where it is in memory, else when the desk's thread has loaded it.

    Raises:
        RefusedError: for one that is not offered.
        faithmap.ModelError: for one that cannot be had.
    """
    known: Known = desk.models.kept(model) or once(desk, lambda _: desk.models.get(model))
    return known
