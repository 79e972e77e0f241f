"""``faithmap methods``."""

from __future__ import annotations

from faithmap.cli.report import make_console
from faithmap.methods.registry import METHODS


def methods() -> int:
    """List the methods: what each one does, its cost in passes of the model per image, and its source."""
    console = make_console()
    rows = [("method", "passes per image", "needs", "source", "what it does")]
    for name, method in METHODS.items():
        also = f"; also {', '.join(method.also)}" if method.also else ""
        rows.append((name, method.passes, ", ".join(method.needs) or "scores", method.source, method.summary + also))
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    for row in rows:
        console.print("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
