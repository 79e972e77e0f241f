"""What the columns of a row are called, and which of them are metrics."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

COSTS = ("forward", "backward", "seconds", "metric_seconds", "peak_memory")
CLASS = "target"
"""The explained class: no metric, but what a mean over classes is taken over."""
GAMES = ("deletion", "insertion")


def difference(prefix: str) -> str:
    """What insertion minus deletion of a protocol is called; the prefix tells protocols apart."""
    return f"{prefix}insertion - {prefix}deletion"


def protocols(names: Iterable[str]) -> list[str]:
    """The prefixes of all games.

    >>> protocols(["rise_deletion", "deletion", "insertion", difference(""), "infidelity"])
    ['', 'rise_']
    """
    return sorted({name.removesuffix(game) for name in names for game in GAMES if name.endswith(game) and " - " not in name})


def metrics_of(schema: pa.Schema) -> list[str]:
    """Every column of floats that is not known to be something else."""
    known = {*COSTS, "probability", "score", "heatmap_scale"}
    return [entry.name for entry in schema if pa.types.is_floating(entry.type) and entry.name not in known]
