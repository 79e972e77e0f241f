"""What ends a benchmark, in one line that says what to do."""

from __future__ import annotations

from importlib.util import find_spec

from faithmap.text import one_line


class BenchError(ValueError):
    """A specification, a run folder or the machine is to blame. The message is one line."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class NoRoomError(BenchError):
    """A result could not be written; those that are there are complete."""


def check_installed() -> None:
    """Raise BenchError where a library that every benchmark needs is missing."""
    for module in ("pydantic", "pyarrow"):
        if find_spec(module) is None:
            raise needs(module)


def needs(module: str, extra: str = "bench") -> BenchError:
    """The error for a library that is not installed."""
    return BenchError(f"{module} is not installed, which benchmarks need; pip install 'faithmap[{extra}]'")
