"""``faithmap bench run``: run a benchmark, and show its progress; needs torch.

Progress is a bar on a terminal, lines at intervals elsewhere, or JSON lines for programs.
"""

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
from faithmap.bench.ray_engine import RayEngine
from faithmap.bench.run import (
    Engine,
    LocalEngine,
    ProgressCallback,
    RunProgress,
    ShardEngine,
    all_devices,
    run,
    shard_device,
    shard_of,
)
from faithmap.bench.spec import LoadedSpec
from faithmap.cli.bench_arguments import BenchRunArguments
from faithmap.cli.report import make_console, print_line
from faithmap.errors import UserError, duration, quantity


def run_benchmark(request: LoadedSpec, arguments: BenchRunArguments) -> int:
    """Run the benchmark, and print its progress and a summary."""
    engine = engine_of(arguments)
    out = arguments.out or Path("faithmap-bench") / "".join(c if c.isalnum() or c in "-_." else "_" for c in request.spec.name)
    with show_progress(out, json_lines=arguments.json_lines) as on_progress:
        run(
            request.spec,
            out,
            base=request.base,
            engine=engine,
            source=request.source,
            published=request.published,
            accept_changes=arguments.accept_changes,
            retry_failed=arguments.retry_failed,
            verify=arguments.verify,
            on_progress=on_progress,
            locate=request.locate,
        )
    return 0


def engine_of(arguments: BenchRunArguments) -> Engine:
    """The engine that the arguments name.

    Raises:
        UserError: for an option of another engine.
    """
    for option, (given, engines) in _engine_options(arguments).items():
        if given and arguments.engine not in engines:
            raise UserError(f"--{option} belongs to --engine {' or '.join(engines)}; give that, too, or leave it out")
    if arguments.engine == "shard" and len(arguments.device) > 1:
        raise UserError("a shard works on one device; give one --device, and more shards for more devices")
    if arguments.engine == "ray":
        return RayEngine(arguments.address, arguments.workers or 2, arguments.gpus, arguments.cpus)
    if arguments.engine == "shard":
        number, count = shard_of(arguments.shard)
        return ShardEngine(number, count, arguments.device[0] if arguments.device else shard_device())
    devices = arguments.device or all_devices()
    workers = arguments.workers or len(devices)
    return LocalEngine(tuple(devices[i % len(devices)] for i in range(max(workers, len(devices)))), arguments.threads)


def _engine_options(arguments: BenchRunArguments) -> dict[str, tuple[bool, tuple[str, ...]]]:
    """For each option that only some engines have: whether it was given, and which engines have it."""
    return {
        "shard": (arguments.shard is not None, ("shard",)),
        "address": (arguments.address is not None, ("ray",)),
        "gpus": (arguments.gpus > 0, ("ray",)),
        "cpus": (arguments.cpus > 1, ("ray",)),
        "workers": (arguments.workers is not None, ("local", "ray")),
        "threads": (arguments.threads is not None, ("local",)),
        "device": (bool(arguments.device), ("local", "shard")),
    }


INTERVAL = 10.0
"""Minimum seconds between two lines."""


@contextmanager
def show_progress(out: Path, *, json_lines: bool) -> Iterator[ProgressCallback]:
    """A progress callback that prints, in the form that fits the output; prints a summary at the end."""
    last: list[RunProgress] = []
    err = make_console(stderr=True)

    def remembering(callback: ProgressCallback) -> ProgressCallback:
        def report(state: RunProgress, finished: FinishedUnit | None) -> None:
            last[:] = [state]
            callback(state, finished)

        return report

    if json_lines:
        yield remembering(_print_event)
        _print({"event": "end", **(_numbers(last[0]) if last else {}), "out": str(out)})
        return
    if err.is_interactive and sys.stderr.isatty():
        with _bar(err) as update:
            yield remembering(update)
    else:
        yield remembering(ProgressLines(err))
    for line in _summary(last[0], out) if last else ():
        print_line(make_console(), line)


@dataclass
class ProgressLines:
    """Prints a line at the start, at intervals, and at the end."""

    console: Console
    clock: Callable[[], float] = time.monotonic
    printed: float = field(default=float("-inf"))

    def __call__(self, state: RunProgress, finished: FinishedUnit | None) -> None:
        """Print a line, unless one was printed within the interval."""
        now, complete = self.clock(), state.present + state.done == state.units
        if finished is None or complete or now - self.printed >= INTERVAL:
            self.printed = now
            print_line(self.console, line_of(state))


def line_of(state: RunProgress) -> str:
    """The progress on one line.

    >>> line_of(RunProgress(units=8, present=3, done=0))
    '3 of 8 units'
    """
    text = f"{state.present + state.done} of {state.units} units"
    if state.done:
        text += f", {_rate(state.done / state.seconds)} units/s, {_rate(state.images / state.seconds)} images/s"
    if state.remaining:
        text += f", {duration(state.remaining)} left"
    return text + (f", {quantity(state.failed, 'image')} failed" if state.failed else "")


def _rate(rate: float) -> str:
    """A rate to two digits; all digits before the decimal point.

    >>> _rate(0.0123), _rate(2.34), _rate(1234.5)
    ('0.012', '2.3', '1,234')
    """
    return f"{rate:.2g}" if rate < 99.5 else f"{rate:,.0f}"


def _summary(state: RunProgress, out: Path) -> Iterator[str]:
    if state.changed:
        yield f"changed since the start: {', '.join(state.changed)}; {quantity(state.aside, 'unit')} set aside"
    if state.versions:
        yield f"the run was started with {', '.join(state.versions)}; results may differ"
    if state.corrupt:
        yield f"repeated because of damage: {quantity(len(state.corrupt), 'file')}, the first is {state.corrupt[0]}"
    done = f"{quantity(state.done, 'unit')} done in {duration(state.seconds)}" if state.done else "nothing to do"
    yield f"{out}: {done}, {state.present + state.done} of {state.units} are complete"
    failed = state.failed + state.failed_before
    if failed:
        yield f"{quantity(failed, 'row')} with an error; --retry-failed repeats their units"


@contextmanager
def _bar(console: Console) -> Iterator[ProgressCallback]:
    """A progress bar, removed at the end of the block."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("planning", total=None)

        def update(state: RunProgress, finished: FinishedUnit | None) -> None:
            del finished
            description = line_of(state).partition(" units, ")[2] or "starting"
            bar.update(task, total=state.units, completed=state.present + state.done, description=description)

        yield update


def _print_event(state: RunProgress, finished: FinishedUnit | None) -> None:
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
