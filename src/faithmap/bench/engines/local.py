"""Local: in this process, or in several of this computer, one for each device."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue

import torch

from faithmap.bench.engines.base import batches
from faithmap.bench.errors import BenchError
from faithmap.bench.models import Models
from faithmap.bench.plan import Setup, Task
from faithmap.bench.worker import Finished, Worker

GRADIENTS = "torch._dynamo"
"""What torch imports, for seconds, when a hook is first put on a tensor: most methods do."""

_here: list[Worker] = []
"""The worker of a process that was started to work."""


@dataclass(frozen=True)
class Local:
    """This computer.

    Args:
        devices: a worker for each, such as ("cuda:0", "cuda:1"); the same one twice is two workers on it. A single one works in
            this process.
        threads: of torch, in each process; None leaves their number as it is.
    """

    devices: Sequence[str] = ("cpu",)
    threads: int | None = None
    shard: tuple[int, int] | None = None

    def run(self, setup: Setup, tasks: Sequence[Task], models: Models) -> Iterator[Finished]:
        """Do the tasks; in several processes, as each becomes free."""
        if len(self.devices) == 1:
            held = models if models.device == self.devices[0] else Models(self.devices[0])
            with _threads(self.threads):
                yield from Worker(setup, self.devices[0], held).run(tasks)
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


def _dealt(pool: ProcessPoolExecutor, work: Iterator[list[Task]], ahead: int) -> Iterator[Finished]:
    """A few batches at a time, so that results do not pile up."""
    running: set[Future[list[Finished]]] = set()
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
    _here.append(Worker(setup, free.get()))


def _end_with(parent: BaseProcess) -> None:
    """A worker of a run that was killed would wait for ever, and hold its device."""
    parent.join()
    os._exit(1)


def _do(batch: list[Task]) -> list[Finished]:
    return list(_here[0].run(batch))


def all_devices() -> tuple[str, ...]:
    """Every CUDA device, else the processor."""
    return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or ("cpu",)
