"""Disagreement of the maps of an image: 0 for equal rankings of the cells, 1 for unrelated ones, at most 2.

    1 - mean over all pairs of methods of Spearman's rank correlation of their maps

Maps are compared at the resolution of the finest one, at most 28 cells per side. Random maps are left out, and so are maps
with values that are not finite.
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
"""Maximum number of cells per side."""

CONTROL = "RandomMap"
"""Class of the random map."""

_BATCH = 32


def disagreements(run: ReportedRun, section: ModelSection, images: Sequence[int]) -> NDArray[np.float64]:
    """The disagreement of each image; NaN if fewer than two methods have a map of it.

    Args:
        run: with stored maps.
        section: the part of the analysis that belongs to the model.
        images: by index.
    """
    found = []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        rows = read_maps(run, section, batch)
        found += [_difference([row for row in rows[image] if not is_control(run, row.entry)]) for image in batch]
    return np.asarray(found, np.float64)


def is_control(run: ReportedRun, entry: MethodEntry) -> bool:
    """Whether a method is the random map."""
    return any(method.id == entry.id and method.class_name == CONTROL for method in run.plan.methods)


def explanation_of(row: MethodMap) -> Explanation | None:
    """A stored map as an explanation; None if none is stored."""
    if row.heatmap is None:
        return None
    placed = row.size is not None
    rows, columns = (row.rows, row.columns) if placed else (None, None)
    heatmap = row.heatmap.float().unsqueeze(0) * float(row.fields["heatmap_scale"] or 1.0)
    return Explanation(heatmap, row.size or (224, 224), rows=rows, columns=columns, method=row.entry.name)


def _difference(rows: Sequence[MethodMap]) -> float:
    stored = (explanation_of(row) for row in rows)
    explanations = [map_ for map_ in stored if map_ is not None and bool(torch.isfinite(map_.heatmap).all())]
    if len(explanations) < 2:
        return float("nan")
    down, across = (min(FINEST, max(map_.resolution[axis] for map_ in explanations)) for axis in (0, 1))
    maps = [map_.cells if map_.resolution == (down, across) else map_.at((down, across)) for map_ in explanations]
    return 1 - float(np.mean([float(spearman(a, b)[0]) for a, b in combinations(maps, 2)]))
