"""Memory of a run by its number of images: python benchmarks/bench_memory.py [--images 1000 100000].

For each number of images there are two processes, the run and its resumption. A process lists a folder of images (links to
three of them), plans two methods, and runs the missing units on an engine that returns placeholder units. Memory is the peak
of the process above its memory after all imports and the loading of the model.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from bench_resume import placeholder_unit
from PIL import Image
from torch import nn

import faithmap as fm
from faithmap.bench.evaluate import FinishedUnit, ModelCache
from faithmap.bench.plan import Setup, Task
from faithmap.bench.planning import make_plan
from faithmap.bench.run import execute
from faithmap.bench.run_folder import RunFolder
from faithmap.bench.spec import parse_spec

SPEC = """
models = [{name = "fake", factory = "bench_memory:model"}]
methods = ["edges", {name = "random_map", resolution = 7}]
metrics = ["deletion_insertion"]
[data]
path = "photos"
"""


class Brightness(nn.Module):
    """Two classes, bright and dark."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        bright = images.mean(dim=(1, 2, 3))
        return torch.stack([bright, 1 - bright], dim=1)


def model() -> fm.Classifier:
    """The factory of the specification."""
    return fm.Classifier(Brightness(), geometry=fm.Geometry(16, (16, 16)))


class PlaceholderEngine:
    """Returns placeholder units without computation."""

    shard = None

    def run(self, setup: Setup, tasks: Iterable[Task], models: ModelCache) -> Iterator[FinishedUnit]:
        """A file of 16 rows for each task."""
        del models
        for task in tasks:
            key, name = task.unit.key, setup.methods[task.unit.method].id
            yield FinishedUnit(key, placeholder_unit(key), len(task.items), 0, 0.0, "fake", name)


def peak() -> float:
    """Peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_images(folder: Path, images: int) -> None:
    """Write three images, and links to them."""
    folder.mkdir()
    for i in range(images):
        name = folder / f"ILSVRC2012_val_{i:08d}.png"
        if i < 3:
            Image.new("RGB", (20, 20), (80 * i, 0, 0)).save(name)
        else:
            os.link(folder / f"ILSVRC2012_val_{i % 3:08d}.png", name)


def measure(home: Path) -> None:
    """Plan, run the missing units, and print a line of the table."""
    models, spec = ModelCache("cpu"), parse_spec(SPEC, "memory")
    models.get(spec.models[0])
    placeholder_unit("warm")
    initial, began = peak(), time.perf_counter()
    plan, folder = make_plan(spec, home, models), RunFolder(home / "run")
    planned = peak() - initial
    folder.create()
    folder.record_plan(plan)
    progress = execute(plan, folder, PlaceholderEngine(), models=models)
    assert progress.present + progress.done == len(plan)
    took = time.perf_counter() - began
    counts = f"{len(plan):8,} {progress.present:8,}"
    print(f"{counts} {initial:8.0f} {planned:8.1f} {peak() - initial:8.1f} {took:8.1f} s", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        measure(arguments.here)
        return
    print(f"{'images':>9} {'units':>8} {'present':>8} {'before':>8} {'planned':>8} {'done':>8} MB")
    for images in arguments.images:
        with tempfile.TemporaryDirectory() as home:
            make_images(Path(home) / "photos", images)
            for _ in ("begun", "resumed"):
                print(f"{images:9,}", end=" ", flush=True)
                subprocess.run([sys.executable, __file__, "--here", home], check=True)  # noqa: S603 - this file


if __name__ == "__main__":
    main()
