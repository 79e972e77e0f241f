"""Run a benchmark: plan, find the units that are not stored yet, evaluate them, and write each one as it is finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from faithmap.bench.engines import Engine, LocalEngine, ShardEngine, assigned_units
from faithmap.bench.evaluate import FinishedUnit
from faithmap.bench.load_spec import FieldLocator, field_name
from faithmap.bench.models import ModelCache
from faithmap.bench.plan import BenchPlan, Tasks, Unit
from faithmap.bench.planning import dry_run, make_plan
from faithmap.bench.run_folder import RunFolder, plan_access, write_access

if TYPE_CHECKING:
    from faithmap.bench.spec import Spec


@dataclass
class RunProgress:
    """Progress of a run.

    Attributes:
        units: of this run in total.
        present: stored when it started.
        done: finished since then.
        images: rows since then.
        failed: rows with an error since then.
        failed_before: rows with an error in units that were stored when it started.
        corrupt: units whose files were damaged and are evaluated again.
        aside: units of an older plan that were moved to ``set-aside``.
        changed: parts of the plan that differ from those the run was started with.
        versions: older versions of libraries that have changed since the run was started.
        began: start, by the monotonic clock.
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
        """Since the start."""
        return time.monotonic() - self.began

    @property
    def remaining(self) -> float | None:
        """Estimated seconds; None before the first unit."""
        left = self.units - self.present - self.done
        return self.seconds / self.done * left if self.done else None


ProgressCallback: TypeAlias = Callable[[RunProgress, FinishedUnit | None], None]
"""Called at the start with None, and with each unit after its file is written."""


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
    on_progress: ProgressCallback | None = None,
    locate: FieldLocator = field_name,
) -> RunProgress:
    """Run a benchmark. An existing run is resumed.

    Args:
        spec: the specification.
        out: folder of the run.
        base: folder of the specification's relative paths.
        engine: where units are evaluated; None for this process.
        source: file name and content of the specification, copied to the folder.
        published: numbers of a paper, shown beside the run's.
        accept_changes: resume a run with another specification, and keep the results that still fit.
        retry_failed: evaluate units again in which images failed.
        verify: verify the checksum of every result file, also of files that have not changed since they were written.
        on_progress: progress callback.
        locate: describes where a field of the specification is.

    Raises:
        BenchError: for everything that prevents or ends the run; stored units are complete.
    """
    work = engine or LocalEngine()
    shard = work.shard
    folder = RunFolder(out, "journal.jsonl" if shard is None else f"journal-{shard[0]}-of-{shard[1]}.jsonl")
    models = ModelCache(_device(work))
    plan = make_plan(spec, base, models, published, locate)
    if folder.is_new(plan, accept_changes=accept_changes):
        dry_run(spec, plan, models, locate)
    folder.create()
    with write_access(out, shard):
        with plan_access(out):
            changed = folder.record_plan(plan, accept_changes=accept_changes, spec=source)
        return execute(
            plan,
            folder,
            work,
            models=models,
            changed=changed,
            retry_failed=retry_failed,
            verify=verify,
            on_progress=on_progress,
        )


def execute(
    plan: BenchPlan,
    folder: RunFolder,
    engine: Engine,
    *,
    models: ModelCache | None = None,
    changed: Sequence[str] = (),
    retry_failed: bool = False,
    verify: bool = False,
    on_progress: ProgressCallback | None = None,
) -> RunProgress:
    """Evaluate the units that are planned and not stored; arguments as for :func:`run`, which locks the folder."""
    own = assigned_units(plan, engine.shard)
    planned = {unit.key: unit for unit in own}
    alone = engine.shard is None
    aside = folder.clean(planned if alone else {unit.key: unit for unit in plan.units()}, alone=alone)
    stored = folder.stored(planned, verify=verify)
    again = {key for key, unit in stored.items() if retry_failed and unit.failed}
    todo = [unit for unit in own if unit.key not in stored or unit.key in again]
    progress = RunProgress(
        units=len(own),
        present=len(own) - len(todo),
        failed_before=sum(unit.failed for key, unit in stored.items() if key not in again),
        corrupt=folder.corrupt,
        aside=aside,
        changed=changed,
        versions=folder.versions,
    )
    report = on_progress or _no_progress
    report(progress, None)
    if todo:
        _evaluate(plan, todo, folder, engine, models or ModelCache(), progress, report)
    return progress


def _evaluate(
    plan: BenchPlan,
    todo: Sequence[Unit],
    folder: RunFolder,
    engine: Engine,
    models: ModelCache,
    progress: RunProgress,
    report: ProgressCallback,
) -> None:
    with closing(engine.run(plan.setup, Tasks(plan, todo), models)) as units:  # type: ignore[type-var]
        for finished in units:
            folder.store(finished.key, finished.data, finished.failed)
            progress.done += 1
            progress.images += finished.images
            progress.failed += finished.failed
            report(progress, finished)


def _device(engine: Engine) -> str | None:
    """The device of an engine that works in this process, so that planning and evaluation share the loaded models."""
    devices = engine.devices if isinstance(engine, LocalEngine) else (engine.device,) if isinstance(engine, ShardEngine) else ()
    return devices[0] if len(devices) == 1 else None


def _no_progress(progress: RunProgress, finished: FinishedUnit | None) -> None:
    del progress, finished
