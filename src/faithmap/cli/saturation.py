"""``faithmap saturation``: the arguments, and what becomes of them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from faithmap.cli.compare import as_methods
from faithmap.cli.options import Out, Shared
from faithmap.cli.report import Bar, Outcome, report_all


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SaturationOptions(Shared):
    """What to measure, and how.

    Args:
        methods: class activation maps whose most important channels are compared, by name, with commas between them.
        target_layer: by its dotted name; without it, the last with a spatial output.
        baseline: where the path to the image begins.
        channels: of each method, the most important ones.
        target: the class, by name ("tiger cat") or number; without it, the class that the model predicts.
    """

    methods: Annotated[tuple[str, ...], Parameter(converter=as_methods, n_tokens=1, negative="", metavar="NAMES")] = (
        "gradcam",
        "integrated_gradcam",
        "expected_gradcam",
    )
    target_layer: str | None = None
    baseline: Literal["blur", "strong_blur", "median_blur", "black", "grey", "white", "mean", "noise"] = "blur"
    channels: PositiveInt = 4
    out: Out = Path("faithmap-saturation")


_DEFAULTS = SaturationOptions()


def saturation(*paths: Path, options: SaturationOptions = _DEFAULTS) -> int:
    """Measure how much of the path from a baseline to an image no longer moves the score, and what methods see of it.

    Each image gets a folder with saturation.png (score, similarity of the layer's activations and gradient norm along the
    path), features.png (what each method's most important channels show, with its insertion) and result.json.

    Exit code: 0; 2 if an input failed, after the others are done; 130 if interrupted.

    Args:
        paths: image files, and folders to search for them; without any, a photograph that comes with faithmap.
        options: what to measure, and how.
    """

    def start(bar: Bar) -> Generator[Outcome, None, None]:
        from faithmap.cli.walks import walk_files  # noqa: PLC0415 - torch takes seconds; --help must not

        return walk_files(paths, options, bar)

    return report_all(start, as_json=options.json)
