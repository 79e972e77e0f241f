"""Engine: does tasks somewhere. Units come back as bytes; one process, the one that was started, writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Protocol

from faithmap.bench.models import Models
from faithmap.bench.plan import Setup, Task
from faithmap.bench.worker import Finished


class Engine(Protocol):
    """Somewhere to work."""

    @property
    def shard(self) -> tuple[int, int] | None:
        """(number, of how many) where others do the rest; None where this does all."""

    def run(self, setup: Setup, tasks: Sequence[Task], models: Models) -> Iterator[Finished]:
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
