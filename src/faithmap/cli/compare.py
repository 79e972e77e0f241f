"""``faithmap compare``: the arguments, and what becomes of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.types import PositiveInt

from faithmap.cli.options import Out, Shared
from faithmap.cli.report import Bar, Outcome, report_all
from faithmap.methods.registry import ALIASES, METHODS


def as_methods(_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """``igos,gradcam``: names with commas between them, each method once."""
    given = (name.strip() for name in tokens[0].value.split(","))
    names = tuple(dict.fromkeys(ALIASES.get(name, name) for name in given))
    for name in names:
        if name not in METHODS:
            raise ValueError(f'"{name}" is no method; give some of {", ".join(METHODS)}')
    return names


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CompareOptions(Shared):
    """What to compare, and how.

    Args:
        methods: by name, with commas between them; "faithmap methods" says what each does and costs.
        overwrite: replace comparisons that exist already. The old ones stay until the new ones are complete.
        resolution: cells a side at which deletion and insertion are played with every map, and of the maps that can have any.
    """

    methods: Annotated[tuple[str, ...], Parameter(converter=as_methods, n_tokens=1, negative="", metavar="NAMES")] = (
        "rank_descent",
        "igos",
        "expected_gradcam",
        "gradcam",
    )
    out: Out = Path("faithmap-comparison")
    resolution: PositiveInt = 28


_DEFAULTS = CompareOptions()


def compare(*paths: Path, options: CompareOptions = _DEFAULTS) -> int:
    """Draw several methods side by side, with their deletion and insertion at one resolution.

    Each image gets a folder with comparison.png and result.json; it appears when it is complete.

    Exit code: 0; 2 if an input failed, after the others are done; 130 if interrupted.

    Args:
        paths: image files, and folders to search for them; without any, a photograph that comes with faithmap.
        options: what to compare, and how.
    """

    def start(bar: Bar) -> Generator[Outcome, None, None]:
        from faithmap.cli.comparison import compare_files  # noqa: PLC0415 - torch takes seconds; --help must not

        return compare_files(paths, options, bar)

    return report_all(start, as_json=options.json)
