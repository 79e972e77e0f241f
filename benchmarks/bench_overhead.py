"""Overhead of the runner: python benchmarks/bench_overhead.py IMAGES [--images 100] [--device cuda].

The wall-clock time of a run, from the first unit to the last, is compared with the seconds that the same run spent in the
method, in the metrics and in the pass that finds the class of each image. The rest is reading images, encoding and writing
units. One image is explained before, so that the start of the process is not counted; ``--warm 0`` leaves it out.
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

from faithmap.bench.evaluate import ImageGroup, ModelCache
from faithmap.bench.planning import make_plan
from faithmap.bench.run import LocalEngine, execute
from faithmap.bench.run_folder import RunFolder, read_rows
from faithmap.bench.spec import parse_spec

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
    """The same function; its seconds are added up."""

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
    parser.add_argument("--resolution", type=int, default=28, help="of I-GOS, in cells per side")
    parser.add_argument("--warm", type=int, default=1, help="images before the run that is timed; 0 for none")
    parser.add_argument("--shard", type=int, default=16)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", default=",".join("0123"), help="numbers of cases, from 0")
    arguments = parser.parse_args()
    print(f"{arguments.model} on {torch.cuda.get_device_name() if arguments.device != 'cpu' else 'the CPU'}")
    print(f"{'case':34} {'images':>6} {'run':>9} {'work':>9} {'overhead':>9}")
    for number in arguments.cases.split(","):
        name, (method, more, metrics) = list(CASES.items())[int(number)]
        more = more.format(cells=arguments.resolution)
        for count in filter(None, (arguments.warm, arguments.images)):
            text = spec_of(arguments.photos.absolute(), arguments.model, method, more, metrics, count, arguments.shard)
            images, whole, work = overhead(text, arguments.device)
        print(f"{name:34} {images:6} {whole:8.2f}s {work:8.2f}s {100 * (whole / work - 1):8.1f}%", flush=True)


if __name__ == "__main__":
    main()
