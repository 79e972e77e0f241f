"""Deletion and insertion of the class activation maps: every weighting with every gradient, at several layers.

    python benchmarks/cam_quality.py --photos ../shared/photos --count 16 --autocast bfloat16

Every map is evaluated at 7x7 and at 28x28 cells, resampled if it is coarser or finer. Prints one Markdown table per
resolution, with paired differences to plain Grad-CAM of the last layer. ``--grid named`` measures only the named methods.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common import Results, Row, arguments, autocast, difference, stretched, table, with_error
from igos_quality import Bench
from torch import Tensor

import faithmap as fm
from faithmap.methods.cams import Expected, Integrated, Plain, Smooth
from faithmap.methods.cams.weightings import WEIGHTINGS
from faithmap.methods.registry import METHODS

ESTIMATORS = {"plain": Plain(), "smooth": Smooth(), "integrated": Integrated(), "expected": Expected()}
Explain = Callable[[Tensor], fm.Explanation]


def named(model: fm.Classifier, options: argparse.Namespace) -> Iterator[tuple[str, Explain]]:
    """The named methods with their default settings, and Grad-CAM with its cells on equal parts, or stretched."""
    shared = {"seed": options.seed, "chunk_size": options.chunk, "autocast": autocast(options)}
    for name, method in METHODS.items():
        if name.endswith("cam") or "gradcam" in name:
            yield name, method.explainer(model, **shared)
    grad_cam = fm.GradCAM(model, **shared)
    yield "gradcam, tiles", fm.GradCAM(model, placement="tiles", **shared)
    yield "gradcam, stretched", lambda images: stretched(grad_cam(images))
    yield "expected_fusedcam, strides", fm.ExpectedFusedCAM(model, placement="strides", **shared)


def grid(model: fm.Classifier, layer: str, options: argparse.Namespace) -> Iterator[tuple[str, Explain]]:
    """Every weighting with every estimator at one layer."""
    shared = {"seed": options.seed, "chunk_size": options.chunk, "autocast": autocast(options)}
    for weighting in WEIGHTINGS:
        for estimator, gradient in ESTIMATORS.items():
            yield (
                f"{layer}: {weighting}, {estimator}",
                fm.CAM(model, target_layer=layer, weighting=weighting, gradient=gradient, **shared),
            )


def measure(bench: Bench, name: str, explain: Explain, resolutions: list[int]) -> None:
    """Explain each photograph once, and evaluate its map at every resolution; stored results are not measured again."""
    for photo, image in zip(bench.photos, bench.images.split(1), strict=True):
        wanted = [r for r in resolutions if bench.results.get(photo, name, r) is None]
        if not wanted:
            continue
        start = time.perf_counter()
        explanation = explain(image)
        seconds = time.perf_counter() - start
        for resolution in wanted:
            cells = explanation.at((resolution, resolution))
            curves = fm.deletion_insertion(bench.model, image, cells, explanation.target, chunk_size=bench.chunk)
            areas = curves.deletion.area.item(), curves.insertion.area.item()
            passes = (explanation.diagnostics[0][f"{kind}_passes"] for kind in ("forward", "backward"))
            bench.results.add(Row(photo, name, resolution, *areas, seconds, *passes))
    print(f"{name} done", file=sys.stderr)


def report(results: Results, photos: list[str], names: list[str], resolution: int, reference: str) -> str:
    """One resolution's table, with paired differences to one of the methods."""
    rows = {name: [row for photo in photos if (row := results.get(photo, name, resolution))] for name in names}
    ours = [row.difference for row in rows[reference]]
    lines = []
    for name, found in rows.items():
        values = [row.difference for row in found]
        areas = [with_error([getattr(row, curve) for row in found]) for curve in ("deletion", "insertion")]
        paired = "" if name == reference else difference(values, ours)
        lines.append([name, *areas, with_error(values), paired, f"{sum(row.forward for row in found) / len(found):.0f}"])
    return table(["method", "deletion", "insertion", "ins - del", f"to {reference}", "forwards"], lines)


def main() -> None:
    """Measure, print, save."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=16)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[7, 28])
    parser.add_argument("--grid", choices=("named", "all"), default="all")
    parser.add_argument("--layers", nargs="+", default=["bn2", "blocks.5.0.bn1", "blocks.3.0.bn1"], help="of the grid")
    parser.add_argument("--skip", nargs="*", default=["scorecam", "ablationcam"], help="named methods that take too long")
    parser.add_argument("--reference", default="gradcam", help="method that the others are compared with, pair by pair")
    parser.add_argument("--save", type=Path, default=None, help="CSV of every score; results in it are not measured again")
    options = parser.parse_args()
    bench = Bench.open(options)
    methods = dict(named(bench.model, options))
    for layer in options.layers if options.grid == "all" else []:
        methods |= dict(grid(bench.model, layer, options))
    methods = {name: explain for name, explain in methods.items() if name not in options.skip}
    for name, explain in methods.items():
        measure(bench, name, explain, options.resolutions)
    for resolution in options.resolutions:
        print(f"\n{options.model}, {len(bench.photos)} photographs ({options.part}), {resolution}x{resolution} cells\n")
        print(report(bench.results, bench.photos, list(methods), resolution, options.reference), flush=True)


if __name__ == "__main__":
    main()
