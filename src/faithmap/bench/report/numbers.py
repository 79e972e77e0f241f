r"""Statistics of the rows, with what they cost kept in bounds for tens of thousands of images.

Bootstrap intervals and sign-flip tests are those of :mod:`faithmap.metrics.statistics`. From :data:`MANY` images on the sums
that they draw are normal by the central limit theorem, and the normal law takes their place: of the mean, its standard error
times the quantile; of the paired test,

.. math:: p = \operatorname{erfc}\left(\Big|\sum d\Big| \Big/ \sqrt{2 \sum d^2}\right)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray

from faithmap.bench.report.curves import Numbers
from faithmap.bench.report.series import Series
from faithmap.metrics.statistics import bootstrap, compare, holm, paired, summarise

MANY = 2000
LEVEL = 0.95
DRAWS = 20_000
RESAMPLES = 5_000


@dataclass(frozen=True)
class Score:
    """A mean over images, its standard error, and where it lies with 95 % confidence; NaN for a single image."""

    mean: float
    standard_error: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Pair:
    """One method minus another on the images that both have; p corrected for all pairs of the same table."""

    first: str
    second: str
    difference: float
    standard_error: float
    p: float
    corrected_p: float
    count: int


def score(values: Numbers) -> Score | None:
    """The summary of finite values; None where there are none."""
    if len(values) == 0:
        return None
    sample = torch.from_numpy(np.asarray(values, np.float64))
    summary = summarise(sample)
    if len(values) == 1:
        low = high = math.nan
    elif len(values) < MANY:
        interval = bootstrap(sample, level=LEVEL, resamples=RESAMPLES)
        low, high = interval.low, interval.high
    else:
        reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * summary.standard_error
        low, high = summary.mean - reach, summary.mean + reach
    return Score(summary.mean, summary.standard_error, low, high, len(values))


def pairs(methods: dict[str, Series], metric: str) -> list[Pair]:
    """Every pair of methods, image by image; pairs without an image in common are left out."""
    columns = {name: series.values(metric) for name, series in methods.items()}
    columns = {name: column for name, column in columns.items() if len(column[0])}
    alike = len({index.tobytes() for index, _ in columns.values()}) == 1
    if alike and len(next(iter(columns.values()))[0]) < MANY:
        samples = {name: torch.from_numpy(values.copy()) for name, (_, values) in columns.items()}
        return [
            Pair(c.first, c.second, c.paired.mean, c.paired.standard_error, c.paired.p, c.corrected_p, c.paired.count)
            for c in compare(samples, draws=DRAWS)
        ]
    found = [(a, b, _difference(columns[a], columns[b])) for a, b in combinations(columns, 2)]
    found = [(a, b, difference) for a, b, difference in found if len(difference)]
    p = [_test(difference) for _, _, difference in found]
    corrected = holm(torch.tensor(p, dtype=torch.float64)).tolist()
    results = []
    for (a, b, difference), raw, safe in zip(found, p, corrected, strict=True):
        summary = summarise(torch.from_numpy(difference))
        results.append(Pair(a, b, summary.mean, summary.standard_error, raw, safe, summary.count))
    return results


def _difference(first: tuple[NDArray[np.int64], Numbers], second: tuple[NDArray[np.int64], Numbers]) -> Numbers:
    _, ours, theirs = np.intersect1d(first[0], second[0], assume_unique=True, return_indices=True)
    difference: Numbers = first[1][ours] - second[1][theirs]
    return difference


def _test(difference: Numbers) -> float:
    """That the mean is 0, by sign flips; by their normal law for many images."""
    if len(difference) < MANY:
        sample = torch.from_numpy(difference)
        return paired(sample, torch.zeros_like(sample), draws=DRAWS).p
    spread = math.sqrt(2 * float(np.square(difference).sum()))
    return math.erfc(abs(float(difference.sum())) / spread) if spread else 1.0
