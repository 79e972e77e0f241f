"""The report of a run: an HTML page, a Markdown file, and the tables as CSV.

.. code-block:: python

    write_report(Path("runs/mine"))      # runs/mine/report/report.html, report.md, scores.csv, ...

Data flow: ``run_record`` (the plan), ``results`` (the rows), ``analysis`` (statistics), ``tables``, ``charts`` and
``example_images`` (parts of the page), ``page`` (HTML), ``markdown`` and ``csvs``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from faithmap.bench.report.analysis import analyse
from faithmap.bench.report.csvs import csv_files
from faithmap.bench.report.example_images import MAX_CHARACTERS, make_examples
from faithmap.bench.report.markdown import as_markdown
from faithmap.bench.report.page import as_html, make_page
from faithmap.bench.report.results import read_results
from faithmap.bench.report.run_record import open_run
from faithmap.errors import RunError, write_errors
from faithmap.files import complete_or_absent
from faithmap.warning_types import renamed_parameters

__all__ = ["WrittenReport", "write_report"]

HTML_FILE, MARKDOWN_FILE = "report.html", "report.md"


@dataclass(frozen=True)
class WrittenReport:
    """Folder of a report, and what it covers.

    Attributes:
        folder: folder of the report.
        images: number of images in the report.
        methods: number of methods.
        failures: number of rows with an error, which are not part of the means.
        bytes: size of the HTML page.

    >>> WrittenReport(Path("run/report"), images=20, methods=3, failures=0, bytes=80_000).images
    20
    """

    folder: Path
    images: int
    methods: int
    failures: int
    bytes: int


@renamed_parameters(shown="examples")
def write_report(
    run: Path,
    out: Path | None = None,
    *,
    spread: Literal["interval", "error"] = "interval",
    examples: int = 2,
    data: Path | None = None,
) -> WrittenReport:
    """Write the report of a run. The report of an unfinished run covers the finished units.

    Args:
        run: folder of the run.
        out: folder of the report; None for ``report`` in the run's. An older report is replaced.
        spread: what is below a mean: its 95 % interval, or its standard error.
        examples: images of each kind: with the best scores, the worst scores, and the largest differences between methods.
        data: folder of the images; None for the folder in the record of the run.

    Raises:
        RunError: a ValueError; if the folder is no run, is damaged or has an unknown schema, or the report cannot be written.

    >>> write_report(Path("no-run"))
    Traceback (most recent call last):
        ...
    faithmap.errors.RunError: no-run is no run: it has no run.json; give a folder that `faithmap bench run` wrote
    """
    if examples < 0:
        raise ValueError(f"examples is {examples}; give 0 or more images")
    opened = open_run(run)
    analysis = analyse(opened, read_results(opened))
    if not analysis.sections:
        raise RunError(f"{run}: no row belongs to a model and a method of the plan; give the run that these results are of")
    limit = MAX_CHARACTERS // len(analysis.sections)
    pictures = [make_examples(analysis, section, examples, data, limit) for section in analysis.sections]
    page = make_page(analysis, pictures, spread)
    html = as_html(page)
    folder = run / "report" if out is None else out
    _write_folder(folder, {HTML_FILE: html, MARKDOWN_FILE: as_markdown(page), **csv_files(analysis)})
    methods = len({entry.name for section in analysis.sections for entry in section.entries})
    return WrittenReport(folder, analysis.images, methods, analysis.results.failed.total(), len(html.encode()))


def _write_folder(folder: Path, texts: Mapping[str, str | Iterable[str]]) -> None:
    """Write all files, a text or its lines, or none; an older report is replaced when the new one is complete."""
    if os.path.lexists(folder) and not _is_report(folder):
        raise RunError(f"{folder} holds other files than a report, and is not replaced; move it, or give another --out")
    with write_errors(folder, error_type=RunError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with complete_or_absent(folder, overwrite=True) as partial:
            for name, text in texts.items():
                _write(partial / name, text)


def _write(path: Path, text: str | Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines([text] if isinstance(text, str) else text)


def _is_report(folder: Path) -> bool:
    """Whether a folder is empty, or holds a page and only files of a report."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    own = (HTML_FILE, MARKDOWN_FILE)
    return not names or (HTML_FILE in names and all(name in own or name.endswith(".csv") for name in names))
