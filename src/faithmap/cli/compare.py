"""``faithmap compare``: the arguments, and what becomes of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.types import PositiveInt

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
class CompareOptions:
    """What to compare, and how.

    Args:
        methods: by name, with commas between them; "faithmap methods" says what each does and costs.
        target: the class to explain, by name ("tiger cat") or number; without it, the class that the model predicts.
        model: by name; see "faithmap models".
        weights: a checkpoint file for the model, instead of the weights that its name stands for.
        out: the folder for the results, one folder in it for each image, named after the file.
        overwrite: replace comparisons that exist already. The old ones stay until the new ones are complete.
        resolution: cells a side at which deletion and insertion are played with every map, and of the maps that can have any.
        seed: of all random numbers.
        device: where to compute, such as cuda; without it, the CPU.
        chunk: images in one pass of the model, at the most; fewer need less memory.
        json: print one JSON document instead of text, and no progress.
    """

    methods: Annotated[tuple[str, ...], Parameter(converter=as_methods, n_tokens=1, negative="", metavar="NAMES")] = (
        "igos",
        "expected_gradcam",
        "gradcam",
    )
    target: str | None = None
    model: str = "efficientnet_lite0"
    weights: Path | None = None
    out: Path = Path("faithmap-comparison")
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False
    resolution: PositiveInt = 28
    seed: int = 0
    device: str | None = None
    chunk: PositiveInt = 32
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False


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
