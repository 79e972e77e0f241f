"""Warnings with classes of their own, so that a user can turn one into an error; old names that still work with a warning."""

from __future__ import annotations

import functools
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from faithmap.locks import locked


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


class OutputsWarning(FaithmapWarning):
    """The model seems to return something else than logits: probabilities, or other numbers in each pass.

    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", OutputsWarning)  # or say it: Classifier(module, outputs="probabilities")
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


class TargetLayerWarning(FaithmapWarning):
    """The target layer was chosen or read with doubt: two layers are equally near to the score, or changes hardly show at it.

    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", TargetLayerWarning)  # stop, and name the target_layer
    """


_NOT_THE_USERS = frozenset({"faithmap", "torch", "contextlib", "functools"})
"""The packages whose lines a warning does not name: the library, and decorators around its functions."""

_NOWHERE: deque[str] = deque(maxlen=0)
_recorded: ContextVar[list[str] | deque[str] | None] = ContextVar("recorded", default=None)
_noted: ContextVar[list[str] | None] = ContextVar("noted", default=None)


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line of the user's own code that called the library; in a block of :func:`recorded`, record the message.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("the map is empty", EmptyHeatmapWarning)
    >>> caught[0].category.__name__
    'EmptyHeatmapWarning'
    """
    noted, messages = _noted.get(), _recorded.get()
    if noted is not None:
        noted.append(message)
    if messages is not None:
        messages.append(message)
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _NOT_THE_USERS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def suppressed() -> Iterator[None]:
    """Suppress this library's warnings (:func:`warn`) in the block, in this thread only; the caller reports them."""
    token = _recorded.set(_NOWHERE)
    try:
        yield
    finally:
        _recorded.reset(token)


def is_suppressed() -> bool:
    """Whether this is inside the block of :func:`suppressed`: passes that only serve the text of a warning are then left out.

    >>> with suppressed():
    ...     is_suppressed()
    True
    """
    return _recorded.get() is _NOWHERE


@contextmanager
def python_filters() -> Iterator[None]:
    """Restore Python's filters of warnings after the block, in which they may be changed for other libraries.

    All threads share the filters, so one thread at a time is in such a block.
    """
    with locked(["Python's filters of warnings"]), warnings.catch_warnings():
        yield


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Record this library's warnings in a list instead of showing them, in the block and in this thread only.

    Not by a filter of Python's, which all threads share: two threads that end such blocks in another order than they began
    them would leave the filter behind.

    >>> with recorded() as messages:
    ...     warn("the map is empty", EmptyHeatmapWarning)
    >>> messages
    ['the map is empty']
    """
    messages: list[str] = []
    token = _recorded.set(messages)
    try:
        yield messages
    finally:
        _recorded.reset(token)


@contextmanager
def noted() -> Iterator[list[str]]:
    """Record this library's warnings of the block, in this thread, in a list; they are shown or suppressed all the same.

    >>> with suppressed(), noted() as messages:
    ...     warn("the map is empty", EmptyHeatmapWarning)
    >>> messages
    ['the map is empty']
    """
    messages: list[str] = []
    token = _noted.set(messages)
    try:
        yield messages
    finally:
        _noted.reset(token)


P = ParamSpec("P")
R = TypeVar("R")


def renamed_parameters(**new_names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Accept the old names of a function's keyword parameters.

    >>> @renamed_parameters(colour="color")
    ... def paint(color): return color
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     print(paint(colour="red"), caught[0].message)
    red paint(colour=...) is deprecated; use color=...

    Args:
        new_names: old name to new name.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in new_names.items():
                if old in kwargs:
                    words = f"{function.__name__}({old}=...) is deprecated; use {new}=..."
                    warnings.warn(words, DeprecationWarning, stacklevel=2)
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate
