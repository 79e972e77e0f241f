"""What the columns of a row are called, and which of them are metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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


def misfit(schema: pa.Schema) -> str | None:
    """The first column that holds something else than it does in a run's files; None where there is none."""
    return next((f.name for f in schema if not (pa.types.is_null(f.type) or _fits(f.name, f.type))), None)


def _fits(name: str, kind: pa.DataType) -> bool:
    """Whether a column of that name may be of that type; one of another name may be of any."""
    if name in ("model", "method", "image", "label", "error"):
        return _is_text(kind)
    if name in ("index", *COSTS, CLASS, "probability", "score", "heatmap_scale"):
        return _is_number(kind)
    if name in ("size", "heatmap_shape", "rows_at", "columns_at", "heatmap") or name.endswith(("_curve", "curve_fractions")):
        return _is_list(kind, _is_number)
    return name != "warnings" or _is_list(kind, _is_text)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_list(kind: pa.DataType, each: Callable[[pa.DataType], bool]) -> bool:
    """A list, or a tensor of fixed shape, of such entries."""
    plain = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    lists = pa.types.is_list(plain) or pa.types.is_large_list(plain) or pa.types.is_fixed_size_list(plain)
    return bool(lists) and each(plain.value_type)
