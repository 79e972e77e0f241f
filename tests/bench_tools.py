"""A classifier that takes milliseconds, importable by the processes that benchmarks start, and photographs to explain."""

from __future__ import annotations

from dataclasses import dataclass
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
