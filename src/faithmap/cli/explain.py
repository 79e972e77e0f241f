"""``faithmap explain``."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from faithmap.cli.arguments import CommonArguments, Fractions, MethodName, OptionalResolution, Out
from faithmap.cli.report import report_all
from faithmap.studies.result_folder import ProgressDisplay, StudyOutcome
from faithmap.studies.settings import ExplainSettings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ExplainArguments(ExplainSettings, CommonArguments):
    """How to explain."""

    method: MethodName = ExplainSettings.method
    out: Out = ExplainSettings.out
    resolution: OptionalResolution = None
    iterations: PositiveInt | None = None
    samples: PositiveInt | None = None
    ratios: Annotated[Fractions, Parameter(show_default=lambda given: ",".join(map(str, given)))] = ExplainSettings.ratios
    animation: Annotated[Literal["gif", "webp"] | None, Parameter(negative_none="no-")] = ExplainSettings.animation


_DEFAULTS = ExplainArguments()


def explain(*paths: Path, settings: ExplainArguments = _DEFAULTS) -> int:
    """Explain the class that a classifier predicts for images: heatmaps, and how faithful they are.

    Each image gets a folder with its pictures, the raw heatmap and result.json; the folder appears when it is complete. The
    areas under the deletion and insertion curves are printed beside those of a random map of the same resolution.

    Exit code: 0; 2 if an input failed, after the others are done; 130 if interrupted.

    Args:
        paths: image files, and folders that are searched for images; by default a sample photograph of faithmap.
        settings: how to explain.
    """

    def start(display: ProgressDisplay) -> Generator[StudyOutcome, None, None]:
        from faithmap.studies.base import run_study  # noqa: PLC0415 - torch takes seconds; --help must not
        from faithmap.studies.explain import ExplainStudy  # noqa: PLC0415

        return run_study(ExplainStudy.open, paths, settings, display)

    return report_all(start, as_json=settings.json)
