"""Run: plan, see what is there, do the rest, and write each unit as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from faithmap.bench.engines import Engine, LocalEngine, ShardEngine, assigned
from faithmap.bench.evaluate import FinishedUnit
from faithmap.bench.load_spec import FieldLocator, field_name
from faithmap.bench.models import ModelCache
from faithmap.bench.plan import BenchPlan, Tasks, Unit
from faithmap.bench.planning import dry_run, make_plan
from faithmap.bench.run_folder import RunFolder, holding, planning

if TYPE_CHECKING:
    from faithmap.bench.spec import Spec


@dataclass
class RunProgress:
    """How far a run is.

    Attributes:
        units: of this run, in all.
        present: that were there when it began.
        done: since then.
        images: rows since then.
        failed: of these, that hold an error.
        failed_before: rows with an error among the units that were there.
        corrupt: units whose files were damaged, and are done again.
        aside: units of an older plan that were set aside.
        changed: parts of the plan that are others than the run was begun with.
        versions: of libraries that are others than the run was begun with.
        began: by a clock that only runs forward.
    """

    units: int
    present: int
    done: int = 0
    images: int = 0
    failed: int = 0
    failed_before: int = 0
    corrupt: Sequence[str] = ()
    aside: int = 0
    changed: Sequence[str] = ()
    versions: Sequence[str] = ()
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    @property
    def remaining(self) -> float | None:
        """Seconds, if units go on as they went; None before the first."""
        left = self.units - self.present - self.done
        return self.seconds / self.done * left if self.done else None


ProgressCallback: TypeAlias = Callable[[RunProgress, FinishedUnit | None], None]
"""Told at the start, with None, and of every unit when its file is complete."""


def run(
    spec: Spec,
    out: Path,
    *,
    base: Path,
    engine: Engine | None = None,
    source: tuple[str, bytes] | None = None,
    published: Any = None,
    accept_changes: bool = False,
    retry_failed: bool = False,
    verify: bool = False,
    tell: ProgressCallback | None = None,
    place: FieldLocator = field_name,
) -> RunProgress:
    """Run a benchmark, or what is left of it.

    Args:
        spec: what is asked for.
        out: the folder of the run; one that holds the same run is gone on with.
        base: where relative paths of the specification begin.
        engine: where the work is done; None for this process.
        source: the specification's file name and content, to be kept in the folder.
        published: numbers of a paper, to be laid beside the run's.
        accept_changes: go on with a run of another specification, and keep of it what fits.
        retry_failed: do units again in which images failed.
        verify: hold every file that is there against its digest, also those that have not changed since they were written.
        tell: told how far it is.
        place: where a field of the specification stands.

    Raises:
        BenchError: for what makes it impossible, or ends it; units that are there are complete.
    """
    work = engine or LocalEngine()
    shard = work.shard
    journal = "journal.jsonl" if shard is None else f"journal-{shard[0]}-of-{shard[1]}.jsonl"
    folder = RunFolder(out, journal)
    models = ModelCache(_device(work))
    plan = make_plan(spec, base, models, published, place)
    if folder.begins(plan, accept_changes=accept_changes):
        dry_run(spec, plan, models, place)
    folder.made()
    with holding(out, shard):
        with planning(out):
            changed = folder.settle(plan, accept_changes=accept_changes, spec=source)
        return execute(plan, folder, work, models=models, changed=changed, retry_failed=retry_failed, verify=verify, tell=tell)


def execute(
    plan: BenchPlan,
    folder: RunFolder,
    engine: Engine,
    *,
    models: ModelCache | None = None,
    changed: Sequence[str] = (),
    retry_failed: bool = False,
    verify: bool = False,
    tell: ProgressCallback | None = None,
) -> RunProgress:
    """Do what is planned and not present; arguments as for :func:`run`, which holds the folder."""
    mine = assigned(plan, engine.shard)
    planned = {unit.key: unit for unit in mine}
    alone = engine.shard is None
    aside = folder.tidy(planned if alone else {unit.key: unit for unit in plan.units()}, alone=alone)
    present = folder.present(planned, verify=verify)
    again = {key for key, unit in present.items() if retry_failed and unit.failed}
    todo = [unit for unit in mine if unit.key not in present or unit.key in again]
    before = sum(unit.failed for key, unit in present.items() if key not in again)
    state = RunProgress(
        *(len(mine), len(mine) - len(todo)),
        failed_before=before,
        corrupt=folder.corrupt,
        aside=aside,
        changed=changed,
        versions=folder.versions,
    )
    say = tell or _silent
    say(state, None)
    if todo:
        _do(plan, todo, folder, engine, models or ModelCache(), state, say)
    return state


def _do(
    plan: BenchPlan,
    todo: Sequence[Unit],
    folder: RunFolder,
    engine: Engine,
    models: ModelCache,
    state: RunProgress,
    say: ProgressCallback,
) -> None:
    with closing(engine.run(plan.setup, Tasks(plan, todo), models)) as units:  # type: ignore[type-var]
        for finished in units:
            folder.keep(finished.key, finished.data, finished.failed)
            state.done += 1
            state.images += finished.images
            state.failed += finished.failed
            say(state, finished)


def _device(engine: Engine) -> str | None:
    """Where an engine that works in this process does; planning loads the models there, and they are loaded once."""
    devices = engine.devices if isinstance(engine, LocalEngine) else (engine.device,) if isinstance(engine, ShardEngine) else ()
    return devices[0] if len(devices) == 1 else None


def _silent(state: RunProgress, finished: FinishedUnit | None) -> None:
    del state, finished
