"""Warnings with classes of their own, so that a user can turn one into an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class FaithmapWarning(UserWarning):
    """What all warnings of this library are."""


class LowConfidenceWarning(FaithmapWarning):
    """The model hardly believes in the explained class, or prefers another: maps are known to fail there."""


class BaselineWarning(FaithmapWarning):
    """The model still recognises the explained class in the baseline, so that removing pixels removes little."""


class EmptyHeatmapWarning(FaithmapWarning):
    """A heatmap holds one value everywhere, or values that are not finite: it ranks nothing."""


class CompletenessWarning(FaithmapWarning):
    """Attributions that should sum to the change of the score are far from it."""


@contextmanager
def suppressed() -> Iterator[None]:
    """Warnings of this library are not shown inside the block: whoever asks says them by itself, or they were said before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaithmapWarning)
        yield
