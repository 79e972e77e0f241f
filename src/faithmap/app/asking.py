"""Jobs of the page: a click runs a job in the job thread, and its progress and result update the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from faithmap.app.desk import AppState, Result, Session
from faithmap.app.models import OfferedModel
from faithmap.app.showing import Scene
from faithmap.app.words import CancelledError, line_for
from faithmap.app.worker import JobProgress, JobReporter, JobResult
from faithmap.explanation import Explanation

R = TypeVar("R", bound=Result)

WAITING = {"share": 0.0, "text": "waiting for the model"}
CANCELLED = {"share": None, "text": "cancelled"}


def progress_status(progress: JobProgress) -> dict[str, object]:
    """The status line of a running job."""
    return {"share": progress.share, "text": f"{progress.activity} ({progress.seconds:.1f} s)"}


def error_status(error: BaseException) -> dict[str, object]:
    """The status line of a failed job."""
    if isinstance(error, CancelledError):
        return dict(CANCELLED)
    return {"share": None, "text": line_for(error), "error": True}


class PageUpdate(Generic[R]):
    """One update of the page.

    Attributes:
        status: the status line.
        scene: to show; None leaves the current one.
        result: of the job, in its last update.
    """

    def __init__(self, status: dict[str, object], scene: Scene | None = None, result: R | None = None) -> None:
        self.status, self.scene, self.result = status, scene, result


def run_job(
    state: AppState,
    session: Session,
    work: Callable[[JobReporter], R],
    show: Callable[[R], Scene],
    show_unfinished: Callable[[Explanation], Scene] | None = None,
) -> Iterator[PageUpdate[R]]:
    """Run a job. Never raises; the last update has the result, or a status line with the reason of the failure.

    Args:
        state: of the server.
        session: of the visitor.
        work: the job.
        show: makes the scene of the result.
        show_unfinished: makes the scene of an unfinished map.
    """
    last: Explanation | None = None
    try:
        for update in state.jobs.run(work, session.cancelled):
            if isinstance(update, JobResult):
                scene = show(update.value)
                yield PageUpdate({"share": None, "text": f"done in {update.seconds:.1f} s"}, scene, update.value)
                return
            unfinished_scene = None
            if show_unfinished is not None and update.unfinished is not None and update.unfinished is not last:
                last, unfinished_scene = update.unfinished, show_unfinished(update.unfinished)
            yield PageUpdate(progress_status(update), unfinished_scene)
    except Exception as error:  # noqa: BLE001 - the page stays usable, whatever happened
        yield PageUpdate(error_status(error))


def run_short_job(state: AppState, work: Callable[[JobReporter], Any]) -> Any:
    """Run a short job in the job thread, and wait for it.

    Raises:
        Exception: everything that the job raises.
    """
    for update in state.jobs.run(work):
        if isinstance(update, JobResult):
            return update.value
    raise CancelledError


def offered_model(state: AppState, model: str) -> OfferedModel:
    """An offered model: at once if it is in memory; otherwise the job thread loads it.

    Raises:
        RefusedError: for a model that is not offered.
        faithmap.ModelError: for a model that cannot be loaded.
    """
    found: OfferedModel = state.models.loaded(model) or run_short_job(state, lambda _: state.models.get(model))
    return found
