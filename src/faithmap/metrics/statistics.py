r"""Statistics of per-image values: a mean with its standard error, an interval, and tests of whether two methods differ.

:standard error: :math:`s / \sqrt n`, with s the sample's standard deviation.
:interval: percentile bootstrap (Efron 1979): the mean of n values drawn with replacement, many times.
:paired test: sign flips (Fisher 1935). Under the hypothesis that two methods are equal, the difference on every image has
    either sign with equal probability; p is the share of all sign patterns whose mean difference is at least as far from 0 as
    the observed one. The test makes no assumption about the distribution of the differences.
:Holm (1979): of m tests the i-th smallest p is multiplied by m - i + 1, so that the probability of one false positive among all
    of them is at most that of a single test.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

EXACT = 14
"""Maximum number of images with a difference for which all sign patterns are enumerated instead of sampled."""

CHUNK = 2**22
"""Numbers that are drawn together."""


@dataclass(frozen=True)
class Summary:
    """Mean of a sample and the mean's standard error, NaN for a single image.

    >>> print(Summary(mean=2.0, standard_error=0.5773, count=3))
    2.000 (0.577)
    """

    mean: float
    standard_error: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.standard_error:.3f})"


@dataclass(frozen=True)
class Interval:
    """Confidence interval of a mean.

    >>> Interval(low=0.4, high=0.6, level=0.95).level
    0.95
    """

    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Paired:
    """Mean of the per-image differences, its standard error, and the two-sided p of the hypothesis that it is 0.

    >>> paired(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 1.0, 1.0])).mean
    2.0
    """

    mean: float
    standard_error: float
    p: float
    count: int


@dataclass(frozen=True)
class Comparison:
    """One method minus another, and its p corrected for all comparisons of the same call.

    >>> (comparison,) = compare({"a": torch.tensor([2.0, 3.0, 4.0]), "b": torch.tensor([1.0, 1.0, 1.0])})
    >>> comparison.first, comparison.second, comparison.corrected_p
    ('a', 'b', 0.25)
    """

    first: str
    second: str
    paired: Paired
    corrected_p: float


def summarise(values: Float[Tensor, " n"]) -> Summary:
    """Mean and standard error.

    Args:
        values: one per image, at least one.

    >>> summarise(torch.tensor([1.0, 2.0, 3.0]))
    Summary(mean=2.0, standard_error=0.5773502691896258, count=3)

    Raises:
        ValueError: for no values, or values that are not finite.
    """
    values = _checked(values)
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")
    return Summary(float(values.mean()), error, len(values))


def per_class(values: Float[Tensor, " n"], classes: Int[Tensor, " n"]) -> dict[int, Summary]:
    """The summary of each class's images, classes in ascending order.

    Args:
        values: one per image.
        classes: one per image.

    >>> per_class(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([7, 7, 2]))[7].mean
    2.0

    Raises:
        ValueError: for another number of classes than values.
    """
    if len(values) != len(classes):
        raise ValueError(f"{len(values)} values for {len(classes)} classes; give one class per value")
    return {int(c): summarise(values[classes == c]) for c in classes.unique()}


def bootstrap(values: Float[Tensor, " n"], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Percentile interval of the mean.

    >>> interval = bootstrap(torch.arange(100.0))
    >>> round(interval.low), round(interval.high)
    (44, 55)

    Args:
        values: one value for each image.
        level: confidence level of the interval, in (0, 1).
        resamples: number of samples that are drawn with replacement, at least 1.
        seed: seed of the resampling.

    Raises:
        ValueError: for no values, values that are not finite, or settings out of their range.
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
        first: one value per image.
        second: one value per image, for the same images in the same order.
        draws: number of sign patterns that are drawn if there are too many to enumerate.
        seed: seed of the sign patterns.

    >>> paired(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 1.0, 1.0])).p
    0.25

    Raises:
        ValueError: for different numbers of values, no values, or values that are not finite.
    """
    return _paired([_differences(first, second)], draws, seed)[0]


def holm(p: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """P-values of m tests, corrected for the number of tests; in the given order.

    Args:
        p: uncorrected p-values.

    >>> holm(torch.tensor([0.01, 0.04, 0.03]))
    tensor([0.0300, 0.0600, 0.0600])
    """
    order = p.argsort()
    factors = torch.arange(len(p), 0, -1, device=p.device, dtype=p.dtype)
    corrected = (p[order] * factors).cummax(dim=0).values.clamp(max=1) if len(p) else p
    return torch.empty_like(p).scatter_(0, order, corrected)


def compare(methods: Mapping[str, Float[Tensor, " n"]], *, draws: int = 100_000, seed: int = 0) -> list[Comparison]:
    """Every pair of methods on the same images, Holm-corrected over all pairs.

    >>> values = torch.arange(20.0)
    >>> [f"{c.first} {c.second} {c.corrected_p < 0.05}" for c in compare({"a": values, "b": values + 1, "c": values + 1})]
    ['a b True', 'a c True', 'b c False']

    Args:
        methods: name of each method to its values, one per image.
        draws: number of sign patterns that are drawn if there are too many to enumerate.
        seed: seed of the sign patterns.

    Raises:
        ValueError: for different numbers of values, no values, or values that are not finite.
    """
    pairs = list(itertools.combinations(methods, 2))
    results = _paired([_differences(methods[first], methods[second]) for first, second in pairs], draws, seed)
    corrected = holm(torch.tensor([result.p for result in results], dtype=torch.float64)).tolist()
    return [Comparison(*names, result, p) for names, result, p in zip(pairs, results, corrected, strict=True)]


def _differences(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} values for {len(second)}; both methods need one value for each of the same images")
    return _checked(first) - _checked(second)


def _paired(pairs: list[Float[Tensor, " n"]], draws: int, seed: int) -> list[Paired]:
    """Test each pair's differences; pairs with the same number of nonzero differences share the drawn sign patterns."""
    nonzero = [differences[differences != 0] for differences in pairs]
    p = [0.0] * len(pairs)
    for columns in {len(row) for row in nonzero}:
        rows = [i for i, row in enumerate(nonzero) if len(row) == columns]
        for i, value in zip(rows, _sign_flips(torch.stack([nonzero[i] for i in rows]), draws, seed), strict=True):
            p[i] = value
    summaries = [summarise(differences) for differences in pairs]
    return [Paired(s.mean, s.standard_error, p[i], s.count) for i, s in enumerate(summaries)]


def _sign_flips(differences: Float[Tensor, "m k"], draws: int, seed: int) -> list[float]:
    """P-value of each row, with the same sign patterns for all rows."""
    count, columns = differences.shape
    if columns == 0:
        return [1.0] * count
    # rounding must not make the observed pattern smaller than itself
    observed = differences.sum(dim=1).abs() * (1 - 1e-12)
    as_far = torch.zeros(count, dtype=torch.long, device=differences.device)
    for patterns in _patterns(columns, draws, seed, differences.device):
        for some in patterns.split(max(1, CHUNK // count)):
            as_far += ((some * 2 - 1).to(differences) @ differences.mT).abs().ge(observed).sum(dim=0)
    if columns <= EXACT:
        return [number / 2**columns for number in as_far.tolist()]
    return [(number + 1) / (draws + 1) for number in as_far.tolist()]  # the observed pattern is one of them


def _patterns(columns: int, draws: int, seed: int, device: torch.device) -> Iterator[Int[Tensor, "rows columns"]]:
    """Sign patterns as zeros and ones: all of them, or drawn ones if there are too many."""
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
