"""Shared code of the benchmarks: photographs, arguments, other maps, tables with standard errors and paired differences."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import faithmap as fm


def arguments(description: str, *, seed: int = 0, count: int | None = None) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"), help="folder of photographs")
    parser.add_argument(
        "--part", choices=("tune", "report", "all"), default="report", help="even, odd or all photographs by name"
    )
    parser.add_argument("--count", type=int, default=count, help="number of photographs, evenly spread over the part")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--chunk", type=int, default=20, help="images in one pass")
    parser.add_argument("--autocast", choices=("none", "bfloat16", "float16"), default="none")
    return parser


def autocast(options: argparse.Namespace) -> torch.dtype | None:
    """The lower precision of the options; None for full precision."""
    return None if options.autocast == "none" else getattr(torch, options.autocast)


def load_photos(options: argparse.Namespace, model: fm.Classifier) -> tuple[list[str], Float[Tensor, "n 3 h w"]]:
    """Names and preprocessed images. Tuning takes the even photographs, reporting the odd ones, in the order of their names."""
    files = sorted(fm.image_files([options.photos]))
    files = {"tune": files[0::2], "report": files[1::2], "all": files}[options.part]
    if options.count is not None and options.count < len(files):
        files = [files[i * len(files) // options.count] for i in range(options.count)]
    return [file.stem for file in files], torch.cat([model.read(file) for file in files])


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error."""
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def difference(first: Sequence[float], second: Sequence[float]) -> str:
    """Mean paired difference with its standard error."""
    mean, error = spread([a - b for a, b in zip(first, second, strict=True)])
    return f"{mean:+.3f} ({error:.3f})"


def with_error(values: Sequence[float]) -> str:
    """Mean with its standard error."""
    mean, error = spread(values)
    return f"{mean:.3f} ({error:.3f})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(' --- ' for _ in header)}|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


@dataclass(frozen=True)
class Row:
    """Both areas of one method's map of one photograph, and its cost."""

    photo: str
    method: str
    resolution: int
    deletion: float
    insertion: float
    seconds: float
    forward: float
    backward: float

    @property
    def difference(self) -> float:
        """Insertion minus deletion."""
        return self.insertion - self.deletion


class Results:
    """Rows in a CSV file, each written when it is measured, so that an interrupted run can be resumed.

    Args:
        path: of the file; None keeps the rows only in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: dict[tuple[str, str, int], Row] = {}
        if path is not None and path.exists():
            with path.open(newline="") as file:
                for line in csv.DictReader(file):
                    numbers = [float(line[name]) for name in ("deletion", "insertion", "seconds", "forward", "backward")]
                    self._keep(Row(line["photo"], line["method"], int(line["resolution"]), *numbers))

    def get(self, photo: str, method: str, resolution: int) -> Row | None:
        """The stored row; None if it was not measured."""
        return self.rows.get((photo, method, resolution))

    def add(self, row: Row) -> None:
        """Keep a row, and append it to the file."""
        self._keep(row)
        if self.path is None:
            return
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(Row.__dataclass_fields__)
            writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in vars(row).values()])

    def _keep(self, row: Row) -> None:
        self.rows[row.photo, row.method, row.resolution] = row


def grad_cam(model: fm.Classifier, images: Float[Tensor, "n 3 h w"], resolution: int) -> fm.Explanation:
    """Grad-CAM of the last layer, stretched over the image and resampled, as it is usually drawn."""
    explanation = stretched(fm.GradCAM(model)(images))
    return fm.Explanation(
        explanation.at((resolution, resolution)), explanation.image_size, target=explanation.target, method=explanation.method
    )


def stretched(explanation: fm.Explanation) -> fm.Explanation:
    """The same map with its corners aligned with those of the image."""
    return replace(explanation, rows=None, columns=None)


def random_map(images: Float[Tensor, "n 3 h w"], resolution: int, seed: int) -> fm.Explanation:
    """A random map: the control of every table."""
    generator = torch.Generator().manual_seed(seed)
    heatmap = torch.rand(len(images), resolution, resolution, generator=generator).to(images)
    return fm.Explanation(heatmap, (images.shape[-2], images.shape[-1]), method="random")
