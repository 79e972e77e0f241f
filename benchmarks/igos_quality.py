"""Deletion and insertion of I-GOS, other methods and rank descent at five resolutions; ablations of the paper's Table 4.

    python benchmarks/igos_quality.py --photos ../shared/photos

Prints one Markdown table for each resolution: means with standard errors over the photographs, and differences to I-GOS or
the row named by ``--reference``, paired photograph by photograph. Scores of different resolutions cannot be compared. Class
activation maps, Integrated Gradients and RISE explain each photograph once; their maps are resampled.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from common import Results, Row, arguments, autocast, difference, grad_cam, load_photos, random_map, table, with_error
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

import faithmap as fm
from faithmap.methods.base import Explainer
from faithmap.methods.masks.igos import IGOSObjective, PathNoise
from faithmap.probe import MaskProbe

ABLATED = (28, 224)
"""The resolutions of Table 4."""


@dataclass
class Resampled:
    """A method that explains each photograph once, its map resampled to any resolution."""

    explainer: Explainer
    known: dict[int, fm.Explanation] = field(default_factory=dict)

    def at(self, resolution: int) -> Callable[[Tensor], fm.Explanation]:
        """A function that explains at that resolution; a photograph is identified by its position in the batch."""

        def explain(image: Float[Tensor, "1 3 h w"]) -> fm.Explanation:
            position = int(image.storage_offset())
            if position not in self.known:
                self.known[position] = self.explainer(image)
            explanation = self.known[position]
            return replace(
                explanation, heatmap=averaged(explanation, resolution).at((resolution, resolution)), rows=None, columns=None
            )

        return explain


def averaged(explanation: fm.Explanation, resolution: int) -> fm.Explanation:
    """A map for sampling at a coarser resolution: each value is the mean over a neighbourhood of a coarse cell's size."""
    reach = [cells // resolution // 2 for cells in explanation.resolution]
    if not any(reach):
        return explanation
    smooth = F.avg_pool2d(
        explanation.heatmap.unsqueeze(1), [2 * r + 1 for r in reach], stride=1, padding=reach, count_include_pad=False
    )
    return replace(explanation, heatmap=smooth.squeeze(1))


class PathObjective(IGOSObjective):
    """The objective whose score is the mean over the path, without noise."""

    def score(self, masks: Float[Tensor, "m r c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The mean score over the path of each mask."""
        shares = torch.arange(1, self.path_points + 1, device=masks.device) / self.path_points
        path = (masks.unsqueeze(1) * shares.view(1, -1, 1, 1)).flatten(0, 1)
        return self.probe.scores(path, index.repeat_interleave(self.path_points)).view(len(masks), -1).mean(dim=1)


class PathSearch(fm.IGOS):
    """I-GOS as its public batched code searches: every candidate is evaluated by its mean over the path.

    Twenty times the cost of a search; here without the noise that the public code draws anew for each candidate.
    """

    def objective(self, probe: MaskProbe, noise: PathNoise) -> PathObjective:
        """The objective that the masks descend."""
        return PathObjective(probe, self.regulariser, self.path_points, noise)


def resampled_methods(model: fm.Classifier, options: argparse.Namespace) -> dict[str, Resampled]:
    """Methods whose maps have a resolution of their own."""
    shared = {"seed": options.seed, "chunk_size": options.chunk, "autocast": autocast(options)}
    return {
        "Expected Fused CAM, resampled": Resampled(fm.ExpectedFusedCAM(model, **shared)),
        "Integrated Gradients, resampled": Resampled(fm.IntegratedGradients(model, **shared)),
        "RISE, resampled": Resampled(fm.RISE(model, **shared)),
    }


def methods(
    model: fm.Classifier, resolution: int, options: argparse.Namespace, resampled: Mapping[str, Resampled]
) -> dict[str, Callable[[Tensor], fm.Explanation]]:
    """All rows of one resolution's table."""
    shared = {"resolution": resolution, "seed": options.seed, "chunk_size": options.chunk, "autocast": autocast(options)}
    rows: dict[str, Callable[[Tensor], fm.Explanation]] = {
        "I-GOS": fm.IGOS(model, **shared),
        "I-GOS, the paper's settings": fm.IGOS(model, **{**shared, **fm.IGOS.paper(resolution)}),
        "rank descent": fm.RankDescent(model, **shared),
        "I-GOS++": fm.IGOSPlusPlus(model, **shared),
        "Mask": fm.Mask(model, **shared),
        "Grad-CAM, resampled": lambda images: grad_cam(model, images, resolution),
        "random": lambda images: random_map(images, resolution, options.seed),
    }
    rows |= {name: method.at(resolution) for name, method in resampled.items()}
    if resolution in ABLATED:
        rows["no TV term"] = fm.IGOS(model, **shared, lambda2=0.0)
        rows["no noise"] = fm.IGOS(model, **shared, noise_std=0.0)
        rows["fixed step size"] = fm.IGOS(model, **shared, step=options.step * (resolution / 28) ** 2)
        rows["last mask, not the mean"] = fm.IGOS(model, **shared, average=False)
    if options.public and resolution == 28:
        rows["public code's search, lambdas and last mask"] = PathSearch(
            model, **shared, lambda1=1.0, lambda2=20.0, average=False
        )
    return {name: explain for name, explain in rows.items() if options.only is None or name in options.only}


@dataclass(frozen=True)
class Bench:
    """Photographs, the model, and what was measured so far."""

    model: fm.Classifier
    photos: list[str]
    images: Float[Tensor, "n 3 h w"]
    chunk: int
    results: Results

    @classmethod
    def open(cls, options: argparse.Namespace) -> Bench:
        """The model and the photographs of the options; warnings are off, since the scores show what they say.

        The weights are in channels-last layout, which makes a pass faster and changes scores by rounding alone.
        """
        warnings.simplefilter("ignore", fm.FaithmapWarning)
        model = fm.load(options.model, device=options.device).to(memory_format=torch.channels_last)
        return cls(model, *load_photos(options, model), options.chunk, Results(options.save))

    def measure(self, name: str, resolution: int, explain: Callable[[Tensor], fm.Explanation]) -> list[Row]:
        """Explain and score photographs one at a time, as in the paper's timing; stored results are not measured again."""
        rows = []
        for photo, image in zip(self.photos, self.images.split(1), strict=True):
            row = self.results.get(photo, name, resolution)
            if row is None:
                row = self._one(photo, name, resolution, image, explain)
                self.results.add(row)
            rows.append(row)
        print(f"{resolution}: {name} done", file=sys.stderr)
        return rows

    def _one(self, photo: str, name: str, resolution: int, image: Tensor, explain: Callable[[Tensor], fm.Explanation]) -> Row:
        start = time.perf_counter()
        explanation = explain(image)
        seconds = time.perf_counter() - start
        curves = fm.deletion_insertion(self.model, image, explanation, chunk_size=self.chunk)
        passes = explanation.diagnostics[0] if explanation.diagnostics else {}
        forward, backward = passes.get("forward_passes", 0), passes.get("backward_passes", 0)
        return Row(
            photo, name, resolution, curves.deletion.area.item(), curves.insertion.area.item(), seconds, forward, backward
        )


def report(rows: dict[str, list[Row]], reference: str) -> str:
    """One resolution's table, with differences to one of its rows, photograph by photograph."""
    reference = reference if reference in rows else next(iter(rows))
    ours = rows[reference]
    lines = []
    for name, theirs in rows.items():
        deletion, insertion = [row.deletion for row in theirs], [row.insertion for row in theirs]
        cells = [name, with_error(deletion), with_error(insertion), with_error([row.difference for row in theirs])]
        cells.append("" if name == reference else difference(deletion, [row.deletion for row in ours]))
        cells.append("" if name == reference else difference(insertion, [row.insertion for row in ours]))
        costs = [sum(getattr(row, cost) for row in theirs) / len(theirs) for cost in ("forward", "backward", "seconds")]
        lines.append([*cells, f"{costs[0]:.0f}", f"{costs[1]:.0f}", f"{costs[2]:.2f}"])
    header = ["method", "deletion", "insertion", "ins - del", f"deletion to {reference}", f"insertion to {reference}"]
    return table([*header, "forward passes", "backward passes", "seconds"], lines)


def main() -> None:
    """Measure, print, save."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[7, 14, 28, 112, 224])
    parser.add_argument(
        "--step", type=float, default=8.0, help="of the ablation with a fixed step size, at 28x28; in proportion to the cells"
    )
    parser.add_argument("--public", action="store_true", help="also the search of the public code, at 28: slow")
    parser.add_argument("--only", nargs="+", default=None, help="of the rows, such as I-GOS Mask")
    parser.add_argument("--reference", default="I-GOS", help="the row that the others are compared with")
    parser.add_argument("--save", type=Path, default=None, help="CSV of every score; results in it are not measured again")
    options = parser.parse_args()
    bench = Bench.open(options)
    resampled = resampled_methods(bench.model, options)
    for resolution in options.resolutions:
        rows = {
            name: bench.measure(name, resolution, explain)
            for name, explain in methods(bench.model, resolution, options, resampled).items()
        }
        print(f"\n{options.model}, {len(bench.photos)} photographs ({options.part}), {resolution}x{resolution}, ", end="")
        print(f"autocast {options.autocast}\n\n{report(rows, options.reference)}", flush=True)


if __name__ == "__main__":
    main()
