"""Run listing: the images of a run for one model, with the scores of all methods, in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from faithmap.app.differing import disagreements
from faithmap.bench.report.analysis import Analysis, MethodEntry, ModelSection, analyse, resolution_name
from faithmap.bench.report.example_images import images_folder
from faithmap.bench.report.results import open_unit_file, read_results
from faithmap.bench.report.run_record import ReportedRun, open_run
from faithmap.errors import RunError, one_line

MEAN = "mean of all methods"
DISAGREEMENT = "how much the maps differ"
SCATTER = "how much the scores differ"
"""Orders besides the score of one method."""

BETTER = {True: "higher is better", False: "lower is better"}

Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RunListing:
    """The images of one model.

    Attributes:
        analysis: of the whole run.
        section: the part of the analysis that belongs to the model.
        names: of the images, by index; untrusted text.
        folder: folder of the images; None if it is unknown.
    """

    analysis: Analysis
    section: ModelSection
    names: Mapping[int, str]
    folder: Path | None

    @cached_property
    def methods(self) -> dict[str, MethodEntry]:
        """By displayed name; if two have the same name, the resolution is appended."""
        entries = self.section.entries
        shared = Counter(entry.name for entry in entries)
        return {e.name if shared[e.name] == 1 else f"{e.name}, {resolution_name(e.cells)}": e for e in entries}

    def title(self, image: int) -> str:
        """An image's name on one line."""
        return one_line(str(self.names[image]))

    @property
    def metrics(self) -> list[str]:
        """The scores; the main one first."""
        first = self.analysis.headline
        return sorted(self.analysis.metrics, key=lambda metric: metric != first)

    def with_direction(self, metric: str) -> str:
        """A score's name, with the direction that is better if there is one."""
        better = BETTER.get(self.analysis.directions[metric]) if metric in self.analysis.directions else None
        return metric if better is None else f"{metric} ({better})"

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """The indices of all images with a row."""
        return np.unique(np.concatenate([entry.results.images for entry in self.section.entries]))

    def scores(self, metric: str) -> Scores:
        """One row per image, one column per method; NaN for a missing number."""
        table = np.full((len(self.images), len(self.methods)), np.nan)
        for column, entry in enumerate(self.methods.values()):
            index, values = entry.results.values(metric)
            table[np.searchsorted(self.images, index), column] = values
        return table

    def ordered(self, metric: str, by: str = MEAN, *, highest_first: bool = True) -> list[int]:
        """The indices of the images in order. Images without a number are last; equal ones keep the order of the data set.

        Args:
            metric: the score.
            by: :data:`MEAN`; :data:`DISAGREEMENT` of the stored maps, see :mod:`faithmap.app.differing`; :data:`SCATTER`, the
                standard deviation of the methods' scores; or a method's name. A single method has neither of the two.
            highest_first: whether the highest number is first.
        """
        keys = self.differences if by == DISAGREEMENT else self._keys(self.scores(metric), by)
        ranked = np.argsort(-keys if highest_first else keys, kind="stable")
        return [int(index) for index in self.images[ranked]]

    @cached_property
    def differences(self) -> Scores:
        """How much the maps of each image differ. Reads all maps of the run when it is first used."""
        return disagreements(self.analysis.run, self.section, self.images.tolist())

    def _keys(self, table: Scores, by: str) -> Scores:
        if by in self.methods:
            return np.asarray(table[:, list(self.methods).index(by)])
        known = np.isfinite(table)
        count = known.sum(axis=1)
        some = np.maximum(count, 1)
        mean = np.where(known, table, 0).sum(axis=1) / some
        if by == MEAN:
            return np.asarray(np.where(count > 0, mean, np.nan))
        if by != SCATTER:
            known_orders = f"{MEAN!r}, {DISAGREEMENT!r}, {SCATTER!r}"
            raise ValueError(f"images cannot be sorted by {by!r}; give {known_orders} or a method's name")
        spread = np.sqrt((np.where(known, table - mean[:, None], 0) ** 2).sum(axis=1) / some)
        return np.asarray(np.where(count > 1, spread, np.nan))


def open_listings(folder: Path, data: Path | None = None) -> list[RunListing]:
    """The listings of a run, one per model.

    Args:
        folder: of the run, complete or not.
        data: folder of the images; None for the folder in the plan.

    Raises:
        RunError: a ValueError, if it is not a run, is damaged, or has no scores.
    """
    run = open_run(folder)
    analysis = analyse(run, read_results(run))
    if not analysis.sections or not analysis.metrics:
        raise RunError(f"{folder}: no row has a score; give a run in which a metric was measured")
    names = _names(run)
    images = data or images_folder(analysis)
    return [RunListing(analysis, section, names[section.model.name], images) for section in analysis.sections]


def _names(run: ReportedRun) -> dict[str, dict[int, str]]:
    """The names of the images of each model, by index."""
    found: dict[str, dict[int, str]] = {model.name: {} for model in run.plan.models}
    for path in run.files:
        with open_unit_file(path) as file:
            table = file.read(columns=["model", "index", "image"])
        for model, known in found.items():
            rows = table.filter(pc.equal(table["model"], model))
            known.update(zip(rows["index"].to_pylist(), rows["image"].to_pylist(), strict=True))
    return found
