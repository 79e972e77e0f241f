"""Desk: everything that the server keeps while the page is open, and what each visitor's browser was told.

Nothing here is shared between visitors but the models: photographs and parcels go by words that nobody can guess, results by
the session that asked for them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faithmap.app.models import Models
from faithmap.app.parcels import Parcels
from faithmap.app.shelf import Shelf
from faithmap.app.work import Compared, Explained, Saturated
from faithmap.app.worker import Worker

ROOMS = 64
"""Visitors whose results are kept; those of whoever was here the longest ago go first."""

Result = Explained | Compared | Saturated


@dataclass
class Room:
    """One visitor's: the latest result of each tab, what may be cancelled, and the photographs that were used."""

    results: dict[str, Result] = field(default_factory=dict)
    running: threading.Event = field(default_factory=threading.Event)
    words: set[str] = field(default_factory=set)

    def start(self) -> threading.Event:
        """What cancels the work that begins now; work that runs already is cancelled."""
        self.running.set()
        self.running = threading.Event()
        return self.running


@dataclass
class Desk:
    """The server's state.

    Attributes:
        models: that are offered.
        place: a private folder, gone when the server ends.
        run: the folder of a benchmark to browse; None without.
        endings: are called when the server ends, in its own thread.
    """

    models: Models
    place: Path
    run: Path | None = None
    shelf: Shelf = field(default_factory=Shelf)
    parcels: Parcels = field(default_factory=Parcels)
    worker: Worker = field(default_factory=Worker)
    endings: list[Callable[[], None]] = field(default_factory=list)
    _rooms: OrderedDict[str, Room] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def room(self, session: str | None) -> Room:
        """The visitor's, made when it is first asked for."""
        with self._lock:
            room = self._rooms.setdefault(session or "", Room())
            self._rooms.move_to_end(session or "")
            while len(self._rooms) > ROOMS:
                self._leave(next(iter(self._rooms)))
            return room

    def leave(self, session: str | None) -> None:
        """The visitor is gone: nothing of theirs is kept, and what they asked for ends."""
        with self._lock:
            self._leave(session or "")

    def close(self) -> None:
        """The server ends."""
        with self._lock:
            for session in tuple(self._rooms):
                self._leave(session)
        self.worker.close()
        for end in self.endings:
            end()
        self.endings.clear()

    def _leave(self, session: str) -> None:
        room = self._rooms.pop(session, None)
        if room is not None:
            room.running.set()
            self.shelf.drop(room.words)
