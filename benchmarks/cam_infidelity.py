"""Infidelity of the named class activation maps: how well each predicts the change of the score when squares turn black.

    python benchmarks/cam_infidelity.py --photos ../shared/photos --count 16 --autocast bfloat16

Random squares turn black. The value of a map at a pixel is the predicted fall of the score if the pixel is removed; each map is
multiplied by its best factor. The table has the unexplained share, in [0, 1]; a map of zeros has 1. The draws are the same for
all maps. Differences are paired. ``--figure`` draws the infidelity itself, in squared units of the score, on a logarithmic
axis, as in Figure 4b of the Expected Grad-CAM paper.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cam_quality import named
from common import arguments, autocast, difference, load_photos, random_map, spread, table, with_error
from matplotlib.figure import Figure

import faithmap as fm
from faithmap.metrics.functional import infidelity
from faithmap.viz import save_figure


def bars(values: Mapping[str, Sequence[float]]) -> Figure:
    """The mean of every method with its standard error, the lowest at the top."""
    means = {name: spread(of) for name, of in sorted(values.items(), key=lambda pair: -spread(pair[1])[0])}
    figure = Figure(figsize=(6.4, 0.9 + 0.3 * len(means)), layout="constrained")
    ax = figure.add_subplot()
    ax.errorbar(
        [mean for mean, _ in means.values()],
        list(means),
        xerr=[error for _, error in means.values()],
        fmt="o",
        color="#0072b2",
        ecolor="0.4",
        capsize=2,
    )
    ax.set_xscale("log")
    ax.set_xlabel("infidelity, with standard error; lower is more faithful", size=9)
    ax.grid(visible=True, axis="x", which="both", alpha=0.25, linewidth=0.6)
    ax.tick_params(which="both", labelsize=7)
    return figure


def main() -> None:
    """One row per method."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=16)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--perturbation", choices=("gaussian", "square"), default="square")
    parser.add_argument("--skip", nargs="*", default=["scorecam", "ablationcam"], help="named methods that take too long")
    parser.add_argument("--figure", type=Path, help="PNG file for a figure of the infidelity on a logarithmic axis")
    options = parser.parse_args()
    model = fm.load(options.model, device=options.device)
    names, images = load_photos(options, model)
    explainers = {name: explain for name, explain in named(model, options) if name not in options.skip}
    explainers["random"] = lambda image: random_map(image, 28, options.seed)
    found: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    for name, explain in explainers.items():
        values, errors[name] = [], []
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
            errors[name].append(float(result.value))
        found[name] = values
        print(f"{name} done", file=sys.stderr)
    rows = [[name, with_error(v), "" if name == "gradcam" else difference(v, found["gradcam"])] for name, v in found.items()]
    print(f"\n{options.model}, {len(names)} photographs ({options.part}), {options.draws} draws of {options.perturbation}\n")
    print(table(["method", "unexplained", "to gradcam"], rows))
    if options.figure is not None:
        save_figure(bars(errors), options.figure)


if __name__ == "__main__":
    main()
