"""The report of a run: one HTML page, a Markdown file, and the tables as CSV.

.. code-block:: python

    write_report(Path("runs/mine"))      # runs/mine/report/report.html, report.md, scores.csv, ...

Read in this order: ``folder`` (what was planned), ``rows`` (what was measured), ``analysis`` (what that says), ``page`` (what
is shown), ``render``, ``prose`` and ``csvs`` (how it is written).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from faithmap.bench.report.analysis import analyse
from faithmap.bench.report.csvs import csv_files
from faithmap.bench.report.example_images import BUDGET, album
from faithmap.bench.report.markdown import as_markdown
from faithmap.bench.report.output import PAGE, PROSE, write_folder
from faithmap.bench.report.page import as_html, make_page
from faithmap.bench.report.results import read_rows
from faithmap.bench.report.run_record import RunError, open_run

__all__ = ["Written", "write_report"]


@dataclass(frozen=True)
class WrittenReport:
    """Where a report is, and what it is of."""

    folder: Path
    images: int
    methods: int
    failures: int
    bytes: int


def write_report(
    run: Path,
    out: Path | None = None,
    *,
    spread: Literal["interval", "error"] = "interval",
    shown: int = 2,
    data: Path | None = None,
) -> WrittenReport:
    """Write the report of a run, whether it is complete or still going on.

    Args:
        run: the run's folder.
        out: the report's folder; None for ``report`` in the run's. An older report is replaced.
        spread: what stands below a mean: its 95 % interval, or its standard error.
        shown: images of each kind: the best, the worst, and those on which the methods differ most.
        data: the folder of the images, where it is no longer the one that the plan names.

    Raises:
        RunError: a ValueError; where the run is none, is damaged or of an unknown schema, or the report cannot be written.
    """
    if shown < 0:
        raise ValueError(f"shown is {shown}; give 0 or more images")
    opened = open_run(run)
    found = analyse(opened, read_rows(opened))
    if not found.sections:
        raise RunError(f"{run}: no row is of a model and a method of the plan; give the run that these results are of")
    each = BUDGET // len(found.sections)
    albums = [album(found, section, shown, data, each) for section in found.sections]
    page = make_page(found, albums, spread)
    html = as_html(page)
    folder = run / "report" if out is None else out
    write_folder(folder, {PAGE: html, PROSE: as_markdown(page), **csv_files(found)})
    methods = len({entry.name for section in found.sections for entry in section.entries})
    return WrittenReport(folder, found.images, methods, found.table.failed.total(), len(html.encode()))
