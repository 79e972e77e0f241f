"""``faithmap bench report``: the arguments, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from faithmap.cli.errors import UserError, blaming_the_user
from faithmap.cli.report import make_console, say
from faithmap.text import counted


def report(
    run: Path,
    *,
    out: Path | None = None,
    spread: Literal["interval", "error"] = "interval",
    shown: Annotated[NonNegativeInt, Parameter(name=("--shown",))] = 2,
    data: Path | None = None,
) -> int:
    """Write the report of a benchmark: one HTML page that opens offline, a Markdown file, and the tables as CSV.

    A run that is still going on is reported on as far as it is. An older report is replaced.

    Exit code: 0; 2 if the folder is no run, or damaged, and then nothing is written.

    Args:
        run: the run's folder.
        out: the report's folder; without it, ``report`` in the run's.
        spread: what stands below a mean: its 95 % interval, or its standard error.
        shown: images of each kind: on which the methods do best, worst, and differ most.
        data: the folder of the images, where it has moved since the run.
    """
    try:
        from faithmap.bench.report import write_report  # noqa: PLC0415 - torch and pyarrow take seconds; --help must not
    except ModuleNotFoundError as error:
        raise UserError(f"a report needs {error.name}, which is not installed; pip install 'faithmap[bench]'") from error
    with blaming_the_user():
        written = write_report(run, out, spread=spread, shown=shown, data=data)
    console = make_console()
    counts = {"method": written.methods, "image": written.images, "failure": written.failures}
    say(console, ", ".join(counted(count, what) for what, count in counts.items()))
    say(console, str(written.folder / "report.html"), "report  ", "bold")
    return 0
