"""Parameter randomisation: Spearman correlation with the trained model's map if the last layers, or all weights, are random.

    python benchmarks/sanity_check.py --photos ../shared/photos --count 16

Prints a Markdown table: mean and standard error over photographs, and the share of constant maps of the random model.
"""

from __future__ import annotations

import warnings
from typing import get_args

from common import arguments, load_photos, table, with_error

import faithmap as fm
from faithmap.metrics.functional import ModelExplainer, randomisation
from faithmap.metrics.functional.randomisation import WeightDraw

STAGES = ("classifier", "conv_head", "blocks.6", "blocks.4")


def main() -> None:
    """Check every method under both kinds of random values, and print the table."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=16)
    options = parser.parse_args()
    model = fm.load(options.model).to(options.device)
    names, images = load_photos(options, model)
    methods: dict[str, ModelExplainer] = {
        "Grad-CAM": fm.GradCAM(model, chunk_size=options.chunk),
        "Grad-CAM, signed": fm.GradCAM(model, relu=False, chunk_size=options.chunk),
        "Eigen-CAM": fm.EigenCAM(model, chunk_size=options.chunk),
        "Layer-CAM, 14x14": fm.LayerCAM(model, target_layer="blocks.5.0.bn1", chunk_size=options.chunk),
    }
    rows = []
    for name, explainer in methods.items():
        for draw in get_args(WeightDraw):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", fm.FaithmapWarning)
                checked = randomisation(explainer, images, layers=[*STAGES, model], draw=draw, seed=options.seed)
            at = {layer: i for i, layer in enumerate(checked.layers)}
            order = [at[stage] for stage in (*STAGES, "the whole model")]
            flat = f"{float(checked.flat[:, order[-1]].double().mean()):.2f}"
            rows.append([name, draw, *(with_error(checked.spearman[:, i].tolist()) for i in order), flat])
    print(f"\nSpearman to the trained model's map, {options.model}, {len(names)} photographs ({options.part})\n")
    print(table(["method", "values", *(f"to {stage}" for stage in STAGES), "whole model", "flat"], rows))


if __name__ == "__main__":
    main()
