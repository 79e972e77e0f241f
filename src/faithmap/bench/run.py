"""Run a benchmark: plan, find the units that are not stored yet, evaluate them, and write each one as it is finished.

Engines evaluate tasks: in this process, in several processes of this computer, or as one shard of a run. An engine returns
finished units as bytes, in any order. Only the process that started the run writes files.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch

from faithmap.bench.evaluate import BenchWorker, FinishedUnit, ModelCache
from faithmap.bench.plan import BenchPlan, Setup, Task, Tasks, Unit
from faithmap.bench.planning import dry_run, make_plan
from faithmap.bench.run_folder import RunFolder, plan_access, write_access
from faithmap.bench.spec import FieldLocator, field_name
from faithmap.errors import BenchError

if TYPE_CHECKING:
    from faithmap.bench.spec import Spec


_TORCH_HOOKS = "torch._dynamo"
"""Imported by torch, which takes seconds, when a hook is first put on a tensor; most methods do."""

_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_STARTED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Only torchrun sets it, for every process that it starts."""

_process_worker: list[BenchWorker] = []
"""The worker of a worker process."""


class Engine(Protocol):
    """Where tasks are evaluated."""

    @property
    def shard(self) -> tuple[int, int] | None:
        """(number, count) of a shard of the run; None for the whole run."""

    def run(self, setup: Setup, tasks: Sequence[Task], models: ModelCache) -> Iterator[FinishedUnit]:
        """Evaluate each task once.

        Args:
            setup: the same for all workers.
            tasks: in the plan's order.
            models: loaded for planning; for engines that work in this process.

        Raises:
            BenchError: for everything that ends the run; units that were returned are complete.
        """


