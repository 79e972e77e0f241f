"""What is printed: lines for people, or one JSON document; errors, warnings and progress go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from faithmap.cli.errors import USER_ERROR, UserError
from faithmap.cli.ranking import ranking_lines
from faithmap.text import one_line

Tell: TypeAlias = Callable[[float, str], None]
"""Told how many images are done, fractions included, and what is being done."""

Bar: TypeAlias = Callable[[int], AbstractContextManager[Tell]]
"""Draws progress over that many images while it is open, and leaves no trace."""


@dataclass(frozen=True)
class Done:
    """An image whose result folder is complete; ``record`` is its result.json."""

    folder: Path
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Failed:
    """An image without a result, and the one line that says why, the file's name in front."""

    file: Path
    message: str


Outcome: TypeAlias = Done | Failed


def starting_at(start: int, tell: Tell) -> Tell:
    """Progress counted from an image on."""
    return lambda done, what: tell(start + done, what)


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Let main() end the program; rich would do so itself, with the exit code of an error."""
        raise BrokenPipeError


def make_console(*, stderr: bool = False, wrap: bool = False) -> Console:
    """A console that takes what it prints as it is: no markup, no emoji codes, no highlighting.

    Args:
        stderr: print there.
        wrap: to the terminal's width; else a line stays a line.
    """
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=not wrap)


def say(console: Console, text: str, head: str = "", style: str = "") -> None:
    """Print one line, its head in a style, whatever characters are in it."""
    body = one_line(text).encode(console.encoding, "backslashreplace").decode(console.encoding)
    console.print(Text.assemble((head, style), body))


def say_error(message: str) -> None:
    """Print one line on stderr."""
    say(make_console(stderr=True), message, "error: ", "bold red")


@dataclass
class Report:
    """Prints outcomes as they come.

    Args:
        as_json: collect summaries instead, and print them as one document at the end.
    """

    as_json: bool
    summaries: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0

    def __post_init__(self) -> None:
        self.out = make_console()
        self.err = make_console(stderr=True)

    def add(self, outcome: Outcome) -> None:
        """Say how it went with one image."""
        if isinstance(outcome, Failed):
            self.failed += 1
            say(self.err, outcome.message, "error: ", "bold red")
            self.summaries.append({"file": str(outcome.file), "error": outcome.message})
            return
        for warning in outcome.record["warnings"]:
            whose = f"{outcome.record['file']['path']}: " if "file" in outcome.record else ""
            say(self.err, whose + warning, "warning: ", "yellow")
        if self.as_json:
            self.summaries.append(summary(outcome))
        else:
            for head, line in lines(outcome):
                say(self.out, line, head, "bold")

    def close(self, error: str | None = None) -> int:
        """Print the document, if there is to be one, and return the exit code.

        Args:
            error: what ended the run before its time.
        """
        if self.as_json and sys.stdout is not None:
            document = {"schema": "faithmap.summary/1", "error": error, "images": self.summaries}
            sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
        return USER_ERROR if self.failed or error else 0

    @contextmanager
    def bar(self, total: int) -> Iterator[Tell]:
        """Draw progress on a terminal, nothing elsewhere; the bar is gone before anything else is printed."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        hidden = self.as_json or not (self.err.is_interactive and sys.stderr.isatty())
        progress = Progress(
            *columns, console=self.err, disable=hidden, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        with progress:
            task = progress.add_task("", total=total, visible=False)

            def tell(done: float, what: str) -> None:
                is_news = progress.tasks[0].description != one_line(what)
                progress.update(task, completed=done, description=one_line(what), visible=True, refresh=is_news)

            yield tell


def report_all(start: Callable[[Bar], Generator[Outcome, None, None]], *, as_json: bool) -> int:
    """Start the work, print its outcomes as they come, and return the exit code.

    Args:
        start: imports what it needs and begins; torch takes seconds, which ``--help`` must not.
        as_json: print one document at the end instead.

    Raises:
        UserError: what ended the work before its time, after the document is printed; KeyboardInterrupt likewise.
    """
    report = Report(as_json=as_json)
    try:
        with closing(start(report.bar)) as outcomes:
            for outcome in outcomes:
                report.add(outcome)
    except (UserError, KeyboardInterrupt) as error:
        report.close(str(error) or "interrupted")
        raise
    return report.close()


_HEART = (
    *("target", "predicted", "scores", "methods", "saturated", "features"),
    *("attack", "clean", "adversarial", "difference", "correlation", "saved"),
    *("score", "budget", "use", "alike", "advice", "ranking", "left_out", "warnings"),
)


def summary(done: Done) -> dict[str, Any]:
    """What the document says of one image: the heart of its result.json, and where that is."""
    record = done.record
    kept = [key for key in _HEART if key in record]
    asked = {"file": record["file"]["path"]} if "file" in record else {"files": [p["path"] for p in record["photographs"]]}
    return {**asked, "folder": str(done.folder), **{key: record[key] for key in kept}}


def lines(done: Done) -> Iterator[tuple[str, str]]:
    """The same for people: the head of each line, and its text."""
    record = done.record
    if "ranking" in record:
        yield from ranking_lines(record, done.folder)
        return
    if "methods" in record or "features" in record:
        yield from (_compared(done) if "methods" in record else _walked(done))
        return
    if "attack" in record:
        yield from _attacked(done)
        return
    saw = ", ".join(f"{guess['label']} {guess['probability']:.3f}" for guess in record["predicted"][:3])
    rows, columns = record["heatmap"]["resolution"]
    mine, chance = record["scores"]["heatmap"], record["scores"]["random"]
    yield "", record["file"]["path"]
    yield "  the model sees  ", saw
    yield "  explained       ", f"{record['target']['label']}, by {record['method']['name']} at {rows} x {columns}"
    yield "  deletion        ", f"{mine['deletion']:.3f}, a random map {chance['deletion']:.3f} (lower is more faithful)"
    yield "  insertion       ", f"{mine['insertion']:.3f}, a random map {chance['insertion']:.3f} (higher is more faithful)"
    yield "  pictures        ", str(done.folder)


def _compared(done: Done) -> Iterator[tuple[str, str]]:
    """A table of all methods."""
    methods = done.record["methods"]
    width = max(map(len, methods)) + 4
    yield "", f"{done.record['file']['path']}: {done.record['target']['label']}"
    yield "  " + "method".ljust(width), "deletion  insertion  difference  forwards  backwards  seconds"
    for name, method in methods.items():
        scores, passes = method["scores"], method["passes"]
        areas = f"{scores['deletion']:8.3f}  {scores['insertion']:9.3f}  {scores['difference']:10.3f}"
        cost = "" if method["seconds"] is None else f"  {passes['forward']:8}  {passes['backward']:9}  {method['seconds']:7.1f}"
        yield "  " + name.ljust(width), areas + cost
    yield "  picture".ljust(width + 2), str(done.folder / "comparison.png")


def _walked(done: Done) -> Iterator[tuple[str, str]]:
    """How much of the path is saturated, and what each method's channels are worth."""
    record = done.record
    yield "", f"{record['file']['path']}: {record['target']['label']}"
    yield "  saturated       ", f"{100 * record['saturated']:.0f} % of the path, at {record['target_layer']}"
    for name, areas in record["features"].items():
        yield f"  {name}  ", f"its top channels: insertion {areas['insertion']:.3f}, deletion {areas['deletion']:.3f}"
    yield "  pictures        ", str(done.folder)


def _attacked(done: Done) -> Iterator[tuple[str, str]]:
    """What both images are taken for, and how much of each has to be inserted."""
    record = done.record
    share = 100 * record["protocol"]["share"]
    yield "", record["file"]["path"]
    for name in ("clean", "adversarial"):
        side = record[name]
        part = "the map ranks nothing" if side["needed"] is None else f"{100 * side['needed']:.0f} % of the cells"
        yield f"  {name:<15} ", f"{side['label']} {side['probability']:.3f}: {part} for {share:.3g} % of that"
    changed, saved = record["attack"]["largest_change"], record["saved"]["as_it_is"]
    yield "  changed         ", f"no pixel by more than {changed:.3g} of 1"
    yield "  saved in 8 bits ", f"{saved['label']} {saved['probability']:.3f}"
    yield "  pictures        ", str(done.folder)
