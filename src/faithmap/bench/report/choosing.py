"""Which images are worth a look: those on which the methods do best, worst, and differ most.

An image's score is the mean over methods of the headline metric. Every image is judged by the same methods, so methods at
different resolutions may be averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from faithmap.bench.report.analysis import Entry, Section

REASONS = ("among the best", "among the worst", "where the methods differ most")


@dataclass(frozen=True)
class Chosen:
    """An image by its index, why it is shown, and its score."""

    index: int
    reason: str
    score: float


def choose(section: Section, metric: str | None, higher_is_better: bool, each: int) -> list[Chosen]:
    """So many images for each reason, no image twice; the reasons take turns, so that what is cut off is cut from all.

    Args:
        section: the model.
        metric: the headline; None shows nothing.
        higher_is_better: of that metric.
        each: images for each reason.
    """
    entries = _judged(section.entries, metric)
    if metric is None or not entries:
        return []
    common = reduce(np.intersect1d, (entry.series.values(metric)[0] for entry in entries))
    scores = np.stack([_at(entry, metric, common) for entry in entries])
    mean = scores.mean(axis=0)
    best = np.argsort(-mean if higher_is_better else mean, kind="stable")
    orders = [best, best[::-1]]
    if len(entries) > 1:
        orders.append(np.argsort(-scores.std(axis=0), kind="stable"))
    taken: dict[int, Chosen] = {}
    for place in range(min(each, len(common))):
        for order, reason in zip(orders, REASONS, strict=False):
            at = int(order[place])
            taken.setdefault(at, Chosen(int(common[at]), reason, float(mean[at])))
    return list(taken.values())


def _judged(entries: Sequence[Entry], metric: str | None) -> list[Entry]:
    """As many methods as have an image in common, those with the most images first."""
    kept: list[Entry] = []
    common = None
    for entry in sorted(entries, key=lambda entry: -len(entry.series.values(metric or "")[0])):
        images = entry.series.values(metric or "")[0]
        shared = images if common is None else np.intersect1d(common, images)
        if len(shared):
            kept, common = [*kept, entry], shared
    return kept


def _at(
    entry: Entry, metric: str, images: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    index, values = entry.series.values(metric)
    return values[np.searchsorted(index, images)]
