"""Output: lines for people or one JSON document on stdout; errors, warnings and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from faithmap.errors import USER_ERROR, UserError, one_line
from faithmap.studies.result_folder import ProgressDisplay, StudyFailed, StudyOutcome, StudyProgress

if TYPE_CHECKING:
    from faithmap.explanation import Explanation


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Let main() end the program; rich would end it with the exit code of an error."""
        raise BrokenPipeError


def make_console(*, stderr: bool = False, wrap: bool = False) -> Console:
    """A console that prints text as it is: no markup, no emoji codes, no highlighting.

    Args:
        stderr: print there.
        wrap: to the terminal's width; otherwise lines are never broken.
    """
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=not wrap)


def print_line(console: Console, text: str, heading: str = "", style: str = "") -> None:
    """Print one line, its heading in a style, whatever characters are in it."""
    body = one_line(text).encode(console.encoding, "backslashreplace").decode(console.encoding)
    console.print(Text.assemble((heading, style), body))


def print_error(message: str) -> None:
    """Print one line on stderr."""
    print_line(make_console(stderr=True), message, "error: ", "bold red")


@dataclass
class StudyReport:
    """Prints the outcomes of a study one after another.

    Args:
        as_json: collect summaries instead, and print them as one document at the end.
    """

    as_json: bool
    summaries: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0

    def __post_init__(self) -> None:
        self.out = make_console()
        self.err = make_console(stderr=True)

    def add(self, outcome: StudyOutcome) -> None:
        """Print one outcome."""
        if isinstance(outcome, StudyFailed):
            self.failed += 1
            print_line(self.err, outcome.message, "error: ", "bold red")
            self.summaries.append({"file": str(outcome.file), "error": outcome.message})
            return
        for warning in outcome.record.warning_lines():
            print_line(self.err, warning, "warning: ", "yellow")
        if self.as_json:
            self.summaries.append(outcome.record.summary(outcome.folder))
        else:
            for heading, line in outcome.record.summary_lines(outcome.folder):
                print_line(self.out, line, heading, "bold")

    def close(self, error: str | None = None) -> int:
        """Print the JSON document if there is one, and return the exit code.

        Args:
            error: what ended the study early.
        """
        if self.as_json and sys.stdout is not None:
            document = {"schema": "faithmap.summary/1", "error": error, "images": self.summaries}
            sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
        return USER_ERROR if self.failed or error else 0

    @contextmanager
    def show_progress(self, total: int) -> Iterator[StudyProgress]:
        """Draw a progress bar on a terminal, nothing elsewhere; the bar is removed before anything else is printed."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        hidden = self.as_json or not (self.err.is_interactive and sys.stderr.isatty())
        bar = Progress(*columns, console=self.err, disable=hidden, transient=True, redirect_stdout=False, redirect_stderr=False)
        with bar:
            task = bar.add_task("", total=total, visible=False)

            def update(done: float, activity: str, unfinished: Explanation | None = None) -> None:
                del unfinished
                changed = bar.tasks[0].description != one_line(activity)
                bar.update(task, completed=done, description=one_line(activity), visible=True, refresh=changed)

            yield update


def report_all(start: Callable[[ProgressDisplay], Generator[StudyOutcome, None, None]], *, as_json: bool) -> int:
    """Start a study, print its outcomes, and return the exit code.

    Args:
        start: imports the study and starts it; torch takes seconds to import, which ``--help`` must not wait for.
        as_json: print one document at the end instead.

    Raises:
        UserError: what ended the study early, after the document is printed; KeyboardInterrupt likewise.
    """
    report = StudyReport(as_json=as_json)
    try:
        with closing(start(report.show_progress)) as outcomes:
            for outcome in outcomes:
                report.add(outcome)
    except (UserError, KeyboardInterrupt) as error:
        report.close(str(error) or "interrupted")
        raise
    return report.close()
