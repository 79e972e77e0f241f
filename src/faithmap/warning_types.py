"""Warnings with classes of their own, so that a user can turn one into an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class FaithmapWarning(UserWarning):
    """Base of all warnings of this library.

    >>> warnings.filterwarnings("error", category=FaithmapWarning)  # a doubtful map is an error from now on
    """


class LowConfidenceWarning(FaithmapWarning):
    """The explained class is improbable, or the model predicts another class: such a map can mislead.

    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", LowConfidenceWarning)  # for classes that are improbable on purpose
    """


class BaselineWarning(FaithmapWarning):
    """The model still recognises the explained class in the baseline, so that the removal of pixels changes little.

    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", BaselineWarning)  # stop, and give a stronger baseline
    """


class EmptyHeatmapWarning(FaithmapWarning):
    """A heatmap has one value everywhere, or values that are not finite: it ranks no pixel.

    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", EmptyHeatmapWarning)  # stop at the first empty map
    """


class CompletenessWarning(FaithmapWarning):
    """The attributions of a method should sum to the change of the score, and do not.

    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", CompletenessWarning)  # stop, and give the method more samples
    """


@contextmanager
def suppressed() -> Iterator[None]:
    """Warnings of this library are not shown inside the block: whoever asks says them by itself, or they were said before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaithmapWarning)
        yield
