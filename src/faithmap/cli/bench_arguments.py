"""The arguments of ``faithmap bench``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import NonNegativeFloat, PositiveFloat, PositiveInt

from faithmap.cli.arguments import Flag

_MANY = Parameter(negative="", metavar="NAME")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SpecificationArguments:
    """What the command line changes in a specification.

    Args:
        model: replaces the models of the specification; may be given several times.
        images: a folder, or a CSV file with a column path; replaces the data set of the specification.
        sample: maximum number of images, drawn with the specification's seed.
        device: where to compute, such as cuda; may be given several times, for one process on each. By default every CUDA
            device, or the CPU.
    """

    model: Annotated[tuple[str, ...], _MANY] = ()
    images: Path | None = None
    sample: PositiveInt | None = None
    device: Annotated[tuple[str, ...], _MANY] = ()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BenchRunArguments(SpecificationArguments):
    """Where and how to run.

    Args:
        out: folder of the run; by default faithmap-bench/NAME. An existing run is resumed.
        engine: local runs on this machine; shard runs one part of the benchmark, for job arrays of a scheduler; ray runs on a
            cluster.
        shard: which part, such as 0/4; by default the part that SLURM or torchrun assigns.
        workers: number of processes, or of ray actors; by default one per device, and two actors.
        threads: number of threads of each worker process on a CPU.
        address: address of a ray cluster, such as auto or ray://head:10001; by default a new one is started here.
        gpus: GPUs per actor; with 0.5 two actors share one.
        cpus: CPUs per actor.
        accept_changes: resume a run whose specification has changed; units that no longer belong to it are set aside.
        retry_failed: repeat units in which images failed.
        verify: verify the checksum of every result file, even if the file has not changed.
        json_lines: print one JSON object per line on stdout, for programs, and no other progress.
    """

    out: Path | None = None
    engine: Literal["local", "shard", "ray"] = "local"
    shard: str | None = None
    workers: PositiveInt | None = None
    threads: PositiveInt | None = None
    address: str | None = None
    gpus: NonNegativeFloat = 0.0
    cpus: PositiveInt = 1
    accept_changes: Flag = False
    retry_failed: Flag = False
    verify: Flag = False
    json_lines: Flag = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BenchPlanArguments(SpecificationArguments):
    """What to estimate.

    Args:
        passes_per_second: speed of the model, forward or backward; by default a few passes are timed here.
        devices: number of devices that will share the work.
        json: print one JSON document instead of text.
    """

    passes_per_second: PositiveFloat | None = None
    devices: PositiveInt = 1
    json: Flag = False
