"""The metrics that a benchmark knows, by name: their columns, which way is better, their settings.

Free of torch: a misspelt name is answered at once. How each is measured is in :mod:`faithmap.bench.measures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Kind:
    """One metric.

    Attributes:
        columns: each with whether a high value is good; None where neither is.
        settings: the keywords that it takes.
        boxes: whether it needs to know where the objects are.
    """

    columns: Mapping[str, bool | None]
    settings: tuple[str, ...] = ()
    boxes: bool = False


METRICS: Mapping[str, Kind] = MappingProxyType(
    {
        "deletion_insertion": Kind({"deletion": False, "insertion": True}, ("protocol", "steps", "baseline", "resolution")),
        "infidelity": Kind({"infidelity": False}, ("perturbation", "draws", "reading", "scaled")),
        "sensitivity": Kind({"max_sensitivity": False, "mean_sensitivity": False}, ("radius", "draws")),
        "confidence": Kind({"average_drop": False, "increase_in_confidence": True, "average_gain": True}, ("scaling",)),
        "road": Kind({"road": True}, ("fractions", "noise_std")),
        "complexity": Kind({"complexity": False, "sparseness": True}),
        "objective": Kind({"objective": False}),
        "saturation": Kind({"saturation": None}, ("target_layer", "positions", "baseline", "tolerance")),
        "pointing_game": Kind({"pointing_game": True}, ("tolerance",), boxes=True),
        "energy_pointing_game": Kind({"energy_pointing_game": True}, boxes=True),
        "relevance_rank": Kind({"relevance_rank": True}, boxes=True),
    }
)
"""``objective`` is the last total loss of a method that optimises a mask, ``saturation`` the share of the path from baseline to
image on which the score has stopped moving: both are no verdict on a heatmap, and the tables of the papers have them."""

CURVES = ("deletion_curve", "insertion_curve", "curve_fractions")
"""What ``deletion_insertion`` leaves beside its two columns."""
