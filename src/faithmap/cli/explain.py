"""``faithmap explain``: the arguments, and what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import CoercionError, Parameter, Token
from cyclopts.types import PositiveInt

from faithmap.cli.options import Shared
from faithmap.cli.report import Bar, Outcome, report_all
from faithmap.methods.registry import ALIASES, METHODS

if TYPE_CHECKING:
    MethodName: TypeAlias = str
else:
    MethodName = Literal[tuple(METHODS)]
"""A name in ``faithmap.methods.registry``, which is read without torch."""


def as_method(names: Any, tokens: Sequence[Token]) -> str:
    """``igos``, or another name that a method goes by, such as ``mwp``: the registry's own."""
    name = ALIASES.get(tokens[0].value, tokens[0].value)
    if name not in METHODS:
        raise CoercionError(token=tokens[0], target_type=names)
    return name


def as_resolution(_: Any, tokens: Sequence[Token]) -> int | tuple[int, int]:
    """``28`` is a square, ``14x20`` is 14 rows and 20 columns."""
    text = tokens[0].value
    cells = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", text)
    if cells is None:
        raise ValueError(f'"{text}" is no resolution; give cells a side, such as 28, or rows and columns, such as 14x20')
    rows, columns = cells.groups()
    return int(rows) if columns is None else (int(rows), int(columns))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options(Shared):
    """How to explain.

    Args:
        method: by name; "faithmap methods" says what each does and costs.
        out: the folder for the results, one folder in it for each image, named after the file. Files that share a name
            get a part of the SHA-256 of their path behind it.
        resolution: cells of the heatmap a side (28), or rows and columns (14x20), for methods that look for a mask; class
            activation maps have their layer's, others the image's.
        target_layer: of a class activation map, by its dotted name; several with commas between them. Without it, the last
            with a spatial output. Of excitation backprop, one name, or "input"; without it, one of the second coarsest
            resolution.
        iterations: of the methods that optimise a mask, at the most.
        samples: passes of the smooth, integrated and expected maps, and of lime and the like; masks of rise, which takes 4000
            unless told otherwise, for a ResNet 8000.
        masker: of learned_mask, a file that "faithmap train-masker" made for this model.
        baseline: what a method turns removed pixels into, or where its paths begin.
        score: what a method explains of the class; igos, mask and expected_gradcam take the probability unless told
            otherwise, the other class activation maps the logit.
        protocol: by which deletion and insertion are played.
        animation: the format of the animation of deletion and insertion.
        seed: of all random numbers. Those of an image follow from this seed and the content of its file alone: its name,
            its neighbours and their order do not matter.
    """

    method: Annotated[MethodName, Parameter(converter=as_method, n_tokens=1)] = "rank_descent"
    resolution: Annotated[
        int | tuple[int, int] | None, Parameter(converter=as_resolution, n_tokens=1, negative="", metavar="CELLS")
    ] = None
    target_layer: str | None = None
    iterations: PositiveInt | None = None
    samples: PositiveInt | None = None
    masker: Path | None = None
    baseline: Literal["blur", "strong_blur", "median_blur", "black", "grey", "white", "mean", "noise"] | None = None
    score: Literal["probability", "logit"] | None = None
    protocol: Literal["igos", "rise"] = "igos"
    animation: Annotated[Literal["gif", "webp"] | None, Parameter(negative_none="no-")] = "gif"


_DEFAULTS = Options()


def explain(*paths: Path, options: Options = _DEFAULTS) -> int:
    """Explain what a classifier sees in images: heatmaps, and how faithful they are.

    Each image gets a folder with its pictures, the raw heatmap and result.json; it appears when it is complete. Areas of
    deletion and insertion are printed beside those of a random map of the same resolution.

    Exit code: 0; 2 if an input failed, after the others are done; 130 if interrupted.

    Args:
        paths: image files, and folders to search for them; without any, a photograph that comes with faithmap.
        options: how to explain.
    """

    def start(bar: Bar) -> Generator[Outcome, None, None]:
        from faithmap.cli.pipeline import explain_files  # noqa: PLC0415 - torch takes seconds; --help must not

        return explain_files(paths, options, bar)

    return report_all(start, as_json=options.json)
