"""Locks for threads that explain at the same time: on the modules of a model, and on what a process has once.

A lock belongs to a thread, which can take it several times. All that a block needs is taken at once. Blocks can be nested, as
where a callable target explains with a second model: two threads that nest the same two models in opposite order would wait for
each other for ever. The one that would close such a circle is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager

_changed = threading.Condition()
_owner: dict[Hashable, int] = {}
"""The thread that has each lock that is taken."""

_wanted: dict[int, list[Hashable]] = {}
"""What each waiting thread waits for."""


@contextmanager
def locked(things: Iterable[Hashable]) -> Iterator[None]:
    """One thread at a time inside the blocks that name one of these things; others wait.

    Args:
        things: such as modules, compared by identity.

    Raises:
        RuntimeError: if a thread that has one of these things waits for this thread, directly or through others.

    >>> with locked(["the global generators"]), locked(["the global generators"]):
    ...     pass
    """
    thread, given = threading.get_ident(), list(things)
    with _changed:
        while _owners(thread, given):
            _refuse_circle(thread, given)
            _wanted[thread] = given
            try:
                _changed.wait()
            finally:
                del _wanted[thread]
        new = [thing for thing in dict.fromkeys(given) if thing not in _owner]
        _owner.update(dict.fromkeys(new, thread))
    try:
        yield
    finally:
        with _changed:
            for thing in new:
                del _owner[thing]
            _changed.notify_all()


def _owners(thread: int, things: Iterable[Hashable]) -> set[int]:
    """The other threads that have some of these things."""
    return {_owner.get(thing, thread) for thing in things} - {thread}


def _refuse_circle(thread: int, things: Iterable[Hashable]) -> None:
    """Raise RuntimeError if one of the threads that have these things waits for this thread."""
    waited_for = list(_owners(thread, things))
    for other in waited_for:
        for owner in _owners(other, _wanted.get(other, ())):
            if owner == thread:
                raise RuntimeError(
                    "threads would wait for each other for ever: each needs a model that another one is using; nest the models "
                    "in the same order in all threads, or use them in one thread"
                )
            if owner not in waited_for:
                waited_for.append(owner)
