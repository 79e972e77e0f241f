"""Local: in this process, or in several of this computer, one for each device."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Protocol

import torch

from faithmap.bench.errors import BenchError
from faithmap.bench.evaluate import BenchWorker, FinishedUnit
from faithmap.bench.models import ModelCache
from faithmap.bench.plan import BenchPlan, Setup, Task, Unit

GRADIENTS = "torch._dynamo"
"""What torch imports, for seconds, when a hook is first put on a tensor: most methods do."""

_here: list[BenchWorker] = []
"""The worker of a process that was started to work."""


@dataclass(frozen=True)
class LocalEngine:
    """This computer.

    Args:
        devices: a worker for each, such as ("cuda:0", "cuda:1"); the same one twice is two workers on it. A single one works in
            this process.
        threads: of torch, in each process; None leaves their number as it is.
    """

    devices: Sequence[str] = ("cpu",)
    threads: int | None = None
    shard: tuple[int, int] | None = None

    def run(self, setup: Setup, tasks: Sequence[Task], models: ModelCache) -> Iterator[FinishedUnit]:
        """Do the tasks; in several processes, as each becomes free."""
        if len(self.devices) == 1:
            held = models if models.device == self.devices[0] else ModelCache(self.devices[0])
            with _threads(self.threads):
                yield from BenchWorker(setup, self.devices[0], held).run(tasks)
            return
        context = clean_processes()
        free: Queue[str] = context.Queue()
        for device in self.devices:
            free.put(device)
        arguments = (setup, free, self.threads, list(sys.path))
        before = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(len(self.devices), context, _begin, arguments)
        try:
            yield from _dealt(pool, batches(tasks, len(self.devices)), 2 * len(self.devices))
        except (KeyboardInterrupt, GeneratorExit):  # nobody waits for what is under way
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise
        except BrokenProcessPool as error:
            raise BenchError(
                "a worker died, perhaps for want of memory; what is there is complete: start the same command again, "
                "with fewer workers or a smaller chunk_size"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many of torch's, until the block ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def clean_processes() -> BaseContext:
    """Processes that begin without this one's memory, as CUDA needs; where the system can, with torch imported already.

    They are forked off a process that has done nothing but import, so that eight workers wait for it once.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, GRADIENTS])
    return context


def _dealt(pool: ProcessPoolExecutor, work: Iterator[list[Task]], ahead: int) -> Iterator[FinishedUnit]:
    """A few batches at a time, so that results do not pile up."""
    running: set[Future[list[FinishedUnit]]] = set()
    for batch in work:
        running.add(pool.submit(_do, batch))
        if len(running) >= ahead:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield from future.result()


def _begin(setup: Setup, free: Queue[str], threads: int | None, paths: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that began it decides
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    sys.path[:] = paths
    if threads is not None:
        torch.set_num_threads(threads)
    _here.append(BenchWorker(setup, free.get()))


def _end_with(parent: BaseProcess) -> None:
    """A worker of a run that was killed would wait for ever, and hold its device."""
    parent.join()
    os._exit(1)


def _do(batch: list[Task]) -> list[FinishedUnit]:
    return list(_here[0].run(batch))


def all_devices() -> tuple[str, ...]:
    """Every CUDA device, else the processor."""
    return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or ("cpu",)


class Engine(Protocol):
    """Somewhere to work."""

    @property
    def shard(self) -> tuple[int, int] | None:
        """(number, of how many) where others do the rest; None where this does all."""

    def run(self, setup: Setup, tasks: Sequence[Task], models: ModelCache) -> Iterator[FinishedUnit]:
        """Do the tasks, each once.

        Args:
            setup: what all workers are told.
            tasks: in the plan's order.
            models: that planning has loaded, for an engine that works in this process.

        Raises:
            BenchError: for what ends the run; units that were given are complete.
        """


def batches(tasks: Sequence[Task], workers: int) -> Iterator[list[Task]]:
    """Tasks that one worker does in a row: those of one model and shard, which share images, unless workers would be idle.

    >>> from faithmap.bench.plan import Unit
    >>> tasks = [Task(Unit(f"{s}{m}", 0, m, s), ()) for s in range(2) for m in range(3)]
    >>> [len(batch) for batch in batches(tasks, 1)], [len(batch) for batch in batches(tasks, 2)]
    ([3, 3], [1, 1, 1, 1, 1, 1])
    """
    enough = 2 * workers if workers > 1 else 0
    if sum(1 for _ in islice(_together(tasks), enough)) < enough:
        yield from ([task] for task in tasks)
    else:
        yield from _together(tasks)


def _together(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    return (list(group) for _, group in groupby(tasks, key=lambda task: (task.unit.model, task.unit.shard)))


_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""What torchrun gives to every process that it starts, and nothing else does."""


@dataclass(frozen=True)
class ShardEngine:
    """One of several parts of a run.

    Args:
        number: from 0.
        count: of the parts.
        device: where it works.
    """

    number: int
    count: int
    device: str = "cpu"

    @property
    def shard(self) -> tuple[int, int]:
        """Number and count."""
        return self.number, self.count

    def run(self, setup: Setup, tasks: Sequence[Task], models: ModelCache) -> Iterator[FinishedUnit]:
        """Do the tasks, in this process."""
        return LocalEngine((self.device,)).run(setup, tasks, models)


def shard_of(text: str | None, environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """(number, count) of ``1/3``, or of SLURM's or torchrun's variables.

    >>> shard_of("1/3"), shard_of(None, {"RANK": "2", "WORLD_SIZE": "4"})
    ((1, 3), (2, 4))

    Raises:
        BenchError: for what is neither.
    """
    found = os.environ if environment is None else environment
    for number, count, _ in _launchers(found):
        if text is None and number in found and count in found:
            text = f"{found[number]}/{found[count]}"
    if text is None:
        raise BenchError("no shard is given; give --shard 0/4, or start it with srun or torchrun")
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise BenchError(f"{text!r} is no shard; give a number from 0 and how many there are, such as 0/4")
    return int(match[1]), int(match[2])


def device_here(environment: Mapping[str, str] | None = None) -> str:
    """The device of this process on its computer: by its local number, where it sees several."""
    found = os.environ if environment is None else environment
    count = torch.cuda.device_count()
    if count == 0:
        return "cpu"
    local = next((found[name] for _, _, name in _launchers(found) if name in found), "0")
    return f"cuda:{int(local) % count}" if local.isdecimal() else "cuda:0"


def _launchers(environment: Mapping[str, str]) -> tuple[tuple[str, str, str], ...]:
    """Number, count and local number as each launcher says them, the one that started this process first."""
    return (_TORCHRUN, _SLURM) if _BY_TORCHRUN in environment else (_SLURM, _TORCHRUN)


def assigned(plan: BenchPlan, shard: tuple[int, int] | None) -> list[Unit]:
    """The units of a part: whole shards of images, or single units where there are fewer shards than parts.

    It follows from the plan alone, so that a part that is started again has the same units.
    """
    units = list(plan.units())
    if shard is None:
        return units
    number, count = shard
    methods = len(plan.setup.methods)
    size = methods if len(units) // methods >= count else 1
    return [unit for i, unit in enumerate(units) if i // size % count == number]
