"""What the runner costs beside the work: python benchmarks/bench_overhead.py PHOTOGRAPHS [--images 100] [--device cuda].

One run tells it: its wall clock, from the first unit to the last, against the seconds of that same run that were spent in the
method, in the metrics and in the pass that finds each image's class. What is left is reading photographs, packing and writing
units. A single image is explained before, for what a process does once; ``--warm 0`` leaves that out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.compute as pc
import torch

from faithmap.bench.engines import LocalEngine
from faithmap.bench.evaluate import ImageGroup
from faithmap.bench.load_spec import parse_spec
from faithmap.bench.models import ModelCache
from faithmap.bench.planning import make_plan
from faithmap.bench.run import execute
from faithmap.bench.run_folder import RunFolder
from faithmap.bench.store import read_rows

CASES = {
    "gradcam": ("gradcam", "", "[]"),
    "gradcam, deletion and insertion": ("gradcam", "", '["deletion_insertion"]'),
    "igos": ("igos", "resolution = {cells}", "[]"),
    "igos, deletion and insertion": ("igos", "resolution = {cells}", '["deletion_insertion"]'),
}


def spec_of(photos: Path, model: str, method: str, more: str, metrics: str, images: int, shard: int) -> str:
    """One method."""
    head = f'models = ["{model}"]\nmetrics = {metrics}\nshard_size = {shard}\n'
    return f'{head}[data]\npath = "{photos}"\nsample = {images}\n[[methods]]\nname = "{method}"\n{more}\n'


def overhead(text: str, device: str) -> tuple[int, float, float]:
    """Images, seconds of the run, seconds of method and metrics."""
    models = ModelCache(device)
    plan = make_plan(parse_spec(text, "overhead"), Path.cwd(), models)
    with tempfile.TemporaryDirectory() as home:
        folder = RunFolder(Path(home))
        folder.create()
        passes, began = [0.0], time.perf_counter()
        with patch.object(ImageGroup, "of", timed(ImageGroup.of, passes)):
            execute(plan, folder, LocalEngine((device,)), models=models)
        whole = time.perf_counter() - began
        rows = read_rows(Path(home), ["seconds", "metric_seconds"])
    work = passes[0] + sum(pc.sum(rows[name]).as_py() or 0.0 for name in ("seconds", "metric_seconds"))
    return len(rows), whole, work


def timed(function: Callable[..., ImageGroup], spent: list[float]) -> Callable[..., ImageGroup]:
    """The same, whose seconds are added up."""

    def measured(*given: Any) -> ImageGroup:
        began = time.perf_counter()
        made = function(*given)
        spent[0] += time.perf_counter() - began
        return made

    return measured


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--resolution", type=int, default=28, help="of I-GOS, in cells a side")
    parser.add_argument("--warm", type=int, default=1, help="images before the run that is timed; 0 for none")
    parser.add_argument("--shard", type=int, default=16)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", default=",".join("0123"), help="numbers of cases, from 0")
    asked = parser.parse_args()
    print(f"{asked.model} on {torch.cuda.get_device_name() if asked.device != 'cpu' else 'the processor'}")
    print(f"{'case':34} {'images':>6} {'run':>9} {'work':>9} {'overhead':>9}")
    for number in asked.cases.split(","):
        name, (method, more, metrics) = list(CASES.items())[int(number)]
        more = more.format(cells=asked.resolution)
        for count in filter(None, (asked.warm, asked.images)):
            text = spec_of(asked.photos.absolute(), asked.model, method, more, metrics, count, asked.shard)
            images, whole, work = overhead(text, asked.device)
        print(f"{name:34} {images:6} {whole:8.2f}s {work:8.2f}s {100 * (whole / work - 1):8.1f}%", flush=True)


if __name__ == "__main__":
    main()
