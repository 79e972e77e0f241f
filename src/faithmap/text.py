"""Text for terminals and reports. Free of torch, so that the command line can start without it."""

from __future__ import annotations


def one_line(text: str) -> str:
    r"""Escape characters that do not print, such as those in file names that would break a line or control the terminal.

    >>> print(one_line("cat\n\x1b[2J.jpg"))
    cat\n\x1b[2J.jpg
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def counted(number: int, what: str) -> str:
    """A number with a noun.

    >>> counted(1, "unit"), counted(2000, "unit")
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
