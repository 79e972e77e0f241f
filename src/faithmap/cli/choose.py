"""``faithmap choose``: the arguments, and what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token
from cyclopts.types import PositiveInt

from faithmap.cli.compare import as_methods
from faithmap.cli.options import Out, Shared
from faithmap.cli.report import Bar, Outcome, report_all

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def as_budget(_: Any, tokens: Sequence[Token]) -> float:
    """``90s``, ``2m`` or ``1h`` in seconds."""
    text = tokens[0].value
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([smh])", text)
    if found is None or float(found[1]) == 0:
        raise ValueError(f'"{text}" is no time; give seconds, minutes or hours, such as 90s, 2m or 1h')
    return float(found[1]) * _SECONDS[found[2]]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ChooseOptions(Shared):
    """What to choose from, and how.

    Args:
        budget: the time for everything, such as 90s, 2m or 1h; without it, 2m. Methods that would break it are left out, and
            named with what they would take.
        methods: by name, with commas between them; without it, all. Controls take part by themselves.
        score: what the methods are ranked by: areas under the curves of deletion and insertion.
        masker: for learned_mask, a file that "faithmap train-masker" made for this model; without it, that is left out.
        out: the folder for the result.
        overwrite: replace a result that exists already. The old one stays until the new one is complete.
        resolution: cells a side at which deletion and insertion are played with every map, and of the maps that can have any.
    """

    budget: Annotated[float, Parameter(converter=as_budget, n_tokens=1, negative="", metavar="TIME", show_default=False)] = (
        120.0
    )
    methods: Annotated[tuple[str, ...] | None, Parameter(converter=as_methods, n_tokens=1, negative="", metavar="NAMES")] = None
    score: Literal["insertion_minus_deletion", "insertion", "deletion"] = "insertion_minus_deletion"
    masker: Path | None = None
    out: Out = Path("faithmap-choice")
    resolution: PositiveInt = 28


_DEFAULTS = ChooseOptions()


def choose(*paths: Path, options: ChooseOptions = _DEFAULTS) -> int:
    """Say which method to use for a model, from photographs of your own.

    All methods that fit the model and the time are run on every photograph and ranked by how faithful their maps are, controls
    that know nothing of the model among them. One folder holds ranking.png and result.json; it appears when it is complete.

    Exit code: 0; 2 if an input failed, after the others are done; 130 if interrupted.

    Args:
        paths: image files, and folders to search for them; without any, a photograph that comes with faithmap.
        options: what to choose from, and how.
    """
    began = perf_counter()

    def start(bar: Bar) -> Generator[Outcome, None, None]:
        from faithmap.cli.choices import choose_from_files  # noqa: PLC0415 - torch takes seconds; --help must not

        return choose_from_files(paths, options, bar, lambda: perf_counter() - began)

    return report_all(start, as_json=options.json)
