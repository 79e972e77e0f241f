"""What the user can put right, in one line.

This module and all that the parser needs are free of torch, whose import takes seconds: ``--help`` and a misspelt option are
answered at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from faithmap.text import one_line

USER_ERROR = 2
"""Exit code where an input, an option or the machine is to blame."""

INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143


class UserError(Exception):
    """Ends the run. The message is one line: what was given, what is wrong with it, what to do."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


@contextmanager
def blaming_the_user() -> Iterator[None]:
    """Turn a ValueError, by which the library refuses what it is given, into a :class:`UserError`."""
    try:
        yield
    except ValueError as error:
        raise UserError(error) from error


@contextmanager
def blaming_memory(option: str, value: int) -> Iterator[None]:
    """Turn what says that memory ran out into a :class:`UserError` that names the option to lower.

    An accelerator's error is torch's own, which is not imported here; a processor's allocator raises a bare RuntimeError.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        accelerator, processor = type(error).__name__ == "OutOfMemoryError", "allocate memory" in str(error)
        if not (isinstance(error, MemoryError) or accelerator or processor):
            raise
        raise UserError(f"out of memory; give a {option} below {value}, or another --device") from error


def os_problem(error: OSError) -> str:
    """What the operating system said, without its number and the path.

    >>> os_problem(FileNotFoundError(2, "No such file or directory", "cat.jpg"))
    'No such file or directory'
    """
    return error.strerror or str(error) or type(error).__name__
