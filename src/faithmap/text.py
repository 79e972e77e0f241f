"""Text that a terminal can be trusted with. Free of torch, so that the command line can start without it."""

from __future__ import annotations


def one_line(text: str) -> str:
    r"""Escape what does not print: a file's name is its author's, and may neither break a line nor steer the terminal.

    >>> print(one_line("cat\n\x1b[2J.jpg"))
    cat\n\x1b[2J.jpg
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
