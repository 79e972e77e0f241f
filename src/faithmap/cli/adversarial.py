"""``faithmap adversarial``."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from faithmap.cli.arguments import CommonArguments, Fraction, MethodName, OptionalResolution, Out
from faithmap.cli.report import report_all
from faithmap.studies.result_folder import ProgressDisplay, StudyOutcome
from faithmap.studies.settings import AdversarialSettings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AdversarialArguments(AdversarialSettings, CommonArguments):
    """How to attack, and how to explain."""

    method: MethodName = AdversarialSettings.method
    radius: Annotated[Fraction, Parameter(metavar="PIXELS", show_default=lambda _: "16/255")] = AdversarialSettings.radius
    steps: PositiveInt = AdversarialSettings.steps
    share: Annotated[Fraction, Parameter(metavar="SHARE")] = AdversarialSettings.share
    out: Out = AdversarialSettings.out
    resolution: OptionalResolution = None


_DEFAULTS = AdversarialArguments()


def adversarial(*paths: Path, settings: AdversarialArguments = _DEFAULTS) -> int:
    """Attack an image so that the model predicts another class, and compare the maps and the share of cells insertion needs.

    Each image gets a folder with check.png (both images, their difference, both maps and insertion curves), adversarial.png,
    the adversarial image and both maps as .npy files, unrounded, and result.json; the folder appears when it is complete. An
    attack that fails is a warning.

    Exit code: 0; 2 if an input failed, after the others are done; 130 if interrupted.

    Args:
        paths: image files, and folders that are searched for images; by default a sample photograph of faithmap.
        settings: how to attack, and how to explain.
    """

    def start(display: ProgressDisplay) -> Generator[StudyOutcome, None, None]:
        from faithmap.studies.adversarial import AdversarialStudy  # noqa: PLC0415 - torch takes seconds; --help must not
        from faithmap.studies.base import run_study  # noqa: PLC0415

        return run_study(AdversarialStudy.open, paths, settings, display)

    return report_all(start, as_json=settings.json)
