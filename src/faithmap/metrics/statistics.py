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
from collections.abc import Mapping
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
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} values for {len(second)}; both methods need one value for each of the same images")
    differences = _checked(first) - _checked(second)
    summary = summarise(differences)
    moving = differences[differences != 0]
    return Paired(summary.mean, summary.standard_error, _sign_flip(moving, draws, seed), len(differences))


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
    found = [paired(methods[first], methods[second], draws=draws, seed=seed) for first, second in pairs]
    corrected = holm(torch.tensor([result.p for result in found], dtype=torch.float64)).tolist()
    return [Comparison(*names, result, p) for names, result, p in zip(pairs, found, corrected, strict=True)]


def _sign_flip(differences: Float[Tensor, " n"], draws: int, seed: int) -> float:
    if len(differences) == 0:
        return 1.0
    # rounding must not make a pattern smaller than itself
    seen = differences.sum().abs() * (1 - 1e-12)
    if len(differences) <= EXACT:
        patterns = torch.arange(2 ** len(differences), device=differences.device).unsqueeze(1)
        bits = (patterns >> torch.arange(len(differences), device=differences.device)) & 1
        return float(((bits * 2 - 1).to(differences) @ differences).abs().ge(seen).double().mean())
    generator = torch.Generator(differences.device).manual_seed(seed)
    as_far = 1  # the pattern that was seen
    for count in _chunks(draws, len(differences)):
        bits = torch.randint(2, (count, len(differences)), generator=generator, device=differences.device)
        as_far += int(((bits * 2 - 1).to(differences) @ differences).abs().ge(seen).sum())
    return as_far / (draws + 1)


def _chunks(rows: int, columns: int) -> list[int]:
    whole = max(1, CHUNK // columns)
    return [min(whole, rows - start) for start in range(0, rows, whole)]


def _checked(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    if values.ndim != 1 or len(values) == 0 or not bool(values.isfinite().all()):
        raise ValueError(f"values have shape {tuple(values.shape)}; give one finite number for each image, and at least one")
    return values.double()
