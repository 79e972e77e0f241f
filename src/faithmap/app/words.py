"""What a visitor is told when something fails: one line, and never a path or a traceback."""

from __future__ import annotations

import logging
import re

from faithmap.errors import UserError
from faithmap.text import one_line

BROKEN = "something went wrong inside faithmap; the terminal in which it runs says what"
MEMORY = "memory ran out; choose a smaller resolution or fewer samples"

_LONGEST = 300
_PATH = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:;,'\"()]+[/\\])*([^\s/\\:;,'\"()]+)")
_EXPECTED = (ValueError, UserError, ModuleNotFoundError)
"""By which the library refuses what it is given; their messages are written for people."""


class RefusedError(ValueError):
    """What a visitor asked for cannot be done; the message is for them."""


class CancelledError(Exception):
    """The visitor wants no more of it."""


def line_for(error: BaseException) -> str:
    """What the visitor reads; what was not expected is told to the terminal instead.

    >>> line_for(ValueError("/home/me/cat.jpg: not an image; give a JPEG"))
    'cat.jpg: not an image; give a JPEG'
    """
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or type(error).__name__ == "OutOfMemoryError":
        return MEMORY
    if not isinstance(error, _EXPECTED):
        logging.getLogger("faithmap.app").error("a request failed", exc_info=error)
        return BROKEN
    return without_paths(one_line(str(error)))[:_LONGEST]


def without_paths(text: str) -> str:
    """Of every path only the last name.

    >>> without_paths("see /a/b/c.txt or x/y")
    'see c.txt or x/y'
    """
    return _PATH.sub(r"\1", text)
