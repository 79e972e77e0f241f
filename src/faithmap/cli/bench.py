"""``faithmap bench``: the commands init, plan, run and report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeInt

from faithmap.cli.arguments import Flag
from faithmap.cli.bench_arguments import BenchPlanArguments, BenchRunArguments, SpecificationArguments
from faithmap.cli.report import make_console, print_line
from faithmap.errors import UserError, quantity, user_errors, write_errors

if TYPE_CHECKING:
    from faithmap.bench.spec import LoadedSpec

_RUN_DEFAULTS, _PLAN_DEFAULTS = BenchRunArguments(), BenchPlanArguments()


def init(file: Path = Path("benchmark.toml"), *, overwrite: Flag = False) -> int:
    """Write a template of a specification, with every field explained.

    Args:
        file: file to write.
        overwrite: replace an existing file.
    """
    from faithmap.errors import check_installed  # noqa: PLC0415

    with user_errors():
        check_installed()
    from faithmap.bench.spec import template  # noqa: PLC0415

    if file.suffix.lower() != ".toml":
        raise UserError(f"{file}: the specification is TOML; give a name that ends in .toml")
    try:
        with write_errors(file, "give another name"), file.open("w" if overwrite else "x", encoding="utf-8") as stream:
            stream.write(template())
    except UserError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise UserError(f"{file} exists; give --overwrite to replace it, or another name") from error
        raise
    print_line(make_console(), f"{file}; estimate its cost with: faithmap bench plan {file}")
    return 0


def plan(specification: str, *, arguments: BenchPlanArguments = _PLAN_DEFAULTS) -> int:
    """Estimate the cost of a benchmark: units, passes of the model, hours, disk space. Nothing is written.

    Args:
        specification: a .toml or .yaml file, or the name of a built-in one: igos-table1 to igos-table6, expected-gradcam.
        arguments: what to estimate.
    """
    with user_errors():
        request = _load(specification, arguments)
        from faithmap.cli.bench_plan import show_plan  # noqa: PLC0415 - torch takes seconds; --help must not

        return show_plan(request, arguments)


def run(specification: str, *, arguments: BenchRunArguments = _RUN_DEFAULTS) -> int:
    """Run a benchmark, or the part of it that is missing.

    If the benchmark was interrupted, the same command resumes it. Images that cannot be read or explained become rows with
    their error; the benchmark continues.

    Exit code: 0 when every unit is complete; 2: user error; 130 if interrupted.

    Args:
        specification: a .toml or .yaml file, or the name of a built-in one: igos-table1 to igos-table6, expected-gradcam.
        arguments: where and how to run.
    """
    with user_errors():
        request = _load(specification, arguments)
        from faithmap.cli.bench_run import run_benchmark  # noqa: PLC0415 - torch takes seconds; --help must not

        return run_benchmark(request, arguments)


def report(
    run: Path,
    *,
    out: Path | None = None,
    spread: Literal["interval", "error"] = "interval",
    examples: Annotated[NonNegativeInt, Parameter(name=("--examples", "--shown"))] = 2,
    data: Path | None = None,
) -> int:
    """Write the report of a benchmark: an HTML page that works offline, a Markdown file, and the tables as CSV.

    The report of an unfinished run covers the finished units. An older report is replaced.

    Exit code: 0; 2 if the folder is not a run, or damaged, and then nothing is written.

    Args:
        run: folder of the run.
        out: folder of the report; by default ``report`` in the folder of the run.
        spread: what is printed below a mean: its 95 % interval, or its standard error.
        examples: number of images of each kind: those with the best scores, the worst scores, and the largest differences.
        data: folder of the images, if it has moved since the run.
    """
    try:
        from faithmap.bench.report import write_report  # noqa: PLC0415 - torch and pyarrow take seconds; --help must not
    except ModuleNotFoundError as error:
        raise UserError(f"a report needs {error.name}, which is not installed; pip install 'faithmap[bench]'") from error
    with user_errors():
        written = write_report(run, out, spread=spread, examples=examples, data=data)
    console = make_console()
    counts = {"method": written.methods, "image": written.images, "failure": written.failures}
    print_line(console, ", ".join(quantity(count, what) for what, count in counts.items()))
    print_line(console, str(written.folder / "report.html"), "report  ", "bold")
    return 0


def _load(specification: str, arguments: SpecificationArguments) -> LoadedSpec:
    """The specification, read and checked before anything heavy is imported."""
    from faithmap.errors import check_installed  # noqa: PLC0415

    check_installed()
    from faithmap.bench.spec import load_spec  # noqa: PLC0415

    return load_spec(specification, models=arguments.model, images=arguments.images, sample=arguments.sample)


bench = App(name="bench", help="Benchmarks over whole data sets. An interrupted benchmark can be resumed.")
for command in (init, plan, run, report):
    bench.command(command)
