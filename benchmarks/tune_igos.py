"""The choice of the defaults of I-GOS and Mask, for each resolution.

    python benchmarks/tune_igos.py --photos ../shared/photos --count 12
    python benchmarks/tune_igos.py --photos ../shared/photos --part all --count 100 --resolutions 28 --weights 0.1,2 1,20

The even photographs are used for tuning, the odd ones for the results. The grid is small on purpose: weights of the removed
area around 0.1, and of the total variation around one that grows with the number of cells per side, since neighbouring cells of
a finer mask differ less. The setting with the highest insertion minus deletion is the best; settings within a standard error
of it are equally good.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import arguments, autocast, difference, table, with_error
from igos_quality import Bench

import faithmap as fm
from faithmap.methods.masks.base import MaskOptimiser

GRID = {
    "igos": [(0.1, 0.2), (0.1, 1.0), (0.1, 5.0), (0.03, 1.0), (0.3, 1.0)],
    "mask": [(0.01, 0.1), (0.1, 1.0), (1.0, 10.0)],
}
"""lambda1, and lambda2 as a multiple of the middle one; Mask's grid runs along the settings of the I-GOS paper's Table 5."""


def middle(resolution: int) -> float:
    """The middle weight of the total variation: 2 up to 28 cells per side, in proportion beyond."""
    return 2.0 * max(1.0, resolution / 28)


def noises(model: fm.Classifier, resolution: int, stds: list[float], **shared: Any) -> dict[str, MaskOptimiser]:
    """I-GOS with its default weights and one noise after the other."""
    return {f"noise {std:g}": fm.IGOS(model, resolution=resolution, noise_std=std, **shared) for std in stds}


def weighted(model: fm.Classifier, resolution: int, weights: list[str], **shared: Any) -> dict[str, MaskOptimiser]:
    """I-GOS with some pairs of weights and all else at its defaults, and the published setting as a whole."""
    pairs = [tuple(map(float, pair.split(","))) for pair in weights]
    methods = {f"{a:g}, {b:g}": fm.IGOS(model, resolution=resolution, lambda1=a, lambda2=b, **shared) for a, b in pairs}
    return {**methods, "paper": fm.IGOS(model, **fm.IGOS.paper(resolution), **shared)}


def candidates(model: fm.Classifier, resolution: int, method: str, **shared: Any) -> dict[str, MaskOptimiser]:
    """The grid of one resolution."""
    make = {"igos": fm.IGOS, "mask": fm.Mask}[method]
    grid = [(lambda1, factor * middle(resolution)) for lambda1, factor in GRID[method]]
    return {f"{a:g}, {b:g}": make(model, resolution=resolution, lambda1=a, lambda2=b, **shared) for a, b in grid}


def main() -> None:
    """Measure every candidate on the tuning photographs, print a table for each resolution."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=12)
    parser.set_defaults(part="tune")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[7, 14, 28, 112, 224])
    parser.add_argument("--method", choices=("igos", "mask"), default="igos")
    parser.add_argument(
        "--noise", type=float, nargs="+", default=None, help="stds to try with I-GOS's weights, instead of weights"
    )
    parser.add_argument(
        "--weights", nargs="+", default=None, help="pairs lambda1,lambda2 of I-GOS to compare with the paper's setting"
    )
    parser.add_argument("--save", type=Path, default=None, help="CSV of every score; results in it are not measured again")
    options = parser.parse_args()
    bench = Bench.open(options)
    for resolution in options.resolutions:
        shared = {"seed": options.seed, "chunk_size": options.chunk, "autocast": autocast(options)}
        rows = {}
        grid = candidates(bench.model, resolution, options.method, **shared)
        if options.noise is not None:
            grid = noises(bench.model, resolution, options.noise, **shared)
        if options.weights is not None:
            grid = weighted(bench.model, resolution, options.weights, **shared)
        for name, method in grid.items():
            rows[name] = bench.measure(f"{options.method} {name}", resolution, method)
        best = max(rows, key=lambda name: sum(row.difference for row in rows[name]))
        best_values = [row.difference for row in rows[best]]
        lines = []
        for name, found in rows.items():
            values = [row.difference for row in found]
            areas = [with_error([row.deletion for row in found]), with_error([row.insertion for row in found])]
            lines.append([name, *areas, with_error(values), difference(values, best_values) if name != best else "best"])
        header = ["setting", "deletion", "insertion", "ins - del", "to the best"]
        count, part = len(bench.photos), options.part
        print(f"\n{options.method}, {options.model}, {count} photographs ({part}), {resolution}x{resolution}\n")
        print(table(header, lines), flush=True)


if __name__ == "__main__":
    main()
