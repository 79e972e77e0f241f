"""Refusals: whatever goes wrong between a name and a model is said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from faithmap.text import one_line


class ModelError(ValueError):
    """A model cannot be had. The message is one line: which model or file, what is wrong with it, what to do."""


def refusal(name: str, problem: object, remedy: str) -> ModelError:
    """The error to raise; names and messages come from files and servers, so that what does not print is escaped."""
    return ModelError(one_line(f"{name}: {problem}; {remedy}"))


@contextmanager
def refusing(name: str, problem: str, remedy: str) -> Iterator[None]:
    """Turn whatever another library raises inside into a refusal that ends on its first words."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise refusal(name, f"{problem} ({_first_words(error)})", remedy) from error


def _first_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].removesuffix(".")[:160] if lines else type(error).__name__
