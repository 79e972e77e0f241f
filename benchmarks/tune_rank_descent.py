"""The choice of the defaults of rank descent: one setting after the other is changed.

    python benchmarks/tune_rank_descent.py --photos ../shared/photos --count 12 --autocast bfloat16

The even photographs are used for tuning. ``steady`` is the mean rank correlation of the maps with those of the same
photographs under noise, uniform within 0.02 of each pixel, and ``seeds`` that of the maps of two seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from common import arguments, autocast, difference, table, with_error
from igos_quality import Bench

import faithmap as fm
from faithmap.metrics.functional import spearman

MIDDLE = "the defaults"

GRID: dict[str, tuple[Any, ...]] = {
    "step": (0.005, 0.02, 0.04),
    "softness": (0.03, 0.08),
    "smoothing": (0.0, 0.25, 0.5),
    "momentum": (0.6, 0.9),
    "iterations": (15, 40),
    "prior_samples": (5, 20),
}


def candidates(default: fm.RankDescent, only: list[str] | None) -> Iterator[tuple[str, fm.RankDescent]]:
    """The defaults, and variants that differ in one setting."""
    yield MIDDLE, default
    for name, values in GRID.items():
        for value in values if only is None or name in only else ():
            yield f"{name} {value}", replace(default, **{name: value})


def steadiness(bench: Bench, explain: fm.RankDescent, count: int) -> tuple[float, float]:
    """Rank correlation of the maps under noise in the image, and of two seeds, over the first photographs."""
    images = bench.images[:count]
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    disturbed = (images + 0.04 * noise - 0.02).clamp(0, 1)
    plain = explain(images)
    moved = explain(disturbed, plain.target)
    other = replace(explain, seed=explain.seed + 1)(images, plain.target)
    return float(spearman(plain, moved).mean()), float(spearman(plain, other).mean())


Variant: TypeAlias = tuple[str, fm.RankDescent, AbstractContextManager[Any]]
"""A name, a method, and what is changed while it explains."""


def report(bench: Bench, options: argparse.Namespace, variants: Iterable[Variant], header: Sequence[str]) -> str:
    """One table, with differences to the first row, paired photograph by photograph.

    Args:
        bench: photographs and model.
        options: of the command line.
        variants: the rows.
        header: of the first column, and the name of the first row in the header of the differences.
    """
    lines: list[list[str]] = []
    ours: list[float] | None = None
    for name, explain, changed in variants:
        with changed:
            found = bench.measure(name, options.resolution, explain)
            steady, seeds = steadiness(bench, explain, options.steady)
        values = [row.difference for row in found]
        paired = "" if ours is None else difference(values, ours)
        ours = values if ours is None else ours
        areas = [with_error([getattr(row, curve) for row in found]) for curve in ("deletion", "insertion")]
        lines.append([name, *areas, paired, f"{steady:.2f}", f"{seeds:.2f}", f"{found[0].backward:.0f}"])
    first, whole = header
    return table([first, "deletion", "insertion", f"ins - del to {whole}", "steady", "seeds", "backward passes"], lines)


def options_of(words: str, only: str) -> argparse.Namespace:
    """The command line of both scripts.

    Args:
        words: its description.
        only: the help of ``--only``.
    """
    parser = arguments(words, count=12)
    parser.set_defaults(part="tune")
    parser.add_argument("--resolution", type=int, default=28)
    parser.add_argument("--only", nargs="+", default=None, help=only)
    parser.add_argument("--steady", type=int, default=4, help="number of photographs for the two correlations")
    parser.add_argument("--save", type=Path, default=None, help="CSV of every score; results in it are not measured again")
    return parser.parse_args()


def opened(options: argparse.Namespace) -> tuple[Bench, fm.RankDescent]:
    """Photographs and model, whose names are printed, and rank descent with its defaults."""
    bench = Bench.open(options)
    side = f"{options.resolution}x{options.resolution}"
    print(f"\n{options.model}, {len(bench.photos)} photographs ({options.part}), {side}, autocast {options.autocast}\n")
    shared = {"seed": options.seed, "chunk_size": options.chunk, "autocast": autocast(options)}
    return bench, fm.RankDescent(bench.model, resolution=options.resolution, **shared)


def main() -> None:
    """Measure, print, save."""
    options = options_of(__doc__.splitlines()[0] if __doc__ else "", "of the settings, such as smoothing")
    bench, default = opened(options)
    variants = ((name, explain, nullcontext()) for name, explain in candidates(default, options.only))
    print(report(bench, options, variants, ("setting", MIDDLE)))


if __name__ == "__main__":
    main()
