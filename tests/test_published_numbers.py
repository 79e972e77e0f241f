"""The numbers of README's tables are those of the scores in ``benchmarks/results``."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

Scores = dict[str, dict[str, tuple[float, float]]]
"""Of each method and photograph: deletion and insertion."""


def scores(name: str) -> Scores:
    found: Scores = defaultdict(dict)
    with (ROOT / "benchmarks" / "results" / name).open(newline="") as file:
        for row in csv.DictReader(file):
            found[row["method"]][row["photo"]] = float(row["deletion"]), float(row["insertion"])
    return found


def printed(values: list[float], sign: str = "") -> str:
    """Mean and standard error as a table has them."""
    return f"{statistics.mean(values):{sign}.3f} ({statistics.stdev(values) / len(values) ** 0.5:.3f})"


@pytest.mark.parametrize(
    ("method", "row"),
    [
        ("expected_fusedcam", "**Expected Fused CAM** (ours)"),
        ("fusedcam", "**Fused CAM** (ours): the same frame with the plain gradient"),
        ("gradcam", "Grad-CAM"),
        ("integrated_gradcam", "Integrated Grad-CAM"),
        ("layercam", "Grad-CAM++, Smooth Grad-CAM++, LayerCAM"),
        ("gradcam_plus_plus", "Grad-CAM++, Smooth Grad-CAM++, LayerCAM"),
        ("smooth_gradcam_plus_plus", "Grad-CAM++, Smooth Grad-CAM++, LayerCAM"),
        ("expected_gradcam", "Expected Grad-CAM, the paper's frame"),
    ],
)
def test_class_activation_maps(method: str, row: str) -> None:
    measured = scores("cam_quality_100.csv")
    assert len(measured[method]) == 100
    deletion, insertion = ([pair[i] for pair in measured[method].values()] for i in (0, 1))
    difference = [b - a for a, b in measured[method].values()]
    reference = [b - a for a, b in measured["gradcam"].values()]
    paired = "" if method == "gradcam" else printed([a - b for a, b in zip(difference, reference, strict=True)], "+")
    line = next(line for line in README.splitlines() if line.startswith(f"| {row} |"))
    cells = [cell.strip().strip("*") for cell in line.split("|")[2:6]]
    assert cells == [printed(deletion), printed(insertion), printed(difference), paired]


def test_what_expected_gradients_add_in_the_frame() -> None:
    measured = scores("cam_quality_100.csv")
    pairs = [(measured["expected_fusedcam"][photo], measured["fusedcam"][photo]) for photo in measured["fusedcam"]]
    added = printed([(b - a) - (d - c) for (a, b), (c, d) in pairs])
    assert f"expected gradients add {added} to the plain" in README
