"""Memory of a run by its number of images: python benchmarks/bench_memory.py [--images 1000 100000].

Each number has a process of its own. It lists a folder of so many photographs (links to three of them), plans two methods on
them, runs with an engine whose units are fakes, and resumes. Memory is that of the process at its highest, less what it had
when everything was imported and the model loaded.
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
from bench_resume import fake
from PIL import Image
from torch import nn

import faithmap as fm
from faithmap.bench.folder import RunFolder
from faithmap.bench.models import Models
from faithmap.bench.plan import Setup, Task
from faithmap.bench.planning import make_plan
from faithmap.bench.reading import parse_spec
from faithmap.bench.run import execute
from faithmap.bench.worker import Finished

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
    """For the specification."""
    return fm.Classifier(Brightness(), geometry=fm.Geometry(16, (16, 16)))


class Fakes:
    """An engine that does nothing, at once."""

    shard = None

    def run(self, setup: Setup, tasks: Iterable[Task], models: Models) -> Iterator[Finished]:
        """A file of 16 rows for each task."""
        del models
        for task in tasks:
            key, name = task.unit.key, setup.methods[task.unit.method].id
            yield Finished(key, fake(key), len(task.items), 0, 0.0, "fake", name)


def peak() -> float:
    """Of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(images: int) -> None:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as home:
        photos = Path(home) / "photos"
        photos.mkdir()
        for i in range(images):
            name = photos / f"ILSVRC2012_val_{i:08d}.png"
            if i < 3:
                Image.new("RGB", (20, 20), (80 * i, 0, 0)).save(name)
            else:
                os.link(photos / f"ILSVRC2012_val_{i % 3:08d}.png", name)
        models, spec = Models("cpu"), parse_spec(SPEC, "memory")
        models.get(spec.models[0])
        fake("warm")
        before, said = peak(), []
        for step in ("run", "resumed"):
            began = time.perf_counter()
            plan, folder = make_plan(spec, Path(home), models), RunFolder(Path(home) / "run")
            planned = peak() - before
            folder.made()
            folder.settle(plan)
            state = execute(plan, folder, Fakes(), models=models)
            units = len(plan)
            assert (state.done if step == "run" else state.present) == units
            said.append(f"{planned:8.1f} {peak() - before:8.1f} {time.perf_counter() - began:8.1f} s")
            del plan, folder, state  # a run that is resumed has no other beside it
        print(f"{images:9,} {units:8,} {before:8.0f} {said[0]} {said[1]}", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        measure(asked.images[0])
        return
    print(f"{'':27} MB: {'planned':>8} {'run':>8} {'':10} {'planned':>8} {'resumed':>8}")
    print(f"{'images':>9} {'units':>8} {'before':>8}")
    for images in asked.images:
        subprocess.run([sys.executable, __file__, "--here", "--images", str(images)], check=True)  # noqa: S603 - this file


if __name__ == "__main__":
    main()
