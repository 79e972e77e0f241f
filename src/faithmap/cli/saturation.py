"""``faithmap saturation``."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from faithmap.cli.arguments import CommonArguments, MethodNames, Out
from faithmap.cli.report import report_all
from faithmap.studies.result_folder import ProgressDisplay, StudyOutcome
from faithmap.studies.settings import SaturationSettings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SaturationArguments(SaturationSettings, CommonArguments):
    """What to measure, and how."""

    methods: MethodNames = SaturationSettings.methods
    channels: PositiveInt = SaturationSettings.channels
    out: Out = SaturationSettings.out


_DEFAULTS = SaturationArguments()


def saturation(*paths: Path, settings: SaturationArguments = _DEFAULTS) -> int:
    """Measure where along the path from baseline to image the score stops changing, and the most important channels.

    Each image gets a folder with saturation.png (score, similarity of the layer's activations and gradient norm along the
    path), features.png (the most important channels of each method, and their insertion curve) and result.json.

    Exit code: 0; 2 if an input failed, after the others are done; 130 if interrupted.

    Args:
        paths: image files, and folders that are searched for images; by default a sample photograph of faithmap.
        settings: what to measure, and how.
    """

    def start(display: ProgressDisplay) -> Generator[StudyOutcome, None, None]:
        from faithmap.studies.base import run_study  # noqa: PLC0415 - torch takes seconds; --help must not
        from faithmap.studies.saturation import SaturationStudy  # noqa: PLC0415

        return run_study(SaturationStudy.open, paths, settings, display)

    return report_all(start, as_json=settings.json)
