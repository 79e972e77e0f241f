"""``faithmap train-masker``: the arguments, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveFloat, PositiveInt

from faithmap.cli.report import Report, make_console, say


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MaskerOptions:
    """How to train.

    Args:
        out: the file for the masker, safetensors. It is complete whenever it is there.
        steps: of the training in all, those of a training that goes on among them.
        batch: images in a step.
        learning_rate: of Adam.
        area: weight of a mask's area, a penalty; the larger, the smaller the masks.
        channels: of the network's finest level, a multiple of 4.
        every: steps after which the masker so far is written to the file.
        resume: go on with the training in the file, up to --steps, with the same photographs and settings.
        overwrite: replace the masker in the file.
        model: by name; see "faithmap models".
        weights: a checkpoint file for the model, instead of the weights that its name stands for.
        seed: of all random numbers.
        device: where to compute, such as cuda; without it, the CPU.
    """

    out: Path = Path("masker.safetensors")
    steps: PositiveInt = 2000
    batch: PositiveInt = 8
    learning_rate: PositiveFloat = 1e-3
    area: PositiveFloat = 3.0
    channels: PositiveInt = 16
    every: PositiveInt = 100
    resume: Annotated[bool, Parameter(negative="", show_default=False)] = False
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False
    model: str = "efficientnet_lite0"
    weights: Path | None = None
    seed: int = 0
    device: str | None = None


_DEFAULTS = MaskerOptions()


def train_masker(*paths: Path, options: MaskerOptions = _DEFAULTS) -> int:
    """Train a small network that masks for a classifier: "faithmap explain --method learned_mask" then takes one pass of it.

    The classifier stays as it is. The photographs need no labels: each is explained for the class that the classifier sees in
    it. Stopped at any time, the training goes on with --resume where the file was last written.

    Exit code: 0; 2 for what you can put right; 130 if interrupted.

    Args:
        paths: the photographs, image files and folders to search for them.
        options: how to train.
    """
    from faithmap.cli.training import train  # noqa: PLC0415 - torch takes seconds; --help must not

    report = Report(as_json=False)
    for head, line in train(paths, options, report.bar):
        say(make_console(), line, head, "bold")
    return 0
