"""Deletion and insertion of I-GOS and Mask at five resolutions, and the ablations of the paper's Table 4.

    python benchmarks/igos_quality.py --photos ../shared/photos

Prints one Markdown table a resolution: means with standard errors over the photographs, and paired differences to I-GOS.
Scores of different resolutions cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from common import Row, arguments, autocast, difference, grad_cam, load_photos, random_map, save, table, with_error
from jaxtyping import Float, Int
from torch import Tensor

import faithmap as fm
from faithmap.masking import MaskedModel

ABLATED = (28, 224)
"""The resolutions of Table 4."""


class PathAccepted(fm.IGOS):
    """I-GOS as its public batched code searches: the mean over the path is asked for at every candidate, not the mask's end.

    Twenty times the cost of a search; here without the noise that the public code draws anew for each candidate.
    """

    def _objective(self, masked: MaskedModel, mask: Float[Tensor, "m r c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        shares = torch.arange(1, self.path_points + 1, device=mask.device) / self.path_points
        path = (mask.unsqueeze(1) * shares.view(1, -1, 1, 1)).flatten(0, 1)
        scores = masked.scores(path, index.repeat_interleave(self.path_points))
        return scores.view(len(mask), -1).mean(dim=1) + self.regulariser(mask)


def methods(
    model: fm.Classifier, resolution: int, options: argparse.Namespace
) -> dict[str, Callable[[Tensor], fm.Explanation]]:
    """All rows of one resolution's table."""
    shared = {"resolution": resolution, "seed": options.seed, "chunk_size": options.chunk, "autocast": autocast(options)}
    rows: dict[str, Callable[[Tensor], fm.Explanation]] = {
        "I-GOS": fm.IGOS(model, **shared),
        "Mask": fm.Mask(model, **shared),
        "Grad-CAM, resampled": lambda images: grad_cam(model, images, resolution),
        "random": lambda images: random_map(images, resolution, options.seed),
    }
    if resolution in ABLATED:
        rows["no TV term"] = fm.IGOS(model, **shared, lambda2=0.0)
        rows["no noise"] = fm.IGOS(model, **shared, normalized_noise_std=0.0)
        rows["fixed step size"] = fm.IGOS(model, **shared, step=options.step)
        rows["last mask, not the mean"] = fm.IGOS(model, **shared, average=False)
    if options.public and resolution == 28:
        rows["public code's search, lambdas and last mask"] = PathAccepted(
            model, **shared, lambda1=1.0, lambda2=20.0, average=False
        )
    return rows


def measure(
    name: str, explain: Callable[[Tensor], fm.Explanation], model: fm.Classifier, photos: list[str], images: Tensor, chunk: int
) -> list[Row]:
    """Explain and score photographs one at a time, as the paper times them."""
    rows = []
    for photo, image in zip(photos, images.split(1), strict=True):
        start = time.perf_counter()
        why = explain(image)
        seconds = time.perf_counter() - start
        played = fm.deletion_insertion(model, image, why, chunk_size=chunk)
        passes = why.diagnostics[0] if why.diagnostics else {}
        forward, backward = passes.get("forward_passes", 0), passes.get("backward_passes", 0)
        areas = played.deletion.area.item(), played.insertion.area.item()
        rows.append(Row(photo, name, why.resolution[0], *areas, seconds, forward, backward))
    return rows


def report(rows: dict[str, list[Row]]) -> str:
    """One resolution's table; differences are to I-GOS, photograph by photograph."""
    ours = rows["I-GOS"]
    lines = []
    for name, theirs in rows.items():
        deletion, insertion = [row.deletion for row in theirs], [row.insertion for row in theirs]
        cells = [name, with_error(deletion), with_error(insertion), with_error([row.difference for row in theirs])]
        cells.append("" if name == "I-GOS" else difference(deletion, [row.deletion for row in ours]))
        cells.append("" if name == "I-GOS" else difference(insertion, [row.insertion for row in ours]))
        costs = [sum(getattr(row, cost) for row in theirs) / len(theirs) for cost in ("forward", "backward", "seconds")]
        lines.append([*cells, f"{costs[0]:.0f}", f"{costs[1]:.0f}", f"{costs[2]:.2f}"])
    header = ["method", "deletion", "insertion", "ins - del", "deletion to I-GOS", "insertion to I-GOS"]
    return table([*header, "forwards", "backwards", "seconds"], lines)


def main() -> None:
    """Measure, print, save."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[7, 14, 28, 112, 224])
    parser.add_argument("--step", type=float, default=8.0, help="of the ablation with a fixed step size")
    parser.add_argument("--public", action="store_true", help="also search as the public code does, at 28: slow")
    parser.add_argument("--save", type=Path, default=None, help="CSV of every score")
    options = parser.parse_args()
    warnings.simplefilter("ignore", fm.FaithmapWarning)
    model = fm.load(options.model, device=options.device)
    photos, images = load_photos(options, model)
    everything: list[Row] = []
    for resolution in options.resolutions:
        rows = {}
        for name, explain in methods(model, resolution, options).items():
            rows[name] = measure(name, explain, model, photos, images, options.chunk)
            everything += rows[name]
            print(f"{resolution}: {name} done", file=sys.stderr)
            if options.save is not None:
                save(everything, options.save)
        print(
            f"\n{options.model}, {len(photos)} photographs ({options.part}), {resolution}x{resolution}\n\n{report(rows)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
