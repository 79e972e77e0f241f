"""Deletion and insertion of all methods of the registry, at their maps' own resolution and at 28x28, under both protocols.

    python benchmarks/methods_quality.py --photos ../shared/photos --count 8

Every method explains each photograph once, with its default settings. Its map is evaluated at its own resolution, then
resampled to 28x28 cells, each time with the protocol of I-GOS (cells, one heavy blur) and with that of RISE (pixels, grey and
a light blur). One Markdown table for each of the four, the best first. Scores of different resolutions or protocols cannot be
compared: at the maps' own resolutions, compare methods with the same number of rows. A learned mask is included if
``--masker`` names a file of ``faithmap train-masker``; methods that the model or the installation does not support are named
with the reason.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from common import Results, Row, arguments, autocast, difference, table, with_error
from igos_quality import Bench
from torch import Tensor

import faithmap as fm
from faithmap.methods.base import Explainer
from faithmap.methods.masks.masker_files import read_masker
from faithmap.methods.registry import METHODS
from faithmap.metrics import PROTOCOLS

CELLS = 28
OWN = "own"
"""The maps' own resolution, in the tables and in the file."""


def explainers(model: fm.Classifier, options: argparse.Namespace) -> Iterator[tuple[str, Explainer]]:
    """The selected methods, in the registry's order."""
    settings = {"seed": options.seed, "chunk_size": options.chunk, "autocast": autocast(options)}
    for name, method in METHODS.items():
        if (options.only and name not in options.only) or name in options.skip:
            continue
        if "masker" not in method.needs or options.known:
            yield name, method.explainer(model, **settings)
        elif options.masker is not None:
            yield name, fm.LearnedMask(model, masker=read_masker(options.masker, model), **settings)


def entry(name: str, protocol: str, at: str) -> str:
    """The name of a method's row in the file."""
    return f"{name}, {protocol}, {at}"


def measure(bench: Bench, name: str, explainer: Explainer, steps: int | None) -> str | None:
    """Evaluate one method where the file has no result; the reason if it does not support the model."""
    for photo, image in zip(bench.photos, bench.images.split(1), strict=True):
        known = {key[1] for key in bench.results.rows if key[0] == photo}
        if {entry(name, protocol, at) for protocol in PROTOCOLS for at in (OWN, f"{CELLS}")} <= known:
            continue
        try:
            start = time.perf_counter()
            explanation = explainer(image)
            seconds = time.perf_counter() - start
        except (ValueError, NotImplementedError, ImportError) as error:
            return str(error)
        for row in list(evaluated(bench, name, photo, image, explanation, seconds, steps)):
            bench.results.add(row)
    return None


def evaluated(
    bench: Bench, name: str, photo: str, image: Tensor, explanation: fm.Explanation, seconds: float, steps: int | None
) -> Iterator[Row]:
    """The four results of one map; two if its own resolution is 28x28."""
    passes = [explanation.diagnostics[0][f"{kind}_passes"] for kind in ("forward", "backward")]
    own = explanation.resolution == (CELLS, CELLS) and explanation.rows is None
    maps: dict[str, fm.Explanation | Tensor] = (
        {OWN: explanation} if own else {OWN: explanation, f"{CELLS}": explanation.at((CELLS, CELLS))}
    )
    for protocol in PROTOCOLS.values():
        for at, heatmap in maps.items():
            curves = fm.deletion_insertion(
                bench.model, image, heatmap, explanation.target, protocol=protocol, steps=steps, chunk_size=bench.chunk
            )
            areas = curves.deletion.area.item(), curves.insertion.area.item()
            for label in (OWN, f"{CELLS}") if own else (at,):
                yield Row(photo, entry(name, protocol.name, label), explanation.resolution[0], *areas, seconds, *passes)


def report(results: Results, photos: list[str], names: list[str], protocol: str, at: str) -> str:
    """One table, with differences to the best, paired over the photographs that both have."""
    known = {(row.photo, row.method): row for row in results.rows.values()}
    found: dict[str, dict[str, Row]] = {}
    for name in names:
        rows = {photo: row for photo in photos if (row := known.get((photo, entry(name, protocol, at))))}
        if rows:
            found[name] = rows
    order = sorted(found, key=lambda name: -sum(row.difference for row in found[name].values()) / len(found[name]))
    best, lines = max(found.values(), key=lambda rows: (len(rows), sum(row.difference for row in rows.values()))), []
    for name in order:
        rows = found[name]
        some = list(rows.values())
        values = [row.difference for row in some]
        areas = [with_error([getattr(row, curve) for row in some]) for curve in ("deletion", "insertion")]
        costs = [f"{sum(getattr(row, kind) for row in some) / len(some):.0f}" for kind in ("forward", "backward")]
        both = [photo for photo in rows if photo in best]
        paired = [[side[photo].difference for photo in both] for side in (rows, best)]
        last = [" + ".join(costs), f"{len(rows)}"]
        to_best = "" if rows is best else difference(*paired)
        lines.append([name, f"{some[0].resolution}", *areas, with_error(values), to_best, *last])
    return table(["method", "rows", "deletion", "insertion", "ins - del", "to the best", "passes", "photographs"], lines)


def main() -> None:
    """Measure, print, save."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=8)
    parser.add_argument("--only", nargs="+", default=None, help="methods, by name; all without it")
    parser.add_argument("--skip", nargs="*", default=[], help="methods, by name")
    parser.add_argument("--masker", type=Path, default=None, help="file of the learned mask")
    parser.add_argument("--steps", type=int, default=None, help="of every curve, instead of the protocol's own number")
    parser.add_argument("--known", action="store_true", help="print the results in the file, without measuring")
    parser.add_argument("--save", type=Path, default=None, help="CSV of every score; results in it are not measured again")
    options = parser.parse_args()
    bench = Bench.open(options)
    out: dict[str, str] = {}
    names = []
    for name, explainer in explainers(bench.model, options):
        obstacle = None if options.known else measure(bench, name, explainer, options.steps)
        if obstacle is None:
            names.append(name)
        else:
            out[name] = obstacle
        print(f"{name} {'done' if obstacle is None else obstacle}", file=sys.stderr, flush=True)
    head = f"{options.model}, {len(bench.photos)} photographs ({options.part}), autocast {options.autocast}"
    head += "" if options.steps is None else f", {options.steps} steps"
    for protocol in PROTOCOLS:
        for at in (OWN, f"{CELLS}"):
            cells = "maps at their own resolution" if at == OWN else f"maps at {CELLS}x{CELLS}"
            print(f"\n{head}, protocol {protocol}, {cells}\n")
            print(report(bench.results, bench.photos, names, protocol, at), flush=True)
    for name, obstacle in out.items():
        print(f"\n{name} is left out: {obstacle}")


if __name__ == "__main__":
    main()
