"""Outcomes of a study, one per image, and its progress. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from faithmap.explanation import Explanation
    from faithmap.studies.result_record import StudyRecord


class StudyProgress(Protocol):
    """Progress callback."""

    def __call__(self, done: float, activity: str, unfinished: Explanation | None = None, /) -> None:
        """Report progress.

        Args:
            done: number of finished images, fractions included.
            activity: what is computed now.
            unfinished: the map so far, where the method offers one.
        """


ProgressDisplay: TypeAlias = Callable[[int], AbstractContextManager[StudyProgress]]
"""Opens a display of progress over that many images; the display is removed when the context ends."""


@dataclass(frozen=True)
class StudyDone:
    """A complete result folder, and the record in it."""

    folder: Path
    record: StudyRecord


@dataclass(frozen=True)
class StudyFailed:
    """An image without a result, and the reason on one line, which begins with the file's name."""

    file: Path
    message: str


StudyOutcome: TypeAlias = StudyDone | StudyFailed


def progress_part(progress: StudyProgress, start: float, share: float = 1.0) -> StudyProgress:
    """Progress of a part of the work: its 0 is ``start`` of the whole, its 1 is ``start + share``."""

    def report(done: float, activity: str, unfinished: Explanation | None = None) -> None:
        progress(start + share * done, activity, unfinished)

    return report
