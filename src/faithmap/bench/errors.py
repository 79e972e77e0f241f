"""What ends a benchmark, in one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from faithmap.text import one_line


class BenchError(ValueError):
    """A specification, a run folder or the machine is to blame. The message is one line."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class SettingError(BenchError):
    """A setting is to blame.

    Attributes:
        setting: its name; None where it is not known which.
    """

    def __init__(self, message: object, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class NoRoomError(BenchError):
    """A result could not be written; those that are there are complete."""


@contextmanager
def reachable(path: Path) -> Iterator[None]:
    """Turn what the system refuses in a run's folder into a BenchError that names the file.

    Args:
        path: that is named where the system names none.
    """
    try:
        yield
    except OSError as error:
        name, problem = error.filename or path, error.strerror or error
        raise BenchError(
            f"{name}: cannot be read or written ({problem}); what is there stays: put that right, or give another --out"
        ) from error


def blamed(message: str, settings: Mapping[str, object]) -> str | None:
    """The setting that a complaint names first, else the one whose value it repeats; None where it does neither.

    >>> blamed("path_points is 0; give at least 1", {"points": 0, "path_points": 0})
    'path_points'
    >>> blamed("give at least 1 mask", {"masks": 0}), blamed("maps of 400 rows are too fine", {"resolution": 400})
    ('masks', 'resolution')
    """
    words = [word.rstrip("s") for word in re.findall(r"\w+", message)]
    named = [name for name in settings if name.rstrip("s") in words]
    repeated = [name for name, value in settings.items() if str(value).rstrip("s") in words]
    return min(named, key=lambda name: words.index(name.rstrip("s")), default=next(iter(repeated), None))


def check_installed() -> None:
    """Raise BenchError where a library that every benchmark needs is missing."""
    for module in ("pydantic", "pyarrow"):
        if find_spec(module) is None:
            raise needs(module)


def needs(module: str, extra: str = "bench") -> BenchError:
    """The error for a library that is not installed."""
    return BenchError(f"{module} is not installed, which benchmarks need; pip install 'faithmap[{extra}]'")
