"""The thread that runs all jobs of the page, and the progress of a job.

One job at a time uses a model, because hooks are registered on it. A visitor receives the latest progress; progress in between
is skipped. A cancelled job ends when it next reports progress, or at the next layer of a model that it runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from faithmap.app.words import CancelledError
from faithmap.explanation import Explanation

MAP_PAUSE = 0.4
"""Minimum seconds between an unfinished map and the next progress: the page needs time to draw the map."""

PAUSE = 0.05
"""The same without a new map."""

T = TypeVar("T")


@dataclass(frozen=True)
class JobProgress:
    """Progress of a job.

    Attributes:
        share: from 0 to 1.
        activity: what is computed now.
        seconds: since the job began.
        unfinished: the map so far, where the method offers one.
    """

    share: float
    activity: str
    seconds: float
    unfinished: Explanation | None = None


@dataclass(frozen=True)
class JobResult(Generic[T]):
    """The result of a job, and the seconds that it took."""

    value: T
    seconds: float


@dataclass(eq=False)
class JobReporter:
    """The progress callback of a job; raises :class:`CancelledError` if the job was cancelled."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    started: float = field(default_factory=time.perf_counter)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _latest: JobProgress | None = None
    _finished: bool = False

    def __call__(self, share: float, activity: str, unfinished: Explanation | None = None) -> None:
        """Report progress."""
        self.check()
        with self._changed:
            self._latest = JobProgress(share, activity, time.perf_counter() - self.started, unfinished)
            self._changed.notify()

    def check(self) -> None:
        """Raise CancelledError if the job was cancelled."""
        if self.cancelled.is_set():
            raise CancelledError

    def finish(self) -> None:
        """Report that no progress will follow."""
        with self._changed:
            self._finished = True
            self._changed.notify()

    def wait(self) -> JobProgress | None:
        """Wait for progress that has not been returned yet; None when the job is finished."""
        with self._changed:
            self._changed.wait_for(lambda: self._latest is not None or self._finished)
            latest, self._latest = self._latest, None
            return None if self._finished else latest


class JobThread:
    """The thread that runs all jobs, one after another."""

    def __init__(self) -> None:
        self._reporters: set[JobReporter] = set()
        self._futures: set[Future[Any]] = set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="faithmap-app")

    def run(
        self, job: Callable[[JobReporter], T], cancelled: threading.Event | None = None
    ) -> Iterator[JobProgress | JobResult[T]]:
        """Run a job; yields its progress while it runs, and its result at the end.

        Closing the iterator cancels the job.

        Args:
            job: called in the thread.
            cancelled: cancels the job when it is set.

        Raises:
            CancelledError: if the job was cancelled; and everything that the job raises.
        """
        report = JobReporter() if cancelled is None else JobReporter(cancelled)
        future: Future[T] = self._thread.submit(_run, job, report)
        self._reporters.add(report)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        try:
            yield from _progress(report)
            if future.cancelled() or (report.cancelled.is_set() and not future.done()):
                raise CancelledError
            yield JobResult(future.result(), time.perf_counter() - report.started)
        finally:
            self._reporters.discard(report)
            if not future.done():
                report.cancelled.set()
                future.cancel()

    def close(self) -> None:
        """Cancel all jobs and accept no more."""
        for report in tuple(self._reporters):
            report.cancelled.set()
            report.finish()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def ended(self, seconds: float) -> bool:
        """Whether no job runs any more, waiting up to so many seconds."""
        return not wait(tuple(self._futures), seconds).not_done


def _progress(report: JobReporter) -> Iterator[JobProgress]:
    """Progress until the job is finished, with a pause after each."""
    last_shown = None
    while (progress := report.wait()) is not None:
        yield progress
        report.cancelled.wait(PAUSE if progress.unfinished is last_shown else MAP_PAUSE)
        last_shown = progress.unfinished


def _run(job: Callable[[JobReporter], T], report: JobReporter) -> T:
    report.started = time.perf_counter()
    try:
        with _checked_at_every_layer(report):
            report(0, "starting")
            return job(report)
    finally:
        report.finish()


@contextmanager
def _checked_at_every_layer(report: JobReporter) -> Iterator[None]:
    """Check for cancellation before each layer that this thread runs: one pass over many images can take seconds.

    The hook is torch's own for all modules, so that no model is changed.
    """
    thread = threading.get_ident()

    def check(module: nn.Module, args: Any) -> None:
        del module, args
        if threading.get_ident() == thread:
            report.check()

    handle = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
