"""Choose: rank the methods for a model on images of the user, within a time budget."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from faithmap.baselines import describe_baseline
from faithmap.data import ImageError, sample_photo
from faithmap.errors import duration, memory_errors, user_errors
from faithmap.methods.masks.masker_files import read_masker
from faithmap.methods.registry import METHODS, assigned
from faithmap.metrics import PROTOCOLS
from faithmap.metrics.functional import PANELS
from faithmap.metrics.statistics import Comparison, Interval
from faithmap.model import Classifier
from faithmap.selection import SCORES, Choice, LeftOut, Ranked, advice, choose, explainers_for
from faithmap.studies.base import InputImage, find_class, find_files, load_model, read_input
from faithmap.studies.result_folder import (
    ImageJob,
    ProgressDisplay,
    StudyDone,
    StudyFailed,
    StudyOutcome,
    check_folders,
    new_result,
    output_folder,
    write_record,
)
from faithmap.studies.result_record import (
    ClassRecord,
    ImageFileRecord,
    ModelRecord,
    PassCounts,
    StudyRecord,
    dependency_versions,
)
from faithmap.studies.settings import ChooseSettings
from faithmap.viz import ranking, save_figure

CLOSING_SECONDS, CLOSING_SHARE = 3.0, 0.05
"""Time that is kept for statistics, the picture and the files: so many seconds, but at most this share of the budget."""


@dataclass
class RankedImage:
    """An image that the methods are ranked on, and the warnings about it."""

    image: InputImage
    warnings: list[str]


def run_choose(
    paths: Sequence[Path], settings: ChooseSettings, display: ProgressDisplay, elapsed: Callable[[], float]
) -> Generator[StudyOutcome, None, None]:
    """Rank the methods on all images together, and write one result; failures of files come first.

    Args:
        paths: image files and folders; none stand for the sample photograph.
        settings: of the study.
        display: displays progress, counted in methods.
        elapsed: seconds of the budget that have passed.

    Raises:
        UserError: if nothing can be ranked; before any computation where possible.
    """
    files, failures = find_files(paths or [sample_photo()])
    check_folders([settings.out], overwrite=settings.overwrite)
    yield from failures
    if not files:
        return
    with output_folder(settings.out.parent):
        model = load_model(settings)
        target = find_class(settings, model)
        images: dict[str, RankedImage] = {}
        for file in files:
            try:
                image = read_input(ImageJob(file, settings.out), model)
            except ImageError as error:
                yield StudyFailed(file, str(error))
                continue
            if image.digest in images:
                images[image.digest].warnings.append(f"{file} is the same image; it is counted once")
            else:
                images[image.digest] = RankedImage(image, list(image.warnings))
        if images:
            yield _choose_and_write(list(images.values()), model, target, settings, display, elapsed)


def _choose_and_write(
    images: Sequence[RankedImage],
    model: Classifier,
    target: int | None,
    settings: ChooseSettings,
    display: ProgressDisplay,
    elapsed: Callable[[], float],
) -> StudyOutcome:
    choice = _choose([ranked.image for ranked in images], model, target, settings, display, elapsed)
    record = ChooseRecord.of(choice, images, target, model, settings)
    with new_result(settings.out, overwrite=settings.overwrite) as partial:
        save_figure(ranking(choice, title=f"Methods for {model.name}"), partial / "ranking.png")
        record = replace(record, budget=replace(record.budget, spent=elapsed()))
        write_record(partial, record.document())
    return StudyDone(settings.out, record)


def _choose(
    images: Sequence[InputImage],
    model: Classifier,
    target: int | None,
    settings: ChooseSettings,
    display: ProgressDisplay,
    elapsed: Callable[[], float],
) -> Choice:
    with memory_errors("--chunk", settings.chunk), user_errors():
        masker = None if settings.masker is None else read_masker(settings.masker, model)
        explainers = explainers_for(
            model,
            settings.methods,
            resolution=settings.resolution,
            chunk_size=settings.chunk,
            seed=settings.seed,
            masker=masker,
            settings=assigned(settings.set, METHODS if settings.methods is None else settings.methods),
        )
        with display(len(explainers)) as progress:
            return choose(
                model,
                [image.image for image in images],
                target,
                explainers=explainers,
                budget=settings.budget,
                spent=elapsed() + min(CLOSING_SECONDS, CLOSING_SHARE * settings.budget),
                score=settings.score,
                resolution=settings.resolution,
                seed=settings.seed,
                keys=[image.index for image in images],
                chunk_size=settings.chunk,
                progress=progress,
            )


@dataclass(frozen=True)
class RankedImageRecord(ImageFileRecord):
    """An image file, and its index for random numbers."""

    seed: int


@dataclass(frozen=True)
class RankingProtocol:
    """The protocol of the score; deletion and insertion have the same baseline. Of a jury, the jurors and no baseline."""

    name: str
    unit: str
    resolution: tuple[int, int]
    steps: int | None
    baseline: Mapping[str, Any] | None
    jurors: tuple[str, ...] = ()

    @classmethod
    def of(cls, choice: Choice, resolution: int) -> RankingProtocol:
        """The protocol of a choice."""
        cells = (resolution, resolution)
        if choice.score == "jury":
            return cls("jury", "cells", cells, len(PANELS["quick"].fractions) + 1, None, choice.jurors)
        protocol = PROTOCOLS["igos"]
        return cls(protocol.name, protocol.unit, cells, protocol.steps, describe_baseline(protocol.deletion_baseline))


@dataclass(frozen=True)
class ScoreRecord:
    """The score that methods are ranked by."""

    name: str
    higher_is_better: bool


@dataclass(frozen=True)
class BudgetRecord:
    """The time budget in seconds, and how much of it has passed."""

    seconds: float
    spent: float


@dataclass(frozen=True)
class DifferenceRecord:
    """A mean difference: its 95 % interval (None with a single image), and its p value after correction."""

    mean: float
    interval: tuple[float, float] | None
    p: float


@dataclass(frozen=True)
class RankedMethod:
    """A method of the ranking; ``interval`` is that of its mean score, None with a single image."""

    name: str
    control: bool
    score: float
    interval: tuple[float, float] | None
    to_best: DifferenceRecord
    passes: PassCounts
    seconds: float
    scores: list[float]

    @classmethod
    def of(cls, method: Ranked, choice: Choice) -> RankedMethod:
        """Describe a method of a choice."""
        best = choice.best
        difference = DifferenceRecord(method.mean - best.mean, _ends(method.to(best)), choice.p(method.name, best.name))
        return cls(
            name=method.name,
            control=method.control,
            score=method.mean,
            interval=_ends(method.interval),
            to_best=difference,
            passes=PassCounts(*method.passes),
            seconds=method.seconds,
            scores=method.scores.tolist(),
        )


@dataclass(frozen=True)
class ChooseRecord(StudyRecord):
    """Everything that is needed to repeat the ranking, and everything that was measured."""

    schema: ClassVar[str] = "faithmap.choice/1"
    summary_keys: ClassVar[tuple[str, ...]] = (
        *("target", "score", "budget", "use", "alike", "advice", "ranking", "left_out", "warnings"),
    )

    versions: Mapping[str, str | None]
    photographs: tuple[RankedImageRecord, ...]
    model: ModelRecord
    seed: int
    target: ClassRecord | None
    protocol: RankingProtocol
    score: ScoreRecord
    budget: BudgetRecord
    advice: tuple[str, ...]
    use: str
    alike: tuple[str, ...]
    ranking: tuple[RankedMethod, ...]
    comparisons: tuple[Comparison, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls, choice: Choice, images: Sequence[RankedImage], target: int | None, model: Classifier, settings: ChooseSettings
    ) -> ChooseRecord:
        """Describe a choice."""
        files = [RankedImageRecord(str(i.job.file), i.digest, len(i.data), i.size, i.index) for i in (r.image for r in images)]
        return cls(
            versions=dependency_versions(),
            photographs=tuple(files),
            model=ModelRecord.of(model, images[0].image.input_size),
            seed=settings.seed,
            target=None if target is None else ClassRecord.of(target, model),
            protocol=RankingProtocol.of(choice, settings.resolution),
            score=ScoreRecord(choice.score, SCORES[choice.score]),
            budget=BudgetRecord(choice.budget, choice.seconds),
            advice=tuple(advice(choice)),
            use=choice.best.name,
            alike=tuple(method.name for method in choice.indistinguishable),
            ranking=tuple(RankedMethod.of(method, choice) for method in choice.ranking),
            comparisons=choice.comparisons,
            left_out=choice.left_out,
            warnings=tuple(f"{r.image.job.file}: {warning}" for r in images for warning in r.warnings),
        )

    @property
    def sources(self) -> dict[str, Any]:
        """The image files."""
        return {"files": [photograph.path for photograph in self.photographs]}

    def warning_lines(self) -> Iterator[str]:
        """The warnings, each with its file's name in front."""
        return iter(self.warnings)

    def summary_lines(self, folder: Path) -> Iterator[tuple[str, str]]:
        """The summary for people: the ranking, the methods that were left out, and the advice."""
        count = len(self.photographs)
        width = max(len(method.name) for method in self.ranking) + 12
        side, name = self.protocol.resolution[0], self.score.name.replace("_", " ")
        order = "higher" if self.score.higher_is_better else "lower"
        if self.protocol.jurors:
            name = f"insertion minus deletion by {', '.join(self.protocol.jurors)}"
        yield "", f"{self.model.name}, {count} image{'s' * (count > 1)}: {name} at {side} x {side} ({order} is better)"
        yield (
            "  " + "method".ljust(width),
            "  score  95 % interval   to the best  95 % interval       p  forwards  backwards  an image",
        )
        for method in self.ranking:
            yield "  " + (method.name + " (control)" * method.control).ljust(width), _row(method, self.use)
        for reason in dict.fromkeys(method.reason for method in self.left_out):
            names = ", ".join(_with_cost(method) for method in self.left_out if method.reason == reason)
            yield "  left out  ", f"{names}: {reason}"
        for i, sentence in enumerate(self.advice):
            yield "  " + ("" if i else "advice").ljust(10), sentence
        yield "  picture   ", str(folder / "ranking.png")


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval.low, interval.high)


def _with_cost(method: LeftOut) -> str:
    return method.name if method.seconds is None else f"{method.name} ({duration(method.seconds)})"


def _row(method: RankedMethod, best: str) -> str:
    """The numbers of one method; the best one has no difference to the best."""
    areas = f"{method.score:7.3f}  {_interval(method.interval)}"
    to_best = f"{method.to_best.mean:11.3f}  {_interval(method.to_best.interval)}  {method.to_best.p:6.2g}"
    if method.name == best:
        to_best = " " * len(to_best)
    return f"{areas}  {to_best}  {method.passes.forward:8}  {method.passes.backward:9}  {duration(method.seconds):>8}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "-".rjust(16) if ends is None else f"{ends[0]:6.3f} to {ends[1]:6.3f}"
