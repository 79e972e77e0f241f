"""Locks: one run writes into a folder at a time. The system gives up a dead process's lock by itself, however it died.

A run of all units holds the folder alone. Shards of a run share it, each alone with its own number.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from faithmap.bench.errors import BenchError, reachable

PATIENCE = 600.0
"""Seconds that a shard waits for another one to finish planning."""


@contextmanager
def holding(folder: Path, shard: tuple[int, int] | None = None) -> Iterator[None]:
    """The right to write units, until the block ends.

    Raises:
        BenchError: where another process has it.
    """
    with ExitStack() as stack:
        stack.enter_context(_held(folder / "run.lock", shared=shard is not None))
        if shard is not None:
            stack.enter_context(_held(folder / f"shard-{shard[0]}-of-{shard[1]}.lock", shared=False))
        yield


@contextmanager
def planning(folder: Path) -> Iterator[None]:
    """One process at a time looks at the plan; the others wait for it."""
    with _opened(folder / "plan.lock") as file:
        until = time.monotonic() + PATIENCE
        while not _taken(file, shared=False):
            if time.monotonic() > until:
                raise _busy(folder / "plan.lock", file)
            time.sleep(0.05)
        yield


@contextmanager
def _held(path: Path, *, shared: bool) -> Iterator[None]:
    with _opened(path) as file:
        if not _taken(file, shared=shared):
            raise _busy(path, file)
        if not shared:
            file.seek(0)
            file.truncate()
            file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}))
            file.flush()
        try:
            yield
        finally:
            if not shared:
                file.seek(0)
                file.truncate()


def _opened(path: Path) -> IO[str]:
    with reachable(path):
        return path.open("a+")


def _taken(file: IO[str], *, shared: bool) -> bool:
    try:
        import fcntl  # noqa: PLC0415 - Windows has none

        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, ModuleNotFoundError):  # a file system without locks, or Windows
        return _alone(file)
    return True


def _alone(file: IO[str]) -> bool:
    """By what the last holder wrote: whether it is dead, or was of this process; of another computer nothing is known."""
    holder = _holder(file)
    if not holder or holder.get("process") == os.getpid():
        return True
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return False


def _holder(file: IO[str]) -> dict[str, str | int]:
    file.seek(0)
    try:
        found = json.loads(file.read() or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _busy(path: Path, file: IO[str]) -> BenchError:
    holder = _holder(file)
    who = f"process {holder['process']} on {holder['host']}, since {holder['since']}" if len(holder) == 3 else "another process"
    return BenchError(f"{path.parent}: {who} is writing this run ({path.name}); wait for it or end it, or give another --out")
