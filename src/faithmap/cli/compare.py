"""``faithmap compare``."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from faithmap.cli.arguments import CommonArguments, MapParts, MethodEntries, Out
from faithmap.cli.report import report_all
from faithmap.studies.result_folder import ProgressDisplay, StudyOutcome
from faithmap.studies.settings import CompareSettings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CompareArguments(CompareSettings, CommonArguments):
    """Which methods to compare, and how."""

    methods: MethodEntries = CompareSettings.methods
    out: Out = CompareSettings.out
    resolution: PositiveInt = CompareSettings.resolution
    parts: MapParts = CompareSettings.parts


_DEFAULTS = CompareArguments()


def compare(*paths: Path, settings: CompareArguments = _DEFAULTS) -> int:
    """Draw several methods side by side, or one with several settings or resolutions, with deletion and insertion curves.

    Each image gets a folder with comparison.png and result.json; the folder appears when it is complete.

    Exit code: 0; 2 if an input failed, after the others are done; 130 if interrupted.

    Args:
        paths: image files, and folders that are searched for images; by default a sample photograph of faithmap.
        settings: which methods to compare, and how.
    """

    def start(display: ProgressDisplay) -> Generator[StudyOutcome, None, None]:
        from faithmap.studies.base import run_study  # noqa: PLC0415 - torch takes seconds; --help must not
        from faithmap.studies.compare import CompareStudy  # noqa: PLC0415

        return run_study(CompareStudy.open, paths, settings, display)

    return report_all(start, as_json=settings.json)
