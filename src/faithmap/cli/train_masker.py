"""``faithmap train-masker``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter
from cyclopts.types import PositiveFloat, PositiveInt

from faithmap.cli.arguments import Flag
from faithmap.cli.report import StudyReport, make_console, print_line
from faithmap.studies.settings import TrainMaskerSettings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainMaskerArguments(TrainMaskerSettings):
    """How to train a masker."""

    steps: PositiveInt = TrainMaskerSettings.steps
    batch: PositiveInt = TrainMaskerSettings.batch
    learning_rate: PositiveFloat = TrainMaskerSettings.learning_rate
    area: PositiveFloat = TrainMaskerSettings.area
    channels: PositiveInt = TrainMaskerSettings.channels
    every: PositiveInt = TrainMaskerSettings.every
    resume: Flag = False
    overwrite: Flag = False


_DEFAULTS = TrainMaskerArguments()


def train_masker(*paths: Path, settings: TrainMaskerArguments = _DEFAULTS) -> int:
    """Train a small network that predicts masks for a classifier. "faithmap explain --method learned_mask" then needs one pass.

    The classifier is left unchanged. The images need no labels: each is explained for the class that the classifier predicts.
    If the training is interrupted, --resume continues it where the file was last written.

    Exit code: 0; 2: user error; 130 if interrupted.

    Args:
        paths: image files, and folders that are searched for images.
        settings: how to train a masker.
    """
    from faithmap.studies.train_masker import run_train_masker  # noqa: PLC0415 - torch takes seconds; --help must not

    result = run_train_masker(paths, settings, StudyReport(as_json=False).show_progress)
    for heading, line in result.summary_lines():
        print_line(make_console(), line, heading, "bold")
    return 0
