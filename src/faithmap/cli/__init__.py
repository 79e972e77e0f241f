"""The command line: arguments are parsed, a study or a benchmark runs, and its summary is printed.

Parsed by cyclopts rather than Typer: cyclopts reads the types and docstrings of a command and of its dataclasses, unions
among them. Typer refuses a union other than ``X | None``, and needs the help text of every option in an annotation. Each
command is one file; the parser and the exit codes are here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from cyclopts import App, CycloptsError, Parameter

from faithmap._version import __version__
from faithmap.cli.adversarial import adversarial
from faithmap.cli.bench import bench
from faithmap.cli.choose import choose
from faithmap.cli.compare import compare
from faithmap.cli.explain import explain
from faithmap.cli.methods import methods
from faithmap.cli.models import models
from faithmap.cli.report import make_console, print_error
from faithmap.cli.saturation import saturation
from faithmap.cli.train_masker import train_masker
from faithmap.errors import (
    BROKEN_PIPE,
    INTERRUPTED,
    TERMINATED,
    USER_ERROR,
    Terminated,
    UserError,
    one_line,
    os_reason,
    terminable,
)

__all__ = ["main", "make_app"]

_PAGE_MODULE = "faithmap.app.command"
"""Where the page defines its command, by name: page and command line are two faces of the library, and neither imports the
other. Not an entry point of the package, which a checkout that is not installed would lack."""


def make_app() -> App:
    """The parser of all commands."""
    app = App(
        name="faithmap",
        help="Heatmaps that show which pixels the decision of an image model depends on, with evidence.",
        version=f"faithmap {__version__}",
        console=make_console(wrap=True),
        default_parameter=Parameter(json_list=False),  # a file may be called [1].jpg
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    app.command(adversarial)
    app.command(import_module(_PAGE_MODULE).open_page, name="app")
    app.command(bench)
    app.command(choose)
    app.command(compare)
    app.command(explain)
    app.command(methods)
    app.command(models)
    app.command(saturation)
    app.command(train_masker)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0; 2: user error; 130 after Ctrl-C; 143 after SIGTERM.

    Args:
        argv: the arguments after the program's name; None for those of the process.
    """
    try:
        with terminable():
            code = make_app()(sys.argv[1:] if argv is None else list(argv))
        if sys.stdout is not None:
            sys.stdout.flush()
    except (CycloptsError, UserError) as error:
        return _fail(str(error), USER_ERROR)
    except KeyboardInterrupt as interrupt:
        code = TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
        return _fail("interrupted; existing results are complete", code)
    except BrokenPipeError:
        _mute()
        return BROKEN_PIPE
    except OSError as error:
        _mute()
        named = f"{one_line(str(error.filename))}: " if error.filename is not None else ""
        return _fail(named + os_reason(error), USER_ERROR)
    return code or 0


def _fail(message: str, code: int) -> int:
    try:
        print_error(message)
    except BrokenPipeError:
        _mute()
    return code


def _mute() -> None:
    """Write nothing more to a closed pipe or a full disk: Python flushes the streams at exit, and would print an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            try:
                os.dup2(nowhere, stream.fileno())
            except (AttributeError, ValueError, OSError):
                continue
    os.close(nowhere)