@dataclass(frozen=True)
class LocalEngine:
    """This computer.

    Args:
        devices: one worker for each, such as ("cuda:0", "cuda:1"); a device given twice gets two workers. A single worker
            runs in this process.
        threads: of torch, in each process; None keeps the number.
        shard: (number, count) of a shard of the run; None for the whole run.
    """

    devices: Sequence[str] = ("cpu",)
    threads: int | None = None
    shard: tuple[int, int] | None = None

    def run(self, setup: Setup, tasks: Sequence[Task], models: ModelCache) -> Iterator[FinishedUnit]:
        """Evaluate the tasks; with several devices, each process takes the next batch when it is free."""
        if len(self.devices) == 1:
            cache = models if models.device == self.devices[0] else ModelCache(self.devices[0])
            with _torch_threads(self.threads):
                yield from BenchWorker(setup, self.devices[0], cache).run(tasks)
            return
        context = worker_context()
        free_devices: Queue[str] = context.Queue()
        for device in self.devices:
            free_devices.put(device)
        arguments = (setup, free_devices, self.threads, list(sys.path))
        previous = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(len(self.devices), context, _start_process_worker, arguments)
        try:
            yield from _submit(pool, batches(tasks, len(self.devices)), 2 * len(self.devices))
        except (KeyboardInterrupt, GeneratorExit):  # the results of running batches are not wanted
            for child in set(multiprocessing.active_children()) - previous:
                child.terminate()
            raise
        except BrokenProcessPool as error:
            raise BenchError(
                "a worker process died, perhaps for lack of memory; earlier results are complete: start the same command "
                "again, with fewer workers or a smaller chunk_size"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class ShardEngine:
    """One shard of a run, in this process.

    A scheduler starts all shards. They do not communicate: the work of a shard follows from its number and the count. A shard
    that fails does not affect the others, and is started again alone.

    Args:
        number: from 0.
        count: of all shards.
        device: of the models.
    """

    number: int
    count: int
    device: str = "cpu"

    @property
    def shard(self) -> tuple[int, int]:
        """(number, count)."""
        return self.number, self.count

    def run(self, setup: Setup, tasks: Sequence[Task], models: ModelCache) -> Iterator[FinishedUnit]:
        """Evaluate the tasks."""
        return LocalEngine((self.device,)).run(setup, tasks, models)


def batches(tasks: Sequence[Task], workers: int) -> Iterator[list[Task]]:
    """The tasks of one model and shard, which share images, or single tasks if some workers would have none.

    >>> tasks = [Task(Unit(f"{s}{m}", 0, m, s), ()) for s in range(2) for m in range(3)]
    >>> [len(batch) for batch in batches(tasks, 1)], [len(batch) for batch in batches(tasks, 2)]
    ([3, 3], [1, 1, 1, 1, 1, 1])
    """
    enough = 2 * workers if workers > 1 else 0
    if sum(1 for _ in islice(_by_shard(tasks), enough)) < enough:
        yield from ([task] for task in tasks)
    else:
        yield from _by_shard(tasks)


def _by_shard(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    return (list(group) for _, group in groupby(tasks, key=lambda task: (task.unit.model, task.unit.shard)))


def _submit(pool: ProcessPoolExecutor, work: Iterator[list[Task]], ahead: int) -> Iterator[FinishedUnit]:
    """Submit a few batches ahead, so that results do not accumulate."""
    running: set[Future[list[FinishedUnit]]] = set()
    for batch in work:
        running.add(pool.submit(_evaluate_batch, batch))
        if len(running) >= ahead:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield from future.result()


def _evaluate_batch(batch: list[Task]) -> list[FinishedUnit]:
    return list(_process_worker[0].run(batch))


def _start_process_worker(setup: Setup, free_devices: Queue[str], threads: int | None, paths: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles the interrupt
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    sys.path[:] = paths
    if threads is not None:
        torch.set_num_threads(threads)
    _process_worker.append(BenchWorker(setup, free_devices.get()))


def _exit_with(parent: BaseProcess) -> None:
    """If the main process is killed, its workers would wait forever and keep their devices."""
    parent.join()
    os._exit(1)


def worker_context() -> BaseContext:
    """Processes without the memory of this one, as CUDA needs; where the system can fork, torch is already imported in them.

    They are forked from a process that has only imported modules, so that all workers together wait once for the imports.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, _TORCH_HOOKS])
    return context


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    previous = torch.get_num_threads()
    torch.set_num_threads(count or previous)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def all_devices() -> tuple[str, ...]:
    """All CUDA devices, or the CPU if there is none."""
    return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or ("cpu",)


def shard_of(text: str | None, environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """(number, count) from text such as ``1/3``, or from the variables of SLURM or torchrun.

    >>> shard_of("1/3"), shard_of(None, {"RANK": "2", "WORLD_SIZE": "4"})
    ((1, 3), (2, 4))

    Raises:
        BenchError: if neither gives a shard.
    """
    variables = os.environ if environment is None else environment
    for number, count, _ in _launchers(variables):
        if text is None and number in variables and count in variables:
            text = f"{variables[number]}/{variables[count]}"
    if text is None:
        raise BenchError("no shard is given; give --shard 0/4, or start it with srun or torchrun")
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise BenchError(f"{text!r} is no shard; give a number from 0 and the count of shards, such as 0/4")
    return int(match[1]), int(match[2])


def shard_device(environment: Mapping[str, str] | None = None) -> str:
    """The device of this process on its computer, chosen by its local number if there are several."""
    variables = os.environ if environment is None else environment
    count = torch.cuda.device_count()
    if count == 0:
        return "cpu"
    local = next((variables[name] for _, _, name in _launchers(variables) if name in variables), "0")
    return f"cuda:{int(local) % count}" if local.isdecimal() else "cuda:0"


def _launchers(environment: Mapping[str, str]) -> tuple[tuple[str, str, str], ...]:
    """Variables for number, count and local number; first those of the launcher that started this process."""
    return (_TORCHRUN, _SLURM) if _STARTED_BY_TORCHRUN in environment else (_SLURM, _TORCHRUN)


def assigned_units(plan: BenchPlan, shard: tuple[int, int] | None) -> list[Unit]:
    """The units of a shard of the run.

    Whole shards of images are assigned in turn, or single units if there are fewer shards of images. The units follow from the
    plan alone: a shard that is started again gets the same ones.
    """
    units = list(plan.units())
    if shard is None:
        return units
    number, count = shard
    methods = len(plan.setup.methods)
    size = methods if len(units) // methods >= count else 1
    return [unit for i, unit in enumerate(units) if i // size % count == number]


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
