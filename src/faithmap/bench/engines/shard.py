"""Shard: a part of a run, as a scheduler starts many of, which need not know of each other.

What a process does follows from its number and how many there are, which SLURM and torchrun say in the environment; where
SLURM started torchrun, torchrun's numbers are the process's own. No process group is made: a shard that dies holds nobody up,
and is started again by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from faithmap.bench.engines.local import Local
from faithmap.bench.errors import BenchError
from faithmap.bench.models import Models
from faithmap.bench.plan import Plan, Setup, Task, Unit
from faithmap.bench.worker import Finished

_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""What torchrun gives to every process that it starts, and nothing else does."""


@dataclass(frozen=True)
class Shard:
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

    def run(self, setup: Setup, tasks: Sequence[Task], models: Models) -> Iterator[Finished]:
        """Do the tasks, in this process."""
        return Local((self.device,)).run(setup, tasks, models)


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


def assigned(plan: Plan, shard: tuple[int, int] | None) -> list[Unit]:
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
