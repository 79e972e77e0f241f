"""What ``faithmap choose`` prints: the methods from the best to the worst, who was left out, and what to use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from faithmap.text import spoken


def ranking_lines(record: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    """The head of each line, and its text."""
    ranking, count = record["ranking"], len(record["photographs"])
    width = max(len(method["name"]) for method in ranking) + 12
    side = record["protocol"]["resolution"][0]
    name = record["score"]["name"].replace("_", " ")
    order = "higher" if record["score"]["higher_is_better"] else "lower"
    yield "", f"{record['model']['name']}, {count} photograph{'s' * (count > 1)}: {name} at {side} x {side} ({order} is better)"
    yield (
        "  " + "method".ljust(width),
        "  score  95 % interval   to the best  95 % interval       p  forwards  backwards  an image",
    )
    for method in ranking:
        yield "  " + (method["name"] + " (control)" * method["control"]).ljust(width), _row(method, record["use"])
    for reason in dict.fromkeys(method["reason"] for method in record["left_out"]):
        names = ", ".join(_costing(method) for method in record["left_out"] if method["reason"] == reason)
        yield "  left out  ", f"{names}: {reason}"
    for i, sentence in enumerate(record["advice"]):
        yield "  " + ("" if i else "advice").ljust(10), sentence
    yield "  picture   ", str(folder / "ranking.png")


def _costing(method: Mapping[str, Any]) -> str:
    """A method, and what all photographs would take, where that is known."""
    return str(method["name"]) + ("" if method["seconds"] is None else f" ({spoken(method['seconds'])})")


def _row(method: Mapping[str, Any], best: str) -> str:
    passes, behind = method["passes"], method["to_best"]
    areas = f"{method['score']:7.3f}  {_interval(method)}"
    ahead = f"{behind['mean']:11.3f}  {_interval(behind)}  {behind['p']:6.2g}"
    cost = f"  {passes['forward']:8}  {passes['backward']:9}  {spoken(method['seconds']):>8}"
    return areas + "  " + (" " * len(ahead) if method["name"] == best else ahead) + cost


def _interval(mean: Mapping[str, Any]) -> str:
    """Where a mean lies; a dash with a single photograph."""
    ends = mean["interval"]
    return "-".rjust(16) if ends is None else f"{ends[0]:6.3f} to {ends[1]:6.3f}"
