"""Differing: how little the maps of an image have in common: 0 for maps of one order, 1 for maps without relation, at most 2.

    1 - mean over all pairs of methods of Spearman's rank correlation of their maps

Maps are compared at common cells: those of the finest one, at most 28 a side, each where it belongs. A map of chance is no
method's answer and is left out, as are maps that hold numbers which are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from faithmap.bench.report.analysis import MethodEntry, ModelSection
from faithmap.bench.report.example_images import MethodMap, read_maps
from faithmap.bench.report.run_record import ReportedRun
from faithmap.explanation import Explanation
from faithmap.metrics.functional.agreement import spearman

FINEST = 28
"""Cells a side, at the most."""

CONTROL = "RandomMap"
"""The class of a method that knows nothing."""

_TOGETHER = 32


def differences(run: ReportedRun, section: ModelSection, images: Sequence[int]) -> NDArray[np.float64]:
    """Of each image; NaN where fewer than two methods have a map of it.

    Args:
        run: that holds the maps.
        section: the model's part of it.
        images: by index.
    """
    found = []
    for start in range(0, len(images), _TOGETHER):
        some = images[start : start + _TOGETHER]
        rows = read_maps(run, section, some)
        found += [_difference([row for row in rows[image] if not is_control(run, row.entry)]) for image in some]
    return np.asarray(found, np.float64)


def is_control(run: ReportedRun, entry: MethodEntry) -> bool:
    """Whether a method is a map of chance."""
    return any(method.id == entry.id and method.class_name == CONTROL for method in run.plan.methods)


def explanation_of(row: MethodMap) -> Explanation | None:
    """A stored map with its cells where they belong; None where there is none."""
    if row.heatmap is None:
        return None
    placed = row.size is not None
    rows, columns = (row.rows, row.columns) if placed else (None, None)
    heatmap = row.heatmap.float().unsqueeze(0) * float(row.fields["heatmap_scale"] or 1.0)
    return Explanation(heatmap, row.size or (224, 224), rows=rows, columns=columns, method=row.entry.name)


def _difference(rows: Sequence[MethodMap]) -> float:
    stored = (explanation_of(row) for row in rows)
    whys = [why for why in stored if why is not None and bool(torch.isfinite(why.heatmap).all())]
    if len(whys) < 2:
        return float("nan")
    down, across = (min(FINEST, max(why.resolution[axis] for why in whys)) for axis in (0, 1))
    maps = [why.cells if why.resolution == (down, across) else why.at((down, across)) for why in whys]
    return 1 - float(np.mean([float(spearman(a, b)[0]) for a, b in combinations(maps, 2)]))
