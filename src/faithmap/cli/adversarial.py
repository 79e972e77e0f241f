"""``faithmap adversarial``: the arguments, and what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.types import PositiveInt

from faithmap.cli.explain import MethodName, as_method, as_resolution
from faithmap.cli.options import Out, Shared
from faithmap.cli.report import Bar, Outcome, report_all

_NUMBER = re.compile(r"(?P<over>\d{1,9}(\.\d{0,9})?|\.\d{1,9})(/(?P<under>\d{1,9}))?")


def as_part(_: Any, tokens: Sequence[Token]) -> float:
    """``0.03`` or ``8/255``: more than 0, and at most 1."""
    text = tokens[0].value
    number = _NUMBER.fullmatch(text)
    under = float(number["under"] or 1) if number else 0.0
    value = float(number["over"]) / under if number and under else 0.0
    if not 0 < value <= 1:
        raise ValueError(f'"{text}" is not more than 0 and at most 1; give a number such as 0.03, or 8/255')
    return value


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AdversarialOptions(Shared):
    """How to attack, and how to explain.

    Args:
        method: of both maps, by name; "faithmap methods" says what each does and costs.
        target: the class that the image is to be taken for, by name ("tiger cat") or number; without it, any other than the
            model predicts.
        radius: by how much a pixel may change at the most, where black is 0 and white is 1; 8/255 is eight levels of 8 bits.
        steps: of the attack, at the most.
        early_stop: stop as soon as the model is fooled.
        share: of the full image's probability that is to be reached by inserting cells.
        resolution: cells of the maps a side (28), or rows and columns (14x20), for igos and mask; class activation maps have
            their layer's.
        seed: of all random numbers. Both maps of an image are made with the same.
    """

    method: Annotated[MethodName, Parameter(converter=as_method, n_tokens=1)] = "igos"
    radius: Annotated[
        float, Parameter(converter=as_part, n_tokens=1, negative="", metavar="PIXELS", show_default=lambda _: "8/255")
    ] = 8 / 255
    steps: PositiveInt = 10
    early_stop: bool = True
    share: Annotated[float, Parameter(converter=as_part, n_tokens=1, negative="", metavar="SHARE")] = 0.5
    out: Out = Path("faithmap-adversarial")
    resolution: Annotated[
        int | tuple[int, int] | None, Parameter(converter=as_resolution, n_tokens=1, negative="", metavar="CELLS")
    ] = None


_DEFAULTS = AdversarialOptions()


def adversarial(*paths: Path, options: AdversarialOptions = _DEFAULTS) -> int:
    """Change an image until the model takes it for something else, and compare the maps and how much has to be inserted.

    Each image gets a folder with check.png (both images, their difference, both maps and insertion curves), adversarial.png,
    the same and both maps as .npy files, unrounded, and result.json; it appears when it is complete. An attack that fails is a
    warning.

    Exit code: 0; 2 if an input failed, after the others are done; 130 if interrupted.

    Args:
        paths: image files, and folders to search for them; without any, a photograph that comes with faithmap.
        options: how to attack, and how to explain.
    """

    def start(bar: Bar) -> Generator[Outcome, None, None]:
        from faithmap.cli.attacks import attack_files  # noqa: PLC0415 - torch takes seconds; --help must not

        return attack_files(paths, options, bar)

    return report_all(start, as_json=options.json)
