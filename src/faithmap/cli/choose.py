"""``faithmap choose``."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from faithmap.cli.arguments import CommonArguments, MethodNames, Out, parse_time
from faithmap.cli.report import report_all
from faithmap.studies.result_folder import ProgressDisplay, StudyOutcome
from faithmap.studies.settings import ChooseSettings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ChooseArguments(ChooseSettings, CommonArguments):
    """Which methods to rank, and how."""

    budget: Annotated[float, Parameter(converter=parse_time, n_tokens=1, negative="", metavar="TIME", show_default=False)] = (
        ChooseSettings.budget
    )
    methods: MethodNames | None = None
    out: Out = ChooseSettings.out
    resolution: PositiveInt = ChooseSettings.resolution


_DEFAULTS = ChooseArguments()


def choose(*paths: Path, settings: ChooseArguments = _DEFAULTS) -> int:
    """Recommend a method for a model, measured on your own images.

    All methods that fit the model and the time are run on every image and ranked by the faithfulness of their maps. Controls,
    which do not depend on the model, are ranked with them. One folder holds ranking.png and result.json; it appears when it is
    complete.

    Exit code: 0; 2 if an input failed, after the others are done; 130 if interrupted.

    Args:
        paths: image files, and folders that are searched for images; by default a sample photograph of faithmap.
        settings: which methods to rank, and how.
    """
    began = perf_counter()

    def start(display: ProgressDisplay) -> Generator[StudyOutcome, None, None]:
        from faithmap.studies.choose import run_choose  # noqa: PLC0415 - torch takes seconds; --help must not

        return run_choose(paths, settings, display, lambda: perf_counter() - began)

    return report_all(start, as_json=settings.json)
