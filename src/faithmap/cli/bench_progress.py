"""How far a benchmark is: a bar on a terminal, a line now and then elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from faithmap.bench.evaluate import FinishedUnit
from faithmap.bench.run import ProgressCallback, RunProgress
from faithmap.cli.report import make_console, print_line
from faithmap.text import counted, duration

EVERY = 10.0
"""Seconds from one plain line to the next."""


@contextmanager
def progress(out: Path, *, json_lines: bool) -> Iterator[ProgressCallback]:
    """What a run tells, in the form that fits where it is shown; the sum of it at the end."""
    last: list[RunProgress] = []
    err = make_console(stderr=True)

    def remembering(tell: ProgressCallback) -> ProgressCallback:
        def hear(state: RunProgress, finished: FinishedUnit | None) -> None:
            last[:] = [state]
            tell(state, finished)

        return hear

    if json_lines:
        yield remembering(_json)
        _print({"event": "end", **(_numbers(last[0]) if last else {}), "out": str(out)})
        return
    if err.is_interactive and sys.stderr.isatty():
        with _bar(err) as tell:
            yield remembering(tell)
    else:
        yield remembering(Lines(err))
    for line in _summary(last[0], out) if last else ():
        print_line(make_console(), line)


@dataclass
class Lines:
    """A line at the start, one now and then, one at the end."""

    console: Console
    clock: Callable[[], float] = time.monotonic
    said: float = field(default=float("-inf"))

    def __call__(self, state: RunProgress, finished: FinishedUnit | None) -> None:
        """Say it, unless something was said a moment ago."""
        now, whole = self.clock(), state.present + state.done == state.units
        if finished is None or whole or now - self.said >= EVERY:
            self.said = now
            print_line(self.console, line_of(state))


def line_of(state: RunProgress) -> str:
    """A state on one line.

    >>> line_of(RunProgress(units=8, present=3, done=0))
    '3 of 8 units'
    """
    text = f"{state.present + state.done} of {state.units} units"
    if state.done:
        text += f", {_rate(state.done / state.seconds)} units/s, {_rate(state.images / state.seconds)} images/s"
    if state.remaining:
        text += f", {duration(state.remaining)} left"
    return text + (f", {counted(state.failed, 'image')} failed" if state.failed else "")


def _rate(rate: float) -> str:
    """To two digits; all of those before the point.

    >>> _rate(0.0123), _rate(2.34), _rate(1234.5)
    ('0.012', '2.3', '1,234')
    """
    return f"{rate:.2g}" if rate < 99.5 else f"{rate:,.0f}"


def _summary(state: RunProgress, out: Path) -> Iterator[str]:
    if state.changed:
        yield f"changed since it was begun: {', '.join(state.changed)}; {counted(state.aside, 'unit')} set aside"
    if state.versions:
        yield f"it was begun with {', '.join(state.versions)}; results of other versions may differ"
    if state.corrupt:
        yield f"done again for damage: {counted(len(state.corrupt), 'file')}, {state.corrupt[0]} among them"
    done = f"{counted(state.done, 'unit')} done in {duration(state.seconds)}" if state.done else "nothing left to do"
    yield f"{out}: {done}, {state.present + state.done} of {state.units} are there"
    failed = state.failed + state.failed_before
    if failed:
        yield f"{counted(failed, 'row')} with an error; --retry-failed does their units again"


@contextmanager
def _bar(console: Console) -> Iterator[ProgressCallback]:
    """Drawn while it is open, and gone afterwards."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("planning", total=None)

        def tell(state: RunProgress, finished: FinishedUnit | None) -> None:
            del finished
            description = line_of(state).partition(" units, ")[2] or "beginning"
            bar.update(task, total=state.units, completed=state.present + state.done, description=description)

        yield tell


def _json(state: RunProgress, finished: FinishedUnit | None) -> None:
    if finished is None:
        _print({"event": "start", **_numbers(state), "corrupt": list(state.corrupt), "changed": list(state.changed)})
        return
    unit = {"unit": finished.key, "model": finished.model, "method": finished.method, "unit_seconds": finished.seconds}
    _print({"event": "unit", **unit, **_numbers(state)})


def _numbers(state: RunProgress) -> dict[str, Any]:
    return {
        "units": state.units,
        "present": state.present,
        "done": state.done,
        "images": state.images,
        "failed": state.failed,
        "failed_before": state.failed_before,
        "seconds": state.seconds,
        "remaining": state.remaining,
    }


def _print(record: dict[str, Any]) -> None:
    if sys.stdout is not None:
        sys.stdout.write(json.dumps(record, allow_nan=False) + "\n")
        sys.stdout.flush()
