"""Evaluate tasks by a pool of Ray Data actors, on this computer or on a cluster; each actor loads the models once.

The batches of tasks are the blocks of a Ray data set. A free actor maps the next block to the files of its units, which are
returned one by one. A process of Ray holds the data set: a client connected by ``ray://`` cannot, and Ray Data's output and
settings stay there.

Ray is imported only when this engine runs. It is started without usage reports and without a dashboard.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from faithmap.bench.dataset import DatasetItem
from faithmap.bench.evaluate import BenchWorker, FinishedUnit, ModelCache
from faithmap.bench.plan import Setup, Task, Unit
from faithmap.bench.run import batches
from faithmap.errors import BenchError, not_installed, one_line

RESTARTS = 3
"""Restarts of an actor that dies, and retries of its batch; a unit that is evaluated twice gives the same result twice."""

CONNECT_SECONDS = 10.0
"""Seconds that a cluster has to answer at its address."""


@dataclass(frozen=True)
class RayEngine:
    """A pool of Ray Data actors.

    Args:
        address: of a cluster, such as ``auto`` or ``ray://head:10001``; None starts one on this computer.
        actors: number of actors.
        gpus: per actor; 0 for none, a fraction to share one.
        cpus: per actor; also torch's threads if there is no GPU.
        shard: (number, count) of a shard of the run; None for the whole run.
    """

    address: str | None = None
    actors: int = 2
    gpus: float = 0
    cpus: int = 1
    shard: tuple[int, int] | None = None

    def run(self, setup: Setup, tasks: Sequence[Task], models: ModelCache) -> Iterator[FinishedUnit]:
        """Evaluate the tasks.

        Raises:
            BenchError: if Ray is not installed, the cluster does not answer, or actors die repeatedly.
        """
        del models
        ray = _ray()
        started_here = not ray.is_initialized()
        if started_here:
            self._connect(ray)
        try:
            yield from self._results(ray, setup, [encode_tasks(batch) for batch in batches(tasks, self.actors)])
        except ray.exceptions.RayActorError as error:
            raise BenchError("actors die repeatedly, perhaps for lack of memory; earlier results are complete") from error
        finally:
            if started_here:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        check_address(self.address)
        resources: dict[str, Any] = {"num_cpus": self.actors * self.cpus} if self.address is None else {}
        if self.address is None and self.gpus:
            resources["num_gpus"] = self.actors * self.gpus
        address = self.address or "local"
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR", **resources)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BenchError(f"no Ray cluster at {self.address or 'this computer'} ({_connection_problem(error)})") from error

    def _results(self, ray: Any, setup: Setup, work: list[str]) -> Iterator[FinishedUnit]:
        arguments = {"setup": setup, "threads": self.cpus, "paths": list(sys.path), "gpu": self.gpus > 0}
        resources = {"num_cpus": self.cpus, "num_gpus": self.gpus or None}
        results = ray.remote(num_cpus=0)(RayResults).remote(work, min(self.actors, len(work)), resources, arguments)
        try:
            while (row := ray.get(results.next.remote())) is not None:
                if "error" in row:
                    raise BenchError(row["error"])
                yield FinishedUnit(**row)
        finally:
            ray.kill(results)


def check_address(address: str | None) -> None:
    """Raise BenchError if nothing answers at an address with a port; Ray itself would try for minutes."""
    try:
        place = urlsplit(address if address and "://" in address else f"//{address or ''}")
        if place.hostname is None or place.port is None:  # "auto", or this computer
            return
        socket.create_connection((place.hostname, place.port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise BenchError(
            f"no Ray cluster at {address} ({error}); give the --address of a running one, such as ray://head:10001"
        ) from error


class RayResults:
    """Holds the Ray data set in a process of Ray, and returns its results one by one.

    Args:
        work: one encoded batch per block.
        actors: that map the blocks.
        resources: that Ray reserves per actor.
        arguments: of each actor's constructor.
    """

    def __init__(self, work: Sequence[str], actors: int, resources: dict[str, Any], arguments: dict[str, Any]) -> None:
        data = _ray().data
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = -1  # a unit may take hours
        context.target_max_block_size = 1  # returns each unit when it is finished, not with its batch
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        blocks = data.from_items([{"tasks": batch} for batch in work], override_num_blocks=len(work))
        mapped = blocks.map_batches(
            RayActor,
            batch_size=1,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
            fn_constructor_kwargs=arguments,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
            **resources,
        )
        tables = mapped.iter_batches(batch_size=None, batch_format="pyarrow")
        self.rows = (row for table in tables for row in table.to_pylist())

    def next(self) -> dict[str, Any] | None:
        """The next row; None after the last."""
        return next(self.rows, None)


class RayActor:
    """A worker in a process of Ray. It is set up with the first batch, so that an error becomes a row."""

    def __init__(self, setup: Setup, threads: int, paths: list[str], *, gpu: bool) -> None:
        self.setup, self.threads, self.paths, self.gpu = setup, threads, paths, gpu
        self.worker: BenchWorker | None = None

    def __call__(self, batch: Any) -> Iterator[Any]:
        """A table of one row per unit; a last row with the error if one ended the run."""
        from pyarrow import Table  # noqa: PLC0415 - an extra

        try:
            self.worker = self.worker or self._make_worker()
            for finished in self.worker.run(decode_tasks(batch["tasks"][0].as_py())):
                yield Table.from_pylist([asdict(finished)])
        except BenchError as error:
            yield Table.from_pylist([{"error": str(error)}])
        except Exception as error:  # noqa: BLE001 - every error has to reach the user's process
            yield Table.from_pylist([{"error": one_line(f"a worker failed ({error or type(error).__name__})")}])

    def _make_worker(self) -> BenchWorker:
        import torch  # noqa: PLC0415 - in the actor's own process

        sys.path[:] = [*dict.fromkeys([*self.paths, *sys.path])]
        if not self.gpu:
            torch.set_num_threads(self.threads)
        elif not torch.cuda.is_available():
            raise BenchError("an actor got a GPU that torch cannot use; give --gpus 0, or install a torch for that GPU")
        return BenchWorker(self.setup, "cuda:0" if self.gpu else "cpu")


def encode_tasks(batch: Sequence[Task]) -> str:
    """Tasks as a table cell.

    >>> decode_tasks(encode_tasks([Task(Unit("igos-28-00000", 0, 1, 0), [DatasetItem(3, "a.png", 10)])]))[0].items[0].path
    'a.png'
    """
    return json.dumps(batch)


def decode_tasks(text: str) -> list[Task]:
    """The tasks of :func:`encode_tasks`."""
    return [Task(Unit(*unit), [DatasetItem(*item) for item in items]) for unit, items in json.loads(text)]


def _connection_problem(error: Exception) -> str:
    """Ray's message, and what to do if it is about a token."""
    message, cause = one_line(str(error)), error.__cause__ or error.__context__
    if "token" not in f"{message}{cause}".lower():
        return message
    return f"{message}; the cluster needs a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray.data  # noqa: PLC0415 - an extra, and loaded by nothing else
    except ModuleNotFoundError as error:
        raise not_installed("ray", "ray") from error
    return ray
