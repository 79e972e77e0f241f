"""A classifier that takes milliseconds, importable by the processes that benchmarks start, and photographs to explain."""

from __future__ import annotations

import os
import resource
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from PIL import Image

import faithmap

MODEL = '''
import torch
import faithmap
from torch import nn


class Spots(nn.Module):
    """Three classes, of what a convolution with fixed weights sees."""

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
    """Takes no white image."""

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


@dataclass(frozen=True)
class Bench:
    """A folder with a specification, photographs and a model."""

    home: Path

    @property
    def spec(self) -> Path:
        return self.home / "spec.toml"

    def write(self, old: str = "", new: str = "", *, shard_size: int = 3) -> Path:
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


TIMES = ("seconds", "metric_seconds")


def rows(out: Path) -> list[dict]:
    """All rows of a run, heatmaps among them, without what a clock said; sorted."""
    import pyarrow.parquet as pq

    from faithmap.bench.store import tables

    found = []
    for path in tables(out):
        table = pq.read_table(path)
        found += [dict(row, heatmap=list(row["heatmap"]) if row["heatmap"] is not None else None) for row in table.to_pylist()]
    for row in found:
        for name in TIMES:
            row.pop(name)
    return sorted(found, key=lambda row: (row["model"], row["method"], row["index"]))


def tiny_model() -> faithmap.Classifier:
    """That of the specification."""
    home: dict = {}
    exec(MODEL, home)  # noqa: S102 - our own text
    return home["make"]()


PRELOADED = [
    "pytest",
    "torch._dynamo",
    "faithmap.bench.engines",
    "faithmap.cli",
    "faithmap.cli.bench_run",
    "faithmap.bench.spec",
]
"""What a command imports, where it is the first to start; a second of imports for each of ten kills would be ten."""


@dataclass(frozen=True)
class Command:
    """``faithmap`` in a process of its own, which has torch from the start: as from a user's shell, without the wait."""

    process: BaseProcess
    out: Path
    err: Path

    @classmethod
    def started(cls, home: Path, *words: str, limit: int | None = None) -> Command:
        """Begin; ``limit`` is the largest file that it may write, in bytes."""
        from faithmap.bench.engines import clean_processes

        files = home / "command.out", home / "command.err"
        context = clean_processes()
        context.set_forkserver_preload(PRELOADED)
        process = context.Process(target=_become, args=(words, files, limit))  # type: ignore[attr-defined]
        for file in files:
            file.unlink(missing_ok=True)
        process.start()
        return cls(process, *files)

    def lines(self) -> int:
        """On standard output so far."""
        return self.out.read_bytes().count(b"\n") if self.out.exists() else 0

    def said(self, lines: int) -> bool:
        """Whether it goes on after so many lines; waits for them."""
        while self.lines() < lines:
            if self.process.exitcode is not None:
                return False
            time.sleep(0.001)
        return True

    def ended(self) -> int | None:
        """Its exit code."""
        self.process.join()
        return self.process.exitcode


def _become(words: tuple[str, ...], files: tuple[Path, Path], limit: int | None) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    torch.set_num_threads(1)
    from faithmap.cli import main

    sys.exit(main(list(words)))
