"""Stability of rank descent, its dependence on the model, and adversarial images; with its prior and I-GOS.

    python benchmarks/rank_descent_checks.py --photos ../shared/photos --count 4 --autocast bfloat16

- ``sensitivity``: the largest relative change of the map under noise within 0.02 of each pixel, over three draws; maps are
  compared as the ranks of their cells, so that scales cannot differ. ``paired``: the difference to rank descent.
- ``seeds``: Spearman between the maps of two seeds.
- ``random model``: Spearman to the map of the model with random weights throughout (less is better), maps without their sign.
- ``adversarial``: Spearman between the maps of an image and of its MI-FGSM example, and the share of the cells that has to be
  inserted for half of the score, for both.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import torch
from common import arguments, autocast, difference, table, with_error
from igos_quality import Bench
from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.methods.base import Explainer, RawHeatmap, Request
from faithmap.methods.masks.rank_descent import ranks
from faithmap.metrics.functional import adversarial_check, randomisation, sensitivity, spearman

CELLS = 28


@dataclass(eq=False)
class Ranks(Explainer):
    """Another explainer's map at 28x28 cells, as the ranks of its cells."""

    inner: Explainer | None = None

    def _explain(self, request: Request) -> RawHeatmap:
        assert self.inner is not None
        inner = replace(self.inner, model=self.model)
        explanation = inner(request.images, request.score.classes, generator=request.generators)
        return RawHeatmap(ranks(explanation.at((CELLS, CELLS))), [dict(record) for record in explanation.diagnostics])


def row(
    explain: Ranks, images: Float[Tensor, "n 3 h w"], layers: list[str | torch.nn.Module], reference: list[float] | None
) -> tuple[list[float], list[str]]:
    """All checks of one method; its sensitivity image by image, and cells of the table."""
    largest = sensitivity(explain, images, draws=3).maximum.tolist()
    paired = "" if reference is None else difference(largest, reference)
    other = replace(explain, seed=explain.seed + 1)(images)
    random_model = randomisation(explain, images, layers=layers, seed=explain.seed).spearman[:, -1].tolist()
    attacked = adversarial_check(explain, images, seed=explain.seed)
    needed = [with_error(values.tolist()) for values in (attacked.clean_needed, attacked.adversarial_needed)]
    same = f"{float(spearman(attacked.clean, attacked.adversarial).mean()):.2f}"
    seeds = f"{float(spearman(explain(images), other).mean()):.2f}"
    return largest, [with_error(largest), paired, seeds, with_error(random_model), same, *needed]


def main() -> None:
    """Check, print."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=4)
    parser.add_argument(
        "--only", nargs="+", default=None, help="of the rows; the first is the one that the others are paired to"
    )
    parser.set_defaults(save=None)
    options = parser.parse_args()
    bench = Bench.open(options)
    images = bench.images
    shared = {"chunk_size": options.chunk, "autocast": autocast(options), "seed": options.seed}
    methods = {
        "rank descent": fm.RankDescent(bench.model, **shared),
        "Expected Fused CAM": fm.ExpectedFusedCAM(bench.model, **shared),
        "I-GOS": fm.IGOS(bench.model, **shared),
    }
    reference: list[float] | None = None
    rows = []
    for name, explain in methods.items():
        if options.only and name not in options.only:
            continue
        ranked = Ranks(bench.model, inner=explain, seed=options.seed)
        largest, cells = row(ranked, images, ["classifier", bench.model], reference)
        reference = reference or largest
        rows.append([name, *cells])
        print(*rows[-1], sep=" | ", file=sys.stderr)
    print(f"\n{options.model}, {len(images)} photographs ({options.part}), autocast {options.autocast}\n")
    header = ["method", "sensitivity", "paired", "seeds", "random model", "adversarial", "needed", "needed of the adversarial"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
