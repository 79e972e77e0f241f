r"""What many per-image values say together: a mean with its error, an interval, and whether two methods differ.

:standard error: :math:`s / \sqrt n`, with s the sample's standard deviation.
:interval: percentile bootstrap (Efron 1979): the mean of n values drawn with replacement, many times.
:paired test: sign flips (Fisher 1935). If two methods are alike, the difference on every image could as well have had the other
    sign; p is the part of all sign patterns whose mean difference is as far from 0 as the one seen. Nothing is assumed of how
    differences are distributed.
:Holm (1979): of m tests the i-th smallest p is multiplied by m - i + 1, so that one false alarm among all of them is as rare as
    in a single test.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

EXACT = 14
"""Up to so many images that differ, all sign patterns are counted instead of drawn."""

CHUNK = 2**22
"""Numbers that are drawn at once."""


@dataclass(frozen=True)
class Summary:
    """A sample's mean and the mean's standard error, NaN for a single image."""

    mean: float
    standard_error: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.standard_error:.3f})"


@dataclass(frozen=True)
class Interval:
    """Where a mean lies: between ``low`` and ``high``, with the confidence ``level``."""

    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Paired:
    """The mean of differences image by image, its standard error, and the two-sided p that it is 0."""

    mean: float
    standard_error: float
    p: float
    count: int


@dataclass(frozen=True)
class Comparison:
    """One method minus another, and its p corrected for all comparisons that were made with it."""

    first: str
    second: str
    paired: Paired
    corrected_p: float


def summarise(values: Float[Tensor, " n"]) -> Summary:
    """Mean and standard error.

    >>> summarise(torch.tensor([1.0, 2.0, 3.0]))
    Summary(mean=2.0, standard_error=0.5773502691896258, count=3)
    """
    values = _checked(values)
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")
    return Summary(float(values.mean()), error, len(values))


def per_class(values: Float[Tensor, " n"], classes: Int[Tensor, " n"]) -> dict[int, Summary]:
    """The summary of each class's images, classes in rising order."""
    if len(values) != len(classes):
        raise ValueError(f"{len(values)} values for {len(classes)} classes; give one class a value")
    return {int(c): summarise(values[classes == c]) for c in classes.unique()}


def bootstrap(values: Float[Tensor, " n"], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Percentile interval of the mean.

    Args:
        values: one for each image.
        level: of confidence, in (0, 1).
        resamples: drawn with replacement.
        seed: of the draws.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level is {level} and resamples {resamples}; give a level between 0 and 1, and at least 1 resample")
    values = _checked(values)
    generator = torch.Generator(values.device).manual_seed(seed)
    means = []
    for count in _chunks(resamples, len(values)):
        index = torch.randint(len(values), (count, len(values)), generator=generator, device=values.device)
        means.append(values[index].mean(dim=1))
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype, device=values.device)
    low, high = torch.cat(means).quantile(ends).tolist()
    return Interval(low, high, level)


def paired(first: Float[Tensor, " n"], second: Float[Tensor, " n"], *, draws: int = 100_000, seed: int = 0) -> Paired:
    """Differences of two methods on the same images, and the sign-flip test of their mean.

    Args:
        first: one value for each image.
        second: of the same images in the same order.
        draws: sign patterns that are drawn, where there are too many to count.
        seed: of the draws.

    >>> paired(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 1.0, 1.0])).p
    0.25
    """
    return _paired([_differences(first, second)], draws, seed)[0]


def holm(p: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """P-values of m tests, corrected for there being m of them; in the order in which they were given.

    >>> holm(torch.tensor([0.01, 0.04, 0.03]))
    tensor([0.0300, 0.0600, 0.0600])
    """
    order = p.argsort()
    factors = torch.arange(len(p), 0, -1, device=p.device, dtype=p.dtype)
    corrected = (p[order] * factors).cummax(dim=0).values.clamp(max=1) if len(p) else p
    return torch.empty_like(p).scatter_(0, order, corrected)


def compare(methods: Mapping[str, Float[Tensor, " n"]], *, draws: int = 100_000, seed: int = 0) -> list[Comparison]:
    """Every pair of methods on the same images, Holm-corrected over all pairs.

    Args:
        methods: each one's value for each image.
        draws: as in :func:`paired`.
        seed: likewise.
    """
    pairs = list(itertools.combinations(methods, 2))
    found = _paired([_differences(methods[first], methods[second]) for first, second in pairs], draws, seed)
    corrected = holm(torch.tensor([result.p for result in found], dtype=torch.float64)).tolist()
    return [Comparison(*names, result, p) for names, result, p in zip(pairs, found, corrected, strict=True)]


def _differences(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} values for {len(second)}; both methods need one value for each of the same images")
    return _checked(first) - _checked(second)


def _paired(pairs: list[Float[Tensor, " n"]], draws: int, seed: int) -> list[Paired]:
    """Of the differences of each pair; those with equally many that are not 0 share what is drawn."""
    moving = [differences[differences != 0] for differences in pairs]
    p = [0.0] * len(pairs)
    for columns in {len(row) for row in moving}:
        rows = [i for i, row in enumerate(moving) if len(row) == columns]
        for i, value in zip(rows, _sign_flips(torch.stack([moving[i] for i in rows]), draws, seed), strict=True):
            p[i] = value
    summaries = [summarise(differences) for differences in pairs]
    return [Paired(s.mean, s.standard_error, p[i], s.count) for i, s in enumerate(summaries)]


def _sign_flips(differences: Float[Tensor, "m k"], draws: int, seed: int) -> list[float]:
    """The test of each row, the same sign patterns for all."""
    count, columns = differences.shape
    if columns == 0:
        return [1.0] * count
    # rounding must not make a pattern smaller than itself
    seen = differences.sum(dim=1).abs() * (1 - 1e-12)
    as_far = torch.zeros(count, dtype=torch.long, device=differences.device)
    for patterns in _patterns(columns, draws, seed, differences.device):
        for some in patterns.split(max(1, CHUNK // count)):
            as_far += ((some * 2 - 1).to(differences) @ differences.mT).abs().ge(seen).sum(dim=0)
    if columns <= EXACT:
        return [number / 2**columns for number in as_far.tolist()]
    return [(number + 1) / (draws + 1) for number in as_far.tolist()]  # the pattern that was seen is one of them


def _patterns(columns: int, draws: int, seed: int, device: torch.device) -> Iterator[Int[Tensor, "rows columns"]]:
    """Zeros and ones: every pattern, or drawn ones where there are too many."""
    if columns <= EXACT:
        yield (torch.arange(2**columns, device=device).unsqueeze(1) >> torch.arange(columns, device=device)) & 1
        return
    generator = torch.Generator(device).manual_seed(seed)
    for count in _chunks(draws, columns):
        yield torch.randint(2, (count, columns), generator=generator, device=device)


def _chunks(rows: int, columns: int) -> list[int]:
    whole = max(1, CHUNK // columns)
    return [min(whole, rows - start) for start in range(0, rows, whole)]


def _checked(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    if values.ndim != 1 or len(values) == 0 or not bool(values.isfinite().all()):
        raise ValueError(f"values have shape {tuple(values.shape)}; give one finite number for each image, and at least one")
    return values.double()
