"""From files to a ranking of methods: the part of ``faithmap choose`` that needs torch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.baselines import describe_baseline
from faithmap.cli.choose import ChooseOptions
from faithmap.cli.errors import UserError, blaming_memory, blaming_the_user, os_problem
from faithmap.cli.inputs import find_files, read_photo
from faithmap.cli.record import described_photo, document
from faithmap.cli.report import Bar, Done, Failed, Outcome
from faithmap.cli.results import CHOICE, Job, check, output_folder, write_record
from faithmap.cli.runner import open_model
from faithmap.data import sample_photo
from faithmap.files import complete_or_absent
from faithmap.methods.masks.masker_files import read_masker
from faithmap.metrics import PROTOCOLS
from faithmap.metrics.statistics import Interval
from faithmap.selection import SCORES, Choice, Ranked, advice, choose, explainers_for
from faithmap.viz import ranking, save_figure

CLOSING, CLOSING_SHARE = 3.0, 0.05
"""Seconds that are kept for statistics, the picture and the files, and the part of the budget that they are at the most."""


@dataclass(frozen=True)
class Entry:
    """A photograph: what the model sees of it, what stands for it where random numbers are drawn, and what the record says."""

    image: Float[Tensor, "1 3 h w"]
    key: int
    record: dict[str, Any]
    warnings: list[str]


def choose_from_files(
    paths: Sequence[Path], options: ChooseOptions, bar: Bar, spent: Callable[[], float]
) -> Generator[Outcome, None, None]:
    """Rank the methods on all files together, and write one result; files that cannot be read come first.

    Args:
        paths: as the user gave them; none stand for the photograph that comes with faithmap.
        options: likewise.
        bar: draws progress.
        spent: says how many seconds of the budget are gone.

    Raises:
        UserError: for what makes all of it impossible; before anything is computed, where that can be known so early.
    """
    files, failures = find_files(paths or [sample_photo()])
    job = Job(files[0] if files else options.out, options.out)
    check([job], overwrite=options.overwrite)
    yield from failures
    if not files:
        return
    with output_folder(options.out.parent):
        model, target = open_model(options)
        entries: dict[str, Entry] = {}
        for file in files:
            try:
                photo = read_photo(Job(file, options.out), model)
            except fm.ImageError as error:
                yield Failed(file, str(error))
                continue
            if photo.digest in entries:
                entries[photo.digest].warnings.append(f"{file} is the same photograph; it is counted once")
                continue
            described = described_photo(photo, model, options.seed)
            entries[photo.digest] = Entry(photo.image, photo.index, described, list(photo.warnings))
        if entries:
            read = list(entries.values())
            choice = _chosen(read, model, target, options, bar, spent)
            yield _written(choice, read, target, model, options, spent)


def _chosen(
    entries: Sequence[Entry],
    model: fm.Classifier,
    target: int | None,
    options: ChooseOptions,
    bar: Bar,
    spent: Callable[[], float],
) -> Choice:
    """The ranking, progress counted in methods."""
    with blaming_memory("--chunk", options.chunk), blaming_the_user():
        masker = None if options.masker is None else read_masker(options.masker, model)
        explainers = explainers_for(
            model,
            options.methods,
            resolution=options.resolution,
            chunk_size=options.chunk,
            seed=options.seed,
            masker=masker,
        )
        with bar(len(explainers)) as tell:
            return choose(
                model,
                [entry.image for entry in entries],
                target,
                explainers=explainers,
                budget=options.budget,
                spent=spent() + min(CLOSING, CLOSING_SHARE * options.budget),
                score=options.score,
                resolution=options.resolution,
                seed=options.seed,
                keys=[entry.key for entry in entries],
                chunk_size=options.chunk,
                progress=tell,
            )


def _written(
    choice: Choice,
    entries: Sequence[Entry],
    target: int | None,
    model: fm.Classifier,
    options: ChooseOptions,
    spent: Callable[[], float],
) -> Outcome:
    """One folder, complete or absent."""
    record = _described(choice, entries, target, model, options)
    try:
        with complete_or_absent(options.out, overwrite=options.overwrite) as aside:
            save_figure(ranking(choice, title=f"Methods for {model.name}"), aside / "ranking.png")
            record["budget"]["spent"] = spent()
            write_record(aside, record)
    except OSError as error:
        raise UserError(f"{options.out}: cannot be written ({os_problem(error)}); give another --out") from error
    return Done(options.out, record)


def _described(
    choice: Choice, entries: Sequence[Entry], target: int | None, model: fm.Classifier, options: ChooseOptions
) -> dict[str, Any]:
    """Everything that is needed to make the choice again, and everything that came out."""
    rules, first = PROTOCOLS["igos"], entries[0].record
    record: dict[str, Any] = {
        "schema": CHOICE,
        "versions": first["versions"],
        "photographs": [{**entry.record["file"], "seed": entry.key} for entry in entries],
        "model": first["model"],
        "seed": options.seed,
        "target": None if target is None else {"index": target, "label": model.label(target)},
        "protocol": {
            "name": rules.name,
            "unit": rules.unit,
            "resolution": (options.resolution, options.resolution),
            "steps": rules.steps,
            "baseline": describe_baseline(rules.deletion_baseline),
        },
        "score": {"name": choice.score, "higher_is_better": SCORES[choice.score]},
        "budget": {"seconds": choice.budget, "spent": choice.seconds},
        "advice": list(advice(choice)),
        "use": choice.best.name,
        "alike": [method.name for method in choice.alike],
        "ranking": [_ranked(method, choice) for method in choice.ranking],
        "comparisons": [asdict(comparison) for comparison in choice.comparisons],
        "left_out": [asdict(method) for method in choice.left_out],
        "warnings": [f"{e.record['file']['path']}: {warning}" for e in entries for warning in e.warnings],
    }
    return document(record)


def _ranked(method: Ranked, choice: Choice) -> dict[str, Any]:
    """One row of the ranking."""
    behind = method.to(choice.best)
    return {
        "name": method.name,
        "control": method.control,
        "score": method.mean,
        "interval": _ends(method.interval),
        "to_best": {
            "mean": method.mean - choice.best.mean,
            "interval": _ends(behind),
            "p": choice.p(method.name, choice.best.name),
        },
        "passes": method.passes._asdict(),
        "seconds": method.seconds,
        "scores": method.scores.tolist(),
    }


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval.low, interval.high)
