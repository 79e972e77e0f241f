"""Messages of one line, the errors that a user can correct, and how a command ends: exit codes, and SIGTERM like Ctrl-C.

A :class:`UserError` ends a command, a :class:`BenchError` a benchmark. Free of torch, so that the command line can start
without it.
"""

from __future__ import annotations

import difflib
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn


def one_line(text: str) -> str:
    r"""Escape characters that do not print, such as those in file names that would break a line or control the terminal.

    >>> print(one_line("cat\n\x1b[2J.jpg"))
    cat\n\x1b[2J.jpg
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def did_you_mean(name: str, names: Iterable[str], otherwise: str) -> str:
    """The names nearest to an unknown one, as the end of an error's line.

    >>> did_you_mean("gradcan", ["igos", "gradcam"], "give one of the list")
    'did you mean gradcam?'

    Args:
        name: as the user gave it.
        names: those that exist.
        otherwise: what to do, if none is near.
    """
    near = difflib.get_close_matches(name, tuple(names), n=3)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def quantity(number: int, what: str) -> str:
    """A number with a noun.

    >>> quantity(1, "unit"), quantity(2000, "unit")
    ('1 unit', '2,000 units')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """A time with two digits.

    >>> [duration(seconds) for seconds in (0.0314, 4.24, 99.8, 640, 7300)]
    ['0.031 s', '4.2 s', '100 s', '11 min', '2.0 h']
    """
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.2g} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


USER_ERROR = 2
"""Exit code of a :class:`UserError`: an input, an option or the machine is the cause."""

INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143


class UserError(Exception):
    """Ends a command. The message is one line: what was given, what is wrong with it, what to do.

    >>> raise UserError("seed is x; give a whole number")
    Traceback (most recent call last):
    faithmap.errors.UserError: seed is x; give a whole number
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a ValueError, which the library raises for wrong arguments, into a :class:`UserError`."""
    try:
        yield
    except ValueError as error:
        raise UserError(error) from error


@contextmanager
def memory_errors(option: str, value: int) -> Iterator[None]:
    """Turn an out-of-memory error into a :class:`UserError` that names the option to lower.

    On an accelerator the error is torch's own, which is not imported here; on the CPU it is a bare RuntimeError.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        accelerator, processor = type(error).__name__ == "OutOfMemoryError", "allocate memory" in str(error)
        if not (isinstance(error, MemoryError) or accelerator or processor):
            raise
        raise UserError(f"out of memory; give a {option} below {value}, or another --device") from error


@contextmanager
def write_errors(path: Path, remedy: str = "give another --out", error_type: type[Exception] = UserError) -> Iterator[None]:
    """Turn an OSError, raised while ``path`` is written, into a :class:`UserError`, or into an error of another type."""
    try:
        yield
    except OSError as error:
        raise error_type(f"{path}: cannot be written ({os_reason(error)}); {remedy}") from error


def os_reason(error: OSError) -> str:
    """The reason that the operating system gives, without its number and the path.

    >>> os_reason(FileNotFoundError(2, "No such file or directory", "cat.jpg"))
    'No such file or directory'
    """
    return error.strerror or str(error) or type(error).__name__


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM inside the block. Does nothing outside the main thread, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise Terminated


class BenchError(ValueError):
    """The specification, the run folder or the machine prevents the benchmark. The message is one line."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class BenchSettingError(BenchError):
    """A setting of a method or metric is invalid.

    Attributes:
        setting: name of the setting; None if unknown.
    """

    def __init__(self, message: object, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class NoRoomError(BenchError):
    """A result could not be written; all earlier results are complete."""


class RunError(BenchError):
    """A run folder that cannot be reported on."""


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a BenchError.

    Args:
        path: named in the message if the OSError names no file.
    """
    try:
        yield
    except OSError as error:
        name, reason = error.filename or path, os_reason(error)
        raise BenchError(
            f"{name}: cannot be read or written ({reason}); no result is lost: fix the cause, or give another --out"
        ) from error


def check_installed() -> None:
    """Raise BenchError if a library that every benchmark needs is not installed."""
    for module in ("pydantic", "pyarrow"):
        if find_spec(module) is None:
            raise not_installed(module)


def not_installed(module: str, extra: str = "bench") -> BenchError:
    """The error for a library that is not installed."""
    return BenchError(f"{module} is not installed, which benchmarks need; pip install 'faithmap[{extra}]'")
