"""Iterations and seconds of ROAD's imputation, as ratios to the model's forward pass, against conjugate gradients alone.

    python benchmarks/road_speed.py --photos ../shared/photos --count 4 --repeat 5

The masks are those of ROAD itself: the most relevant pixels of Grad-CAM's maps. Conjugate gradients, with the operator's
diagonal as preconditioner, start at a flat colour or at a fill from a pyramid of means. They stop when their error is below the
tolerance of the multigrid solver; the check is not timed. The runs alternate, and a ratio is the median over the rounds, so
that a change of the machine's speed affects all of them.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable
from functools import partial

import torch
from common import arguments, autocast, load_photos, table
from igos_speed import seconds
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

import faithmap as fm
from faithmap.explanation import cell_ranks
from faithmap.metrics.functional import linear_imputation, road
from faithmap.metrics.functional.multigrid import finest, neighbours
from faithmap.metrics.functional.road import FRACTIONS, TOLERANCE
from faithmap.model import pass_autocast

Images = Float[Tensor, "m c h w"]
Masks = Bool[Tensor, "m h w"]


def forward(model: fm.Classifier, images: Images, chunk: int, dtype: torch.dtype | None) -> None:
    """Bare passes of the images."""
    with torch.no_grad(), pass_autocast(images.device, dtype):
        for part in images.split(chunk):
            model(part)


def imputed(images: Images, removed: Masks, chunk: int) -> None:
    """All masks, in chunks."""
    for part, mask in zip(images.split(chunk), removed.split(chunk), strict=True):
        linear_imputation(part, mask)


def multigrid_iterations(images: Images, removed: Masks) -> int:
    """The smallest number of iterations with which every mask meets the tolerance."""
    for count in range(1, 100):
        try:
            linear_imputation(images, removed, max_iterations=count)
        except RuntimeError:
            continue
        return count
    raise RuntimeError("no convergence")


def alone(images: Images, removed: Masks, start: Images, steps: int, stop: Callable[[Images], bool] | None = None) -> int:
    """Conjugate gradients without multigrid: at most ``steps`` iterations, until ``stop`` is true; returns their number."""
    level = finest(removed.unsqueeze(1).to(images.dtype))
    inverse = level.free / neighbours(torch.ones_like(level.free[:1]))
    x = start * level.free
    r = neighbours(images * (1 - level.free)) * level.free - level.operator(x)
    p = z = inverse * r
    rz = (r * z).sum(dim=(2, 3), keepdim=True)
    for done in range(steps):
        if stop is not None and stop(x):
            return done
        q = level.operator(p)
        step = rz / (p * q).sum(dim=(2, 3), keepdim=True)
        x, r = x + step * p, r - step * q
        z = inverse * r
        previous, rz = rz, (r * z).sum(dim=(2, 3), keepdim=True)
        p = z + rz / previous * p
    return steps


def flat_fill(images: Images, removed: Masks) -> Images:
    """The mean of the known pixels."""
    known = (~removed).unsqueeze(1)
    return ((images * known).sum(dim=(2, 3), keepdim=True) / known.sum(dim=(2, 3), keepdim=True)).expand_as(images)


def pyramid_fill(images: Images, known: Float[Tensor, "m 1 h w"]) -> Images:
    """Means of the known pixels on ever coarser grids; a removed pixel has the mean of the finest grid with a known pixel."""
    if max(known.shape[-2:]) == 1:
        return images
    weights = F.avg_pool2d(known, 2, ceil_mode=True)
    means = F.avg_pool2d(images * known, 2, ceil_mode=True) / weights.clamp(min=1e-12)
    coarse = pyramid_fill(means, (weights > 0).to(known.dtype))
    spread = F.interpolate(coarse, known.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(known > 0, images, spread)


def rows_of_solvers(
    model: fm.Classifier, images: Images, order: Tensor, options: argparse.Namespace, dtype: torch.dtype | None
) -> list[list[str]]:
    """One row for each fraction and solver."""
    rows, pixels = [], order[0].numel()
    for fraction in (0.1, 0.5, 0.9):
        removed = order < round(fraction * pixels)
        middle = flat_fill(images, removed)
        shifted = images - middle
        exact = linear_imputation(shifted.double(), removed, tolerance=1e-10)
        removed_pixels = removed.unsqueeze(1)

        def close(x: Images, exact: Tensor = exact, removed_pixels: Tensor = removed_pixels) -> bool:
            return bool(((x - exact) * removed_pixels).abs().max() < TOLERANCE)

        pyramid = pyramid_fill(shifted, (~removed_pixels).to(images.dtype))
        starts = {"conjugate gradients": torch.zeros_like(images), "the same from a pyramid": pyramid}
        solvers: dict[str, tuple[int, Callable[[], object]]] = {
            "multigrid": (multigrid_iterations(images, removed), partial(imputed, images, removed, options.chunk))
        }
        for name, start in starts.items():
            steps = alone(shifted, removed, start, 5000, close)
            solvers[name] = (steps, partial(alone, shifted, removed, start, steps))
        bare = partial(forward, model, images, options.chunk, dtype)
        works: list[Callable[[], object]] = [bare, *(work for _, work in solvers.values())]
        rounds = [[seconds(work, options.device) for work in works] for _ in range(options.repeat + 1)][1:]
        for column, (name, (steps, _)) in enumerate(solvers.items(), start=1):
            each = statistics.median(r[column] for r in rounds) / len(images)
            ratio = statistics.median(r[column] / r[0] for r in rounds)
            rows.append([f"{fraction}", name, f"{steps}", f"{each:.4f}", f"{ratio:.1f}"])
    return rows


def main() -> None:
    """Two tables: the solvers, and the whole metric."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=4)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    model = fm.load(options.model, device=options.device)
    _, images = load_photos(options, model)
    dtype, explanation = autocast(options), fm.GradCAM(model)(images)
    print(f"{options.model} on {options.device}, {len(images)} photographs, {torch.get_num_threads()} threads\n")
    header = ["removed", "solver", "iterations", "seconds an imputation", "ratio to a forward"]
    print(table(header, rows_of_solvers(model, images, cell_ranks(explanation.at()), options, dtype)))
    passes = 1 + 2 * len(FRACTIONS)
    bare = partial(forward, model, images.repeat_interleave(passes, dim=0), options.chunk, dtype)
    whole = partial(road, model, images, explanation, chunk_size=options.chunk, autocast=dtype)
    pairs = [(seconds(whole, options.device), seconds(bare, options.device)) for _ in range(options.repeat + 1)][1:]
    ours, ratio = (statistics.median(v) for v in ((mine / len(images) for mine, _ in pairs), (a / b for a, b in pairs)))
    print(f"\nROAD, {passes} passes per image: {ours:.2f} seconds per image, {ratio:.2f} times its bare forward passes")


if __name__ == "__main__":
    main()
