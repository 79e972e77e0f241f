"""A benchmark that takes milliseconds: a classifier that processes can import, images, and the command in its own process."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from faithmap.model import Classifier

Rows = list[dict[str, Any]]

MODEL = '''
import os
import signal
from pathlib import Path

import torch
import faithmap
from torch import nn


class Spots(nn.Module):
    """Three classes, from a convolution with fixed weights."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)
        for seed, layer in enumerate((self.conv, self.head)):
            layer.bias.data.zero_()
            layer.weight.data.normal_(generator=torch.Generator().manual_seed(seed))

    def forward(self, x):
        return self.head(self.conv(x).relu().mean(dim=(2, 3)))


def make():
    return faithmap.Classifier(Spots(), labels=["cat", "dog", "cow"], geometry=faithmap.Geometry(16, (16, 16)), name="tiny")


class Picky(Spots):
    """Refuses a white image."""

    def forward(self, x):
        if (x.mean(dim=(1, 2, 3)) > 0.9).any():
            raise RuntimeError("too white")
        return super().forward(x)


def picky():
    return faithmap.Classifier(Picky(), labels=["cat", "dog", "cow"], geometry=faithmap.Geometry(16, (16, 16)), name="tiny")


def wider():
    return faithmap.Classifier(Spots(), labels=["cat", "dog", "cow"], geometry=faithmap.Geometry(18, (16, 16)), name="tiny")


def brighter():
    geometry = faithmap.Geometry(16, (16, 16))
    return faithmap.Classifier(Spots(), mean=(0.1,) * 3, labels=["cat", "dog", "cow"], geometry=geometry, name="tiny")


def other():
    model = make()
    model.module.head.weight.data *= 2
    return model


def mortal():
    """Kills its process at the step that a file names: a pass of the model, or a file that is synced to disk."""
    steps = int(Path("steps").read_text())

    def step():
        nonlocal steps
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sync = os.fsync
    os.fsync = lambda number: (step(), sync(number), step())
    model = make()
    model.register_forward_pre_hook(lambda module, given: step())
    return model
'''

SPEC = """
name = "tiny"
shard_size = {shard_size}

[[models]]
name = "tiny"
factory = "tiny_bench_model:make"

[data]
path = "photos"

[[methods]]
name = "igos"
resolution = [8, 4]
settings = {{ iterations = 2, path_points = 3 }}

[[methods]]
name = "gradcam"

[[metrics]]
name = "deletion_insertion"
settings = {{ steps = 5 }}

[[metrics]]
name = "infidelity"
settings = {{ draws = 4 }}
"""


ALL_METRICS = """
models = [{name = "tiny", factory = "tiny_bench_model:make"}]
seed = 5
shard_size = 2
metrics = [
    {name = "deletion_insertion", settings = {steps = 4}},
    {name = "deletion_insertion", id = "rise", settings = {protocol = "rise", resolution = 8}},
    {name = "infidelity", settings = {draws = 6}},
    {name = "sensitivity", settings = {draws = 2}},
    {name = "confidence"},
    {name = "road", settings = {fractions = [0.2, 0.6]}},
    {name = "evidence"},
    {name = "saco", settings = {groups = 4}},
    {name = "complexity"},
    {name = "objective"},
    {name = "saturation", settings = {positions = 5}},
    {name = "top_features", settings = {count = 2}},
    {name = "difull"},
]
[data]
path = "photos"
sample = 3
[[methods]]
name = "igos"
resolution = 4
settings = {iterations = 2, path_points = 3, step = {kind = "line_search", wave = 2}}
[[methods]]
name = "gradcam"
"""


@dataclass(frozen=True)
class Bench:
    """A folder with a specification, images and a model."""

    home: Path

    @property
    def spec(self) -> Path:
        return self.home / "spec.toml"

    @property
    def out(self) -> Path:
        return self.home / "out"

    @property
    def units(self) -> list[Path]:
        """The files of the folder of units, sorted."""
        return sorted((self.out / "units").iterdir())

    def write(self, old: str = "", new: str = "", *, shard_size: int = 3) -> Path:
        """Write the specification with one replacement."""
        text = SPEC.format(shard_size=shard_size)
        assert old in text
        self.spec.write_text(text.replace(old, new) if old else text)
        return self.spec

    def photo(self, name: str, seed: int) -> Path:
        path = self.home / "photos" / name
        path.parent.mkdir(exist_ok=True)
        pixels = torch.rand(20, 24, 3, generator=torch.Generator().manual_seed(seed))
        Image.fromarray(pixels.mul(255).byte().numpy()).save(path, format="PNG")
        return path

    def start(self, *options: str, limit: int | None = None) -> Command:
        """Start ``faithmap bench run`` in its own process."""
        return Command.started(self.home, "bench", "run", str(self.spec), "--out", str(self.out), *options, limit=limit)


TIMES = ("seconds", "metric_seconds")


def rows(out: Path) -> Rows:
    """All rows of a run with their heatmaps, without times; sorted."""
    import pyarrow.parquet as pq

    from faithmap.bench.run_folder import unit_files

    found: Rows = []
    for path in unit_files(out):
        table = pq.read_table(path, page_checksum_verification=True)
        found += [dict(row, heatmap=list(row["heatmap"]) if row["heatmap"] is not None else None) for row in table.to_pylist()]
    for row in found:
        for name in TIMES:
            row.pop(name)
    return sorted(found, key=lambda row: (row["model"], row["method"], row["index"]))


def tiny_model() -> Classifier:
    """The model of the specification."""
    module: dict[str, Any] = {}
    exec(MODEL, module)  # noqa: S102 - our own text
    model = module["make"]()
    assert isinstance(model, Classifier)
    return model


PRELOADED = [
    "pytest",
    "torch._dynamo",
    "faithmap.bench.run",
    "faithmap.cli",
    "faithmap.cli.bench_run",
    "faithmap.bench.spec",
]
"""Imported once for all commands: a second of imports for each of ten commands would be ten."""


@dataclass(frozen=True)
class Command:
    """``faithmap`` in its own process, as from a shell; its output goes to files."""

    process: BaseProcess
    out: Path
    err: Path

    @classmethod
    def started(cls, home: Path, *words: str, limit: int | None = None) -> Command:
        """Start; ``limit`` is the largest file that the process may write, in bytes."""
        from faithmap.bench.run import worker_context

        files = home / "command.out", home / "command.err"
        context = worker_context()
        context.set_forkserver_preload(PRELOADED)
        process = context.Process(target=_run_command, args=(words, files, limit))  # type: ignore[attr-defined]
        process.start()
        return cls(process, *files)

    def exit_code(self) -> int | None:
        """Wait until it has ended."""
        self.process.join()
        return self.process.exitcode


def _run_command(words: tuple[str, ...], files: tuple[Path, Path], limit: int | None) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    torch.set_num_threads(1)
    from faithmap.cli import main

    sys.exit(main(list(words)))
