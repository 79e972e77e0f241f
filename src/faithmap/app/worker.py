"""One thread that computes, and what it tells on the way.

A model is asked by one request at a time: its layers are watched while it is asked. Whoever waits for an answer takes the
latest news and leaves out what came between; whoever no longer wants it says so, and the work ends at its next word, or at
the next layer of a model that it asks.
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

PAUSE = 0.4
"""Seconds from one map to the next news, at the least: pages take time to draw, too."""

BRIEF = 0.05
"""The same where there was no new map."""

T = TypeVar("T")


@dataclass(frozen=True)
class News:
    """How far the work is: a share from 0 to 1, what is being done, seconds since it began, and the map as it stands."""

    share: float
    doing: str
    seconds: float
    grown: Explanation | None = None


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What the work came to, and the seconds that it took."""

    value: T
    seconds: float


@dataclass(eq=False)
class Tells:
    """What work is given to tell how far it is; every word raises :class:`CancelledError` where nobody wants it any more."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    started: float = field(default_factory=time.perf_counter)
    _told: threading.Condition = field(default_factory=threading.Condition)
    _latest: News | None = None
    _over: bool = False

    def __call__(self, share: float, doing: str, grown: Explanation | None = None) -> None:
        """Say how far it is."""
        self.check()
        with self._told:
            self._latest = News(share, doing, time.perf_counter() - self.started, grown)
            self._told.notify()

    def check(self) -> None:
        """Say nothing, and end where nobody wants it any more."""
        if self.cancelled.is_set():
            raise CancelledError

    def over(self) -> None:
        """Nothing more will be told."""
        with self._told:
            self._over = True
            self._told.notify()

    def news(self) -> News | None:
        """The latest that was not taken yet, as soon as there is any; None when the work is over."""
        with self._told:
            self._told.wait_for(lambda: self._latest is not None or self._over)
            latest, self._latest = self._latest, None
            return None if self._over else latest


class Worker:
    """The thread."""

    def __init__(self) -> None:
        self._doing: set[Tells] = set()
        self._begun: set[Future[Any]] = set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="faithmap-app")

    def run(self, work: Callable[[Tells], T], cancelled: threading.Event | None = None) -> Iterator[News | Answer[T]]:
        """Do the work, and hand over its news while it is done, at the end its answer.

        Closing the iterator cancels the work.

        Args:
            work: is called in the thread.
            cancelled: ends the work when it is set.

        Raises:
            CancelledError: where the work was cancelled; and whatever the work raises.
        """
        tells = Tells() if cancelled is None else Tells(cancelled)
        future: Future[T] = self._thread.submit(_do, work, tells)
        self._doing.add(tells)
        self._begun.add(future)
        future.add_done_callback(self._begun.discard)
        try:
            yield from _latest(tells)
            if future.cancelled() or (tells.cancelled.is_set() and not future.done()):
                raise CancelledError
            yield Answer(future.result(), time.perf_counter() - tells.started)
        finally:
            self._doing.discard(tells)
            if not future.done():
                tells.cancelled.set()
                future.cancel()

    def close(self) -> None:
        """Take no more work; what runs ends at its next word."""
        for tells in tuple(self._doing):
            tells.cancelled.set()
            tells.over()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def ended(self, seconds: float) -> bool:
        """Whether nothing runs any more, at once or within so many seconds."""
        return not wait(tuple(self._begun), seconds).not_done


def _latest(tells: Tells) -> Iterator[News]:
    """News until the work is over, with a pause after each."""
    grown = None
    while (news := tells.news()) is not None:
        yield news
        tells.cancelled.wait(BRIEF if news.grown is grown else PAUSE)
        grown = news.grown


def _do(work: Callable[[Tells], T], tells: Tells) -> T:
    tells.started = time.perf_counter()
    try:
        with _checking(tells):
            tells(0, "starting")
            return work(tells)
    finally:
        tells.over()


@contextmanager
def _checking(tells: Tells) -> Iterator[None]:
    """Before each layer that this thread asks: one pass over many images, such as a game's, can take seconds.

    The hook is torch's own for all modules, so that no model looks different from one that nobody watches.
    """
    here = threading.get_ident()

    def check(module: nn.Module, given: Any) -> None:
        del module, given
        if threading.get_ident() == here:
            tells.check()

    handle = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
