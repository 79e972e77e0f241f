"""The choice of the defaults of Expected Fused CAM, and of our reading of Expected Grad-CAM: one setting after the other.

    python benchmarks/tune_expected.py --photos ../shared/photos --count 16 --autocast bfloat16
    python benchmarks/tune_expected.py --photos ../shared/photos --method expected_gradcam --only frame references noise paths

The even photographs are used for tuning, the odd ones for the results. Every map is evaluated at 14x14 cells, resampled if it
is coarser or finer. Prints one Markdown table per setting, with paired differences to the defaults, the Gini index of the maps
(high if few cells have most of the mass) and their entropy (1 if all cells are equal).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cam_quality import measure
from common import arguments, autocast, difference, table, with_error
from igos_quality import Bench

import faithmap as fm
from faithmap.methods.cams import Expected
from faithmap.methods.cams.estimators import Difference, Pool
from faithmap.metrics.functional import entropy, gini

RESOLUTION = 14

COMPLEX = 8
"""Number of photographs over which the Gini index and the entropy of the maps are averaged."""

Settings = Mapping[str, Any]


METHODS: dict[str, type[fm.CAM]] = {"expected_fusedcam": fm.ExpectedFusedCAM, "expected_gradcam": fm.ExpectedGradCAM}


def turned(default: fm.CAM, bench: Bench) -> dict[str, dict[str, Settings]]:
    """For each setting its values, and the arguments of the explainer that they change."""
    gradient = default.gradient
    assert isinstance(gradient, Expected)
    others = fm.ImageSet(bench.images)
    layers: dict[str, Any] = {
        "last": "bn2",
        "14x14": "blocks.5.0.bn1",
        "28x28": "blocks.3.0.bn1",
        "14x14, before the nonlinearity": "blocks.4",
        "last and 14x14": ["bn2", "blocks.5.0.bn1"],
        "last, 14x14 and 28x28": ["bn2", "blocks.5.0.bn1", "blocks.3.0.bn1"],
    }
    kinds: list[tuple[Difference, Pool]] = [
        ("none", "gradient"),
        ("reference", "map"),
        ("reference", "contribution"),
        ("path", "map"),
        ("increment", "map"),
        ("increment", "contribution"),
    ]
    references: dict[str, Any] = {
        "blurs": fm.RandomBlurs(),
        "weaker blurs": fm.RandomBlurs(2.0, 20.0),
        "black": "black",
        "noise": fm.RandomNoise(),
        "constants": fm.RandomConstants(),
        "other photographs": others,
    }
    return {
        "layer": {name: {"target_layer": layer} for name, layer in layers.items()},
        "weighting": {w: {"weighting": w} for w in ("grad_cam", "hires_cam", "layer_cam", "xgrad_cam", "grad_cam_plus_plus")},
        "difference, pool": {f"{d}, {p}": {"gradient": replace(gradient, difference=d, pool=p)} for d, p in kinds},
        "references": {name: {"gradient": replace(gradient, references=r)} for name, r in references.items()},
        "paths": {f"{n}": {"gradient": replace(gradient, paths=n)} for n in (1, 3, 6, 12)},
        "noise": {f"{s:g}": {"gradient": replace(gradient, noise_std=s)} for s in (0.0, 0.05, 0.1, 0.2)},
        "frame": {"plain gradient": {"gradient": fm.Plain()}},
        "estimator": {
            "plain": {"gradient": fm.Plain()},
            **{f"smooth, {s:g}": {"gradient": fm.Smooth(noise_std=s)} for s in (0.02, 0.1, 0.2)},
            **{f"integrated, {b}": {"gradient": fm.Integrated(baseline=b)} for b in ("black", "blur", "mean")},
        },
        "placement": {p: {"placement": p} for p in ("strides", "gradients", "tiles")},
        "samples": {f"{n}": {"gradient": replace(gradient, samples=n)} for n in (4, 8, 16, 24, 50)},
        "score": {s: {"score": s} for s in ("logit", "probability")},
        "signed": {f"{not r}": {"relu": r} for r in (True, False)},
    }


def main() -> None:
    """Measure every value of every setting on the tuning photographs, and print the tables."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=16)
    parser.set_defaults(part="tune")
    parser.add_argument("--method", choices=METHODS, default="expected_fusedcam")
    parser.add_argument("--only", nargs="+", default=None, help="settings, such as layer noise")
    parser.add_argument("--save", type=Path, default=None, help="CSV of every score; results in it are not measured again")
    options: argparse.Namespace = parser.parse_args()
    bench = Bench.open(options)
    shared: dict[str, Any] = {"seed": options.seed, "chunk_size": options.chunk, "autocast": autocast(options)}
    method = METHODS[options.method]
    default = method(bench.model, **shared)
    measure(bench, "default", default, [RESOLUTION])
    ours = [row.difference for photo in bench.photos if (row := bench.results.get(photo, "default", RESOLUTION))]
    for setting, values in turned(default, bench).items():
        if options.only is not None and setting not in options.only:
            continue
        lines = []
        for value, change in values.items():
            name = f"{setting}: {value}"
            measure(bench, name, method(bench.model, **shared, **change), [RESOLUTION])
            rows = [row for photo in bench.photos if (row := bench.results.get(photo, name, RESOLUTION))]
            found = [row.difference for row in rows]
            areas = [with_error([getattr(row, curve) for row in rows]) for curve in ("deletion", "insertion")]
            maps = method(bench.model, **shared, **change)(bench.images[:COMPLEX]).at((RESOLUTION, RESOLUTION))
            shapes = [f"{float(measured(maps).mean()):.3f}" for measured in (gini, entropy)]
            lines.append([value, *areas, with_error(found), difference(found, ours), *shapes])
        print(f"\n{method.title}, {options.model}, {len(bench.photos)} photographs ({options.part})\n")
        header = [setting, "deletion", "insertion", "ins - del", "to the default", "Gini", "entropy"]
        print(table(header, lines), flush=True)


if __name__ == "__main__":
    main()
