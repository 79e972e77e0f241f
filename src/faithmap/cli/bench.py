"""``faithmap bench``: the arguments, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeFloat, PositiveFloat, PositiveInt

from faithmap.cli.bench_report import report
from faithmap.cli.errors import UserError, blaming_the_user, os_problem
from faithmap.cli.report import make_console, say

if TYPE_CHECKING:
    from faithmap.bench.load_spec import LoadedSpec

_FLAG = Parameter(negative="", show_default=False)
_MANY = Parameter(negative="", metavar="NAME")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Changes:
    """What the command line changes of a specification.

    Args:
        model: instead of the models that the specification names; may be given several times.
        images: a folder, or a CSV file with a column path, instead of its data set.
        sample: so many images at the most, drawn with its seed.
        device: where to compute, such as cuda; may be given several times, for a process on each. Without it, every CUDA
            device, or the processor.
    """

    model: Annotated[tuple[str, ...], _MANY] = ()
    images: Path | None = None
    sample: PositiveInt | None = None
    device: Annotated[tuple[str, ...], _MANY] = ()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunOptions(Changes):
    """Where and how to run.

    Args:
        out: the folder of the run; without it, faithmap-bench/NAME. One that holds this run is gone on with.
        engine: local works here; shard does one part of the run, as schedulers start many; ray works on a cluster.
        shard: which part, such as 0/4; without it, as SLURM or torchrun say.
        workers: processes, or actors of ray; without it, one for each device, and two actors.
        threads: of each worker process on a processor.
        address: of a ray cluster, such as auto or ray://head:10001; without it, one is started here.
        gpus: of each actor; 0.5 lets two share one.
        cpus: of each actor.
        accept_changes: go on with a run whose specification has changed; units that no longer belong are set aside.
        retry_failed: do units again in which images failed.
        verify: hold every file that is there against its digest, whether or not it has changed.
        json_lines: print one JSON object a line on stdout, for machines, and no other progress.
    """

    out: Path | None = None
    engine: Literal["local", "shard", "ray"] = "local"
    shard: str | None = None
    workers: PositiveInt | None = None
    threads: PositiveInt | None = None
    address: str | None = None
    gpus: NonNegativeFloat = 0.0
    cpus: PositiveInt = 1
    accept_changes: Annotated[bool, _FLAG] = False
    retry_failed: Annotated[bool, _FLAG] = False
    verify: Annotated[bool, _FLAG] = False
    json_lines: Annotated[bool, _FLAG] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PlanOptions(Changes):
    """What to foretell.

    Args:
        passes_per_second: of the model, forward or backward; without it, a few passes are timed here.
        devices: that will share the work.
        json: print one JSON document instead of text.
    """

    passes_per_second: PositiveFloat | None = None
    devices: PositiveInt = 1
    json: Annotated[bool, _FLAG] = False


_RUN, _PLAN = RunOptions(), PlanOptions()


def init(file: Path = Path("benchmark.toml"), *, overwrite: Annotated[bool, _FLAG] = False) -> int:
    """Write a specification to begin with, every field explained.

    Args:
        file: what to write.
        overwrite: replace a file that exists.
    """
    from faithmap.bench.load_spec import TEMPLATE  # noqa: PLC0415

    if file.suffix.lower() != ".toml":
        raise UserError(f"{file}: the specification is TOML; give a name that ends in .toml")
    try:
        with file.open("w" if overwrite else "x", encoding="utf-8") as stream:
            stream.write(TEMPLATE)
    except FileExistsError as error:
        raise UserError(f"{file} exists; give --overwrite to replace it, or another name") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({os_problem(error)}); give another name") from error
    say(make_console(), f"{file}; see what it takes: faithmap bench plan {file}")
    return 0


def plan(specification: str, *, options: PlanOptions = _PLAN) -> int:
    """Say what a benchmark will take: units, passes of the model, hours, disk. Nothing is written.

    Args:
        specification: a .toml or .yaml file, or a ready one: igos-table1 to igos-table6, expected-gradcam.
        options: what to foretell.
    """
    with blaming_the_user():
        request = _asked(specification, options)
        from faithmap.cli.bench_plans import show_plan  # noqa: PLC0415 - torch takes seconds; --help must not

        return show_plan(request, options)


def run(specification: str, *, options: RunOptions = _RUN) -> int:
    """Run a benchmark, or what is left of it.

    Started again with the same arguments after whatever stopped it, it goes on where it was. Images that cannot be read or
    explained are rows with their error, and do not stop it.

    Exit code: 0 when every unit is there; 2 for what you can put right; 130 if interrupted.

    Args:
        specification: a .toml or .yaml file, or a ready one: igos-table1 to igos-table6, expected-gradcam.
        options: where and how to run.
    """
    with blaming_the_user():
        request = _asked(specification, options)
        from faithmap.cli.bench_runs import run_benchmark  # noqa: PLC0415 - torch takes seconds; --help must not

        return run_benchmark(request, options)


def _asked(specification: str, options: Changes) -> LoadedSpec:
    """The specification, read and checked before anything heavy is loaded."""
    from faithmap.bench.errors import check_installed  # noqa: PLC0415
    from faithmap.bench.load_spec import load_spec  # noqa: PLC0415

    check_installed()
    return load_spec(specification, models=options.model, images=options.images, sample=options.sample)


def make_bench() -> App:
    """The commands of ``faithmap bench``."""
    app = App(name="bench", help="Benchmarks over whole data sets, which go on where they were stopped.")
    app.command(init)
    app.command(plan)
    app.command(run)
    app.command(report)
    return app
