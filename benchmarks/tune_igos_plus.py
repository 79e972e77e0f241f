"""The choice of the step rule of I-GOS++, the effect of its weights, and of the number of initial masks.

    python benchmarks/tune_igos_plus.py --photos ../shared/photos --count 6 --autocast bfloat16
    python benchmarks/tune_igos_plus.py --photos ../shared/photos --count 6 --resolution 14 --starts 1 3

The even photographs are used for tuning. One Markdown table with paired differences to its first row: I-GOS, or with
``--starts`` I-GOS+ of the first number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import arguments, autocast, difference, table, with_error
from igos_quality import Bench

import faithmap as fm
from faithmap.methods.masks.base import MaskOptimiser


def candidates(model: fm.Classifier, **shared: Any) -> dict[str, MaskOptimiser]:
    """I-GOS, and I-GOS++ with one setting changed after the other."""
    searched, step = {"step": fm.LineSearch()}, fm.Nesterov
    settings: dict[str, dict[str, Any]] = {
        "line search": searched,
        "line search, lambda1 1": {**searched, "lambda1": 1.0},
        "Nesterov 8": {"step": step(8.0)},
        "Nesterov 16": {"step": step(16.0)},
        "Nesterov 8, lambda1 1": {"step": step(8.0), "lambda1": 1.0},
        "Nesterov 8, lambda2 0.4": {"step": step(8.0), "lambda2": 0.4},
        "Nesterov 8, plain total variation": {"step": step(8.0), "sigma": None},
        "Nesterov 8, last mask": {"step": step(8.0), "average": False},
    }
    found: dict[str, MaskOptimiser] = {
        "I-GOS": fm.IGOS(model, **shared),
        "I-GOS, Nesterov 8": fm.IGOS(model, **shared, step=step(8.0)),
    }
    return found | {f"I-GOS++, {name}": fm.IGOSPlusPlus(model, **shared, **given) for name, given in settings.items()}


def with_starts(model: fm.Classifier, numbers: list[int], **shared: Any) -> dict[str, MaskOptimiser]:
    """I-GOS+ with several initial masks."""
    return {f"I-GOS+, {number} start{'s' * (number > 1)}": fm.IGOSPlus(model, **shared, starts=number) for number in numbers}


def main() -> None:
    """Measure, print, save."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=6)
    parser.set_defaults(part="tune")
    parser.add_argument("--resolution", type=int, default=28)
    parser.add_argument(
        "--starts", type=int, nargs="+", default=None, help="numbers of initial masks, in place of the settings"
    )
    parser.add_argument("--path-points", type=int, default=None, help="of every method; by default the method's")
    parser.add_argument("--save", type=Path, default=None, help="CSV of every score; results in it are not measured again")
    options = parser.parse_args()
    bench = Bench.open(options)
    shared = {"seed": options.seed, "chunk_size": options.chunk, "autocast": autocast(options)}
    shared |= {"resolution": options.resolution} | ({"path_points": options.path_points} if options.path_points else {})
    grid = with_starts(bench.model, options.starts, **shared) if options.starts else candidates(bench.model, **shared)
    rows = {name: bench.measure(name, options.resolution, explain) for name, explain in grid.items()}
    reference, *_ = rows
    ours, lines = rows[reference], []
    for name, found in rows.items():
        line = [name, with_error([row.deletion for row in found]), with_error([row.insertion for row in found])]
        for part in ("deletion", "insertion", "difference"):
            paired = difference([getattr(row, part) for row in found], [getattr(row, part) for row in ours])
            line.append("" if name == reference else paired)
        lines.append([*line, f"{sum(row.forward for row in found) / len(found):.0f}"])
    side = f"{options.resolution}x{options.resolution}"
    print(f"\n{options.model}, {len(bench.photos)} photographs ({options.part}), {side}, autocast {options.autocast}\n")
    headings = [f"{part} to {reference}" for part in ("deletion", "insertion")]
    print(table(["setting", "deletion", "insertion", *headings, "both", "forward passes"], lines))


if __name__ == "__main__":
    main()
