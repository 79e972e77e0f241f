"""What the expectation buys: sensitivity to noise and average drop of CAMs, in the paper's frame and in that of Fused CAM.

    python benchmarks/cam_checks.py --photos ../shared/photos2 --part all --count 50

- ``sensitivity``: the largest relative change of the map under noise within 0.02 of each pixel, over three draws.
- ``drop``: the percentage by which the probability falls if the image is multiplied by its map, scaled to [0, 1].

Lower is better in both. Each is paired to Grad-CAM, and, for the expected gradients, to the plain gradient in the same frame.
"""

from __future__ import annotations

import sys

from common import arguments, autocast, difference, table, with_error
from igos_quality import Bench

import faithmap as fm
from faithmap.methods.base import Explainer
from faithmap.metrics.functional import confidence, sensitivity

PLAIN = {"expected_gradcam": "gradcam", "expected_fusedcam": "fusedcam"}
"""The method with the plain gradient in the same frame."""

CHECKS = ("sensitivity", "drop")


def checked(bench: Bench, explain: Explainer) -> dict[str, list[float]]:
    """Both numbers of each photograph."""
    values: dict[str, list[float]] = {check: [] for check in CHECKS}
    for image in bench.images.split(1):
        values["sensitivity"] += sensitivity(explain, image, draws=3, chunk_size=1).maximum.tolist()
        explanation = explain(image)
        values["drop"] += confidence(bench.model, image, explanation, explanation.target).drop.tolist()
    return values


def main() -> None:
    """Measure, print."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=50)
    parser.set_defaults(save=None)
    options = parser.parse_args()
    bench = Bench.open(options)
    shared = {"chunk_size": options.chunk, "autocast": autocast(options), "seed": options.seed}
    methods: dict[str, Explainer] = {
        "gradcam": fm.GradCAM(bench.model, **shared),
        "expected_gradcam": fm.ExpectedGradCAM(bench.model, **shared),
        "fusedcam": fm.FusedCAM(bench.model, **shared),
        "expected_fusedcam": fm.ExpectedFusedCAM(bench.model, **shared),
    }
    found: dict[str, dict[str, list[float]]] = {}
    rows = []
    for name, explain in methods.items():
        found[name] = checked(bench, explain)
        cells = []
        for check, values in found[name].items():
            plain = PLAIN.get(name)
            cells.append(with_error(values))
            cells.append("" if name == "gradcam" else difference(values, found["gradcam"][check]))
            cells.append("" if plain is None else difference(values, found[plain][check]))
        rows.append([name, *cells])
        print(*rows[-1], sep=" | ", file=sys.stderr)
    print(f"\n{options.model}, {len(bench.photos)} photographs ({options.part})\n")
    print(table(["method", *(f"{check}{more}" for check in CHECKS for more in ("", ", to Grad-CAM", ", to plain"))], rows))


if __name__ == "__main__":
    main()
