"""Errors that end a benchmark; each message is one line with a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from faithmap.errors import one_line, os_reason


class BenchError(ValueError):
    """The specification, the run folder or the machine prevents the benchmark. The message is one line."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class BenchSettingError(BenchError):
    """A setting of a method or metric is invalid.

    Attributes:
        setting: name of the setting; None if unknown.
    """

    def __init__(self, message: object, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class NoRoomError(BenchError):
    """A result could not be written; all earlier results are complete."""


class RunError(BenchError):
    """A run folder that cannot be reported on."""


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a BenchError.

    Args:
        path: named in the message if the OSError names no file.
    """
    try:
        yield
    except OSError as error:
        name, reason = error.filename or path, os_reason(error)
        raise BenchError(
            f"{name}: cannot be read or written ({reason}); no result is lost: fix the cause, or give another --out"
        ) from error


def setting_in(message: str, settings: Mapping[str, object]) -> str | None:
    """The setting that a message names first, else the one whose value it repeats, else None.

    >>> setting_in("path_points is 0; give at least 1", {"points": 0, "path_points": 0})
    'path_points'
    >>> setting_in("give at least 1 mask", {"masks": 0}), setting_in("maps of 400 rows are too fine", {"resolution": 400})
    ('masks', 'resolution')
    """
    words = [word.rstrip("s") for word in re.findall(r"\w+", message)]
    named = [name for name in settings if name.rstrip("s") in words]
    repeated = [name for name, value in settings.items() if str(value).rstrip("s") in words]
    return min(named, key=lambda name: words.index(name.rstrip("s")), default=next(iter(repeated), None))


def check_installed() -> None:
    """Raise BenchError if a library that every benchmark needs is not installed."""
    for module in ("pydantic", "pyarrow"):
        if find_spec(module) is None:
            raise not_installed(module)


def not_installed(module: str, extra: str = "bench") -> BenchError:
    """The error for a library that is not installed."""
    return BenchError(f"{module} is not installed, which benchmarks need; pip install 'faithmap[{extra}]'")
