"""The state of the server while the page is open, and one session per visitor.

Visitors share the models and nothing else: an upload or a download is found only by its secret token, a result only in the
session that computed it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faithmap.app.models import OfferedModels
from faithmap.app.parcels import Downloads
from faithmap.app.shelf import Uploads
from faithmap.app.work import Compared, Explained, Saturated
from faithmap.app.worker import JobThread

MAX_SESSIONS = 64
"""Sessions that are kept. If there are more, the least recently used one ends."""

Result = Explained | Compared | Saturated


@dataclass
class Session:
    """One visitor's session.

    Attributes:
        results: the latest result of each tab.
        cancelled: cancels the running job when it is set.
        tokens: of the visitor's uploads.
    """

    results: dict[str, Result] = field(default_factory=dict)
    cancelled: threading.Event = field(default_factory=threading.Event)
    tokens: set[str] = field(default_factory=set)

    def start(self) -> threading.Event:
        """Cancel the running job, and return the event that cancels the next one."""
        self.cancelled.set()
        self.cancelled = threading.Event()
        return self.cancelled


@dataclass
class AppState:
    """The state of the server.

    Attributes:
        models: that are offered.
        folder: a private folder, removed when the server ends.
        run: folder of a benchmark to browse; None without one.
        on_close: functions that are called when the server ends.
    """

    models: OfferedModels
    folder: Path
    run: Path | None = None
    uploads: Uploads = field(default_factory=Uploads)
    downloads: Downloads = field(default_factory=Downloads)
    jobs: JobThread = field(default_factory=JobThread)
    on_close: list[Callable[[], None]] = field(default_factory=list)
    _sessions: OrderedDict[str, Session] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def session(self, name: str | None) -> Session:
        """The session of that name, created if it does not exist."""
        with self._lock:
            session = self._sessions.setdefault(name or "", Session())
            self._sessions.move_to_end(name or "")
            while len(self._sessions) > MAX_SESSIONS:
                self._end(next(iter(self._sessions)))
            return session

    def end_session(self, name: str | None) -> None:
        """Cancel the visitor's job, and forget the session and its uploads."""
        with self._lock:
            self._end(name or "")

    def close(self) -> None:
        """End all sessions and jobs."""
        with self._lock:
            for name in tuple(self._sessions):
                self._end(name)
        self.jobs.close()
        for function in self.on_close:
            function()
        self.on_close.clear()

    def _end(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session is not None:
            session.cancelled.set()
            self.uploads.drop(session.tokens)
