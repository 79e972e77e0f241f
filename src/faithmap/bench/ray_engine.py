"""Cluster: Ray Data's pool of actors, on this computer or a cluster by its address; each actor loads the models once.

The tasks' batches are a data set, a block each; an actor that is free maps the next one to the units' files, which come back
one by one. The data set itself is held by a process of Ray's: Ray Data's words and settings stay there, and a client that came
by ``ray://``, which cannot hold one, is served like any other.

Ray is imported when a cluster is asked for, and not before. It reports nothing to its makers and opens no dashboard.
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
from faithmap.bench.engines import batches
from faithmap.bench.errors import BenchError, needs
from faithmap.bench.evaluate import BenchWorker, FinishedUnit
from faithmap.bench.models import ModelCache
from faithmap.bench.plan import Setup, Task, Unit
from faithmap.text import one_line

RESTARTS = 3
"""Of an actor that dies, with what it was doing; a unit that is done twice is the same twice."""


PATIENCE = 10.0
"""Seconds for a cluster to answer its address."""


@dataclass(frozen=True)
class RayEngine:
    """Actors of Ray Data.

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

    def run(self, setup: Setup, tasks: Sequence[Task], models: ModelCache) -> Iterator[FinishedUnit]:
        """Have the actors map the batches.

        Raises:
            BenchError: where Ray is missing or cannot be reached, or actors die again and again.
        """
        del models
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            self._join(ray)
        try:
            yield from self._mapped(ray, setup, [packed(batch) for batch in batches(tasks, self.actors)])
        except ray.exceptions.RayActorError as error:
            raise BenchError("actors die again and again, perhaps for want of memory; what is there is complete") from error
        finally:
            if ours:
                ray.shutdown()

    def _join(self, ray: Any) -> None:
        knocked(self.address)
        alone: dict[str, Any] = {"num_cpus": self.actors * self.cpus} if self.address is None else {}
        if self.address is None and self.gpus:
            alone["num_gpus"] = self.actors * self.gpus
        try:
            ray.init(
                address=self.address or "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", **alone
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BenchError(f"no Ray cluster at {self.address or 'this computer'} ({_told(error)})") from error

    def _mapped(self, ray: Any, setup: Setup, work: list[str]) -> Iterator[FinishedUnit]:
        given = {"setup": setup, "threads": self.cpus, "paths": list(sys.path), "gpu": self.gpus > 0}
        asked = {"num_cpus": self.cpus, "num_gpus": self.gpus or None}
        stream = ray.remote(num_cpus=0)(RayResults).remote(work, min(self.actors, len(work)), asked, given)
        try:
            while (row := ray.get(stream.next.remote())) is not None:
                if "error" in row:
                    raise BenchError(row["error"])
                yield FinishedUnit(**row)
        finally:
            ray.kill(stream)


def knocked(address: str | None) -> None:
    """See that something answers at an address with a port; Ray itself tries for minutes, and says so on every try.

    Raises:
        BenchError: where nothing does.
    """
    try:
        place = urlsplit(address if address and "://" in address else f"//{address or ''}")
        if place.hostname is None or place.port is None:  # "auto", or one of this computer
            return
        socket.create_connection((place.hostname, place.port), PATIENCE).close()
    except (OSError, ValueError) as error:
        raise BenchError(
            f"no Ray cluster at {address} ({error}); give the --address of one that runs, such as ray://head:10001"
        ) from error


class RayResults:
    """The data set, in a process of Ray's, and the results as they come.

    Args:
        work: a packed batch for each block.
        actors: how many map them.
        asked: what Ray reserves for each.
        given: what each is made with.
    """

    def __init__(self, work: Sequence[str], actors: int, asked: dict[str, Any], given: dict[str, Any]) -> None:
        data = _ray().data
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = -1  # a unit may take hours
        context.target_max_block_size = 1  # a unit is handed on when it is done, not when its batch is
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        blocks = data.from_items([{"tasks": batch} for batch in work], override_num_blocks=len(work))
        mapped = blocks.map_batches(
            RayActor,
            batch_size=1,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
            fn_constructor_kwargs=given,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
            **asked,
        )
        tables = mapped.iter_batches(batch_size=None, batch_format="pyarrow")
        self.rows = (row for table in tables for row in table.to_pylist())

    def next(self) -> dict[str, Any] | None:
        """The next row; None after the last."""
        return next(self.rows, None)


class RayActor:
    """A worker in a process of Ray's; makes itself ready with the first batch, so that what goes wrong is told as a row."""

    def __init__(self, setup: Setup, threads: int, paths: list[str], *, gpu: bool) -> None:
        self.setup, self.threads, self.paths, self.gpu = setup, threads, paths, gpu
        self.worker: BenchWorker | None = None

    def __call__(self, batch: Any) -> Iterator[Any]:
        """A table of one row for each unit; of one that has the error, where something ended the run."""
        from pyarrow import Table  # noqa: PLC0415 - an extra

        try:
            self.worker = self.worker or self._ready()
            for finished in self.worker.run(unpacked(batch["tasks"][0].as_py())):
                yield Table.from_pylist([asdict(finished)])
        except BenchError as error:
            yield Table.from_pylist([{"error": str(error)}])
        except Exception as error:  # noqa: BLE001 - whatever it was, the run's owner has to hear of it
            yield Table.from_pylist([{"error": one_line(f"a worker failed ({error or type(error).__name__})")}])

    def _ready(self) -> BenchWorker:
        import torch  # noqa: PLC0415 - in the actor's own process

        sys.path[:] = [*dict.fromkeys([*self.paths, *sys.path])]
        if not self.gpu:
            torch.set_num_threads(self.threads)
        elif not torch.cuda.is_available():
            raise BenchError("an actor was given a GPU that torch cannot use; give --gpus 0, or a torch for that GPU")
        return BenchWorker(self.setup, "cuda:0" if self.gpu else "cpu")


def packed(batch: Sequence[Task]) -> str:
    """Tasks as a cell of a table.

    >>> unpacked(packed([Task(Unit("igos-28-00000", 0, 1, 0), [DatasetItem(3, "a.png", 10)])]))[0].items[0].path
    'a.png'
    """
    return json.dumps(batch)


def unpacked(text: str) -> list[Task]:
    """The same again."""
    return [Task(Unit(*unit), [DatasetItem(*item) for item in items]) for unit, items in json.loads(text)]


def _told(error: Exception) -> str:
    """What was said, and what to do where it was about a token."""
    said, cause = one_line(str(error)), error.__cause__ or error.__context__
    if "token" not in f"{said}{cause}".lower():
        return said
    return f"{said}; it asks for a token: set RAY_AUTH_MODE=token here, too, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray.data  # noqa: PLC0415 - an extra, and loaded by nothing else
    except ModuleNotFoundError as error:
        raise needs("ray", "ray") from error
    return ray
