"""Messages for visitors when something fails: one line, without paths and tracebacks."""

from __future__ import annotations

import logging
import re

from faithmap.errors import UserError, one_line

INTERNAL_ERROR = "something went wrong inside faithmap; see the terminal in which it runs"
OUT_OF_MEMORY = "memory ran out; choose a smaller resolution or fewer samples"

_MAX_LENGTH = 300
_PATH = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:;,'\"()]+[/\\])*([^\s/\\:;,'\"()]+)")
_EXPECTED = (ValueError, UserError, ModuleNotFoundError)
"""Errors that the library raises for wrong input; their messages are written for users."""


class RefusedError(ValueError):
    """A visitor's request cannot be fulfilled; the message is for the visitor."""


class CancelledError(Exception):
    """The visitor cancelled the job."""


def line_for(error: BaseException) -> str:
    """The message for the visitor. An unexpected error is logged in the terminal instead.

    >>> line_for(ValueError("/home/me/cat.jpg: not an image; give a JPEG"))
    'cat.jpg: not an image; give a JPEG'
    """
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or type(error).__name__ == "OutOfMemoryError":
        return OUT_OF_MEMORY
    if not isinstance(error, _EXPECTED):
        logging.getLogger("faithmap.app").error("a request failed", exc_info=error)
        return INTERNAL_ERROR
    return without_paths(one_line(str(error)))[:_MAX_LENGTH]


def without_paths(text: str) -> str:
    """The text with only the last name of every path.

    >>> without_paths("see /a/b/c.txt or x/y")
    'see c.txt or x/y'
    """
    return _PATH.sub(r"\1", text)
