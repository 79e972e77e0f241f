"""Infidelity of the named class activation maps: how well each predicts the change of the score when squares turn black.

    python benchmarks/cam_infidelity.py --photos ../shared/photos --count 16 --autocast bfloat16

Random squares turn black. The value of a map at a pixel is the predicted fall of the score if the pixel is removed; each map is
multiplied by its best factor. The table has the unexplained share, in [0, 1]; a map of zeros has 1. The draws are the same for
all maps. Differences are paired.
"""

from __future__ import annotations

import sys

from cam_quality import named
from common import arguments, autocast, difference, load_photos, random_map, table, with_error

import faithmap as fm
from faithmap.metrics.functional import infidelity


def main() -> None:
    """One row per method."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=16)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--perturbation", choices=("gaussian", "square"), default="square")
    parser.add_argument("--skip", nargs="*", default=["scorecam", "ablationcam"], help="named methods that take too long")
    options = parser.parse_args()
    model = fm.load(options.model, device=options.device)
    names, images = load_photos(options, model)
    explainers = {name: explain for name, explain in named(model, options) if name not in options.skip}
    explainers["random"] = lambda image: random_map(image, 28, options.seed)
    found: dict[str, list[float]] = {}
    for name, explain in explainers.items():
        values = []
        for image in images.split(1):
            explanation = explain(image)
            result = infidelity(
                model,
                image,
                explanation,
                explanation.target,
                perturbation=options.perturbation,
                draws=options.draws,
                seed=options.seed,
                chunk_size=options.chunk,
                autocast=autocast(options),
            )
            values.append(float(result.unexplained))
        found[name] = values
        print(f"{name} done", file=sys.stderr)
    rows = [[name, with_error(v), "" if name == "gradcam" else difference(v, found["gradcam"])] for name, v in found.items()]
    print(f"\n{options.model}, {len(names)} photographs ({options.part}), {options.draws} draws of {options.perturbation}\n")
    print(table(["method", "unexplained", "to gradcam"], rows))


if __name__ == "__main__":
    main()
