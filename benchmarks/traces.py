"""Which files of the library a run goes through: how many, and how often the next call is in another file.

    python benchmarks/traces.py

Two paths are traced, with the embedded model and the bundled photograph: ``faithmap explain PHOTO --method gradcam``, and one
unit of a benchmark (Grad-CAM, deletion and insertion). Each runs once untraced before, so that imports do not count.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import faithmap
from faithmap import cli

SOURCE = str(Path(faithmap.__file__).parent)
SPECIFICATION = """
name = "traced"

[[models]]
name = "efficientnet_lite0"

[data]
kind = "folder"
path = "{photos}"

[[methods]]
name = "gradcam"

[[metrics]]
name = "deletion_insertion"
"""


class Trace:
    """Files of the library in the order of their calls, over all threads."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.changes = 0
        self._last = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """One event of :func:`sys.setprofile`."""
        del argument
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(SOURCE):
            return
        self.files[name] = self.files.get(name, 0) + 1
        self.changes += name != self._last
        self._last = name


@contextlib.contextmanager
def traced(trace: Trace) -> Iterator[None]:
    """Follow every call inside the block, in threads, too."""
    sys.setprofile(trace)
    threading.setprofile(trace)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def command(*arguments: str) -> None:
    """One call of the command line, its output dropped."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        cli.main(arguments)


def explain(folder: Path) -> None:
    """Grad-CAM of one photograph."""
    command("explain", str(folder / "photos"), "--method", "gradcam", "--out", str(folder / "results"))


def unit(folder: Path) -> None:
    """A benchmark of one unit."""
    (folder / "traced.toml").write_text(SPECIFICATION.format(photos=folder / "photos"))
    command("bench", "run", str(folder / "traced.toml"), "--out", str(folder / "run"))


def main() -> None:
    """Print both."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", action="store_true", help="list the files with their calls")
    listed = arguments.parse_args().files
    paths: dict[str, Callable[[Path], None]] = {"faithmap explain PHOTO --method gradcam": explain, "one benchmark unit": unit}
    print("| path | files | changes of file |\n| --- | --- | --- |")
    for name, run in paths.items():
        trace = Trace()
        for following in (contextlib.nullcontext(), traced(trace)):
            with tempfile.TemporaryDirectory() as folder:
                photos = Path(folder) / "photos"
                photos.mkdir()
                shutil.copy(faithmap.sample_photo(), photos)
                with following:
                    run(Path(folder))
        print(f"| {name} | {len(trace.files)} | {trace.changes} |")
        if listed:
            for file, calls in trace.files.items():
                print(f"    {Path(file).relative_to(SOURCE)}: {calls}", file=sys.stderr)


if __name__ == "__main__":
    main()
