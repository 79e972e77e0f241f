"""Cluster: Ray's actors, on this computer or a cluster by its address; each loads the models once.

Ray is imported when a cluster is asked for, and not before. It reports nothing to its makers and opens no dashboard.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from faithmap.bench.engines.base import batches
from faithmap.bench.errors import BenchError, needs
from faithmap.bench.models import Models
from faithmap.bench.plan import Setup, Task
from faithmap.bench.worker import Finished, Worker

RESTARTS = 3
"""Of an actor that dies, with what it was doing; a unit that is done twice is the same twice."""


@dataclass(frozen=True)
class Cluster:
    """Actors of Ray.

    Args:
        address: of a cluster, such as ``auto`` or ``ray://head:10001``; None starts one on this computer.
        actors: how many work.
        gpus: of each, 0 for none; parts of one share it.
        cpus: of each, also torch's threads where there is no GPU.
    """

    address: str | None = None
    actors: int = 2
    gpus: float = 0
    cpus: int = 1
    shard: tuple[int, int] | None = None

    def run(self, setup: Setup, tasks: Sequence[Task], models: Models) -> Iterator[Finished]:
        """Deal batches to whichever actor is free.

        Raises:
            BenchError: where Ray is missing or cannot be reached, or actors die again and again.
        """
        del models
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            self._join(ray)
        try:
            yield from self._dealt(ray, setup, batches(tasks, self.actors))
        except ray.exceptions.RayActorError as error:
            raise BenchError("actors die again and again, perhaps for want of memory; what is there is complete") from error
        except ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise BenchError(cause if isinstance(cause, BenchError) else f"a worker failed ({cause or error})") from error
        finally:
            if ours:
                ray.shutdown()

    def _join(self, ray: Any) -> None:
        alone: dict[str, Any] = {"num_cpus": self.actors * self.cpus} if self.address is None else {}
        if self.address is None and self.gpus:
            alone["num_gpus"] = self.actors * self.gpus
        try:
            ray.init(
                address=self.address or "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", **alone
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BenchError(f"no Ray cluster at {self.address or 'this computer'} ({error})") from error

    def _dealt(self, ray: Any, setup: Setup, work: Sequence[list[Task]]) -> Iterator[Finished]:
        actor = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=RESTARTS, max_task_retries=RESTARTS)(Actor)
        free = [actor.remote(setup, self.cpus, list(sys.path), gpu=self.gpus > 0) for _ in range(min(self.actors, len(work)))]
        running: dict[Any, Any] = {}
        left = iter(work)
        for batch in left:
            worker = free.pop(0)
            running[worker.do.remote(batch)] = worker
            if not free:
                yield from _first(ray, running, free)
        while running:
            yield from _first(ray, running, free)


class Actor:
    """A worker in a process of Ray's."""

    def __init__(self, setup: Setup, threads: int, paths: list[str], *, gpu: bool) -> None:
        import torch  # noqa: PLC0415 - in the actor's own process

        sys.path[:] = [*dict.fromkeys([*paths, *sys.path])]
        if not gpu:
            torch.set_num_threads(threads)
        elif not torch.cuda.is_available():
            raise BenchError("an actor was given a GPU that torch cannot use; give --gpus 0, or a torch for that GPU")
        self.worker = Worker(setup, "cuda:0" if gpu else "cpu")

    def do(self, batch: list[Task]) -> list[Finished]:
        """One batch."""
        return list(self.worker.run(batch))


def _first(ray: Any, running: dict[Any, Any], free: list[Any]) -> Iterator[Finished]:
    """The results of the batch that is done first; its actor is free."""
    (done, *_), _ = ray.wait(list(running), num_returns=1)
    free.append(running.pop(done))
    finished: list[Finished] = ray.get(done)
    yield from finished


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415 - an extra, and loaded by nothing else
    except ModuleNotFoundError as error:
        raise needs("ray", "ray") from error
    return ray
