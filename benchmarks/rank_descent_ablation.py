"""What each ingredient of rank descent gives: the areas and the steadiness without it, or with what was tried in its place.

    python benchmarks/rank_descent_ablation.py --photos ../shared/photos --count 12 --autocast bfloat16

The even photographs. ``steady`` and ``seeds`` as in tune_rank_descent.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import arguments, autocast, difference, table, with_error
from igos_quality import Bench
from jaxtyping import Float
from torch import Tensor
from tune_rank_descent import steadiness

import faithmap as fm
from faithmap.masking import MaskedModel
from faithmap.methods import rank_descent


@dataclass(eq=False)
class OneGame(fm.RankDescent):
    """Both passes of an iteration go to one game, at two moments."""

    game: str = "deletion"

    def gradient(self, masked: MaskedModel, u: Tensor, t: Tensor, other: Tensor) -> Tensor:
        """As of both games, but the other game's part is that of this one, at its moment."""
        shares = torch.cat([t, other])
        went = torch.sigmoid((u - (1 - shares.view(-1, 1, 1))) / self.softness)
        shown = 1 - went if self.game == "deletion" else went
        slope = masked.gradients(shown, torch.arange(2, device=u.device), torch.ones_like(shares))
        slope = (slope * went * (1 - went) / self.softness).sum(dim=0, keepdim=True)
        return rank_descent.blurred(-slope, self.smoothing)


@dataclass(eq=False)
class RandomMoments(fm.RankDescent):
    """Uniform moments instead of the golden section's."""

    def gradient(self, masked: MaskedModel, u: Tensor, t: Tensor, other: Tensor) -> Tensor:
        """At moments that follow from those of the golden section as noise does."""
        generator = torch.Generator().manual_seed(int(float(t + other) * 2**24))
        moments = torch.rand(2, generator=generator).to(u)
        return super().gradient(masked, u, moments[:1], moments[1:])


@dataclass(eq=False)
class Noisy(fm.RankDescent):
    """Normal noise in the image of each pass, as I-GOS has it."""

    noise: float = 0.02

    def gradient(self, masked: MaskedModel, u: Tensor, t: Tensor, other: Tensor) -> Tensor:
        """Of disturbed images."""
        generator = torch.Generator().manual_seed(int(float(t) * 2**24))

        def disturb(images: Float[Tensor, "m c h w"], index: Tensor) -> Float[Tensor, "m c h w"]:
            del index
            return images + self.noise * torch.randn(images.shape, generator=generator).to(images)

        with patch.object(masked, "gradients", partial(masked.gradients, disturb=disturb)):
            return super().gradient(masked, u, t, other)


def scaled(h: Float[Tensor, "m r c"]) -> Float[Tensor, "m r c"]:
    """From 0 to 1 by the values, where places go by the order."""
    low, high = h.amin(dim=(1, 2), keepdim=True), h.amax(dim=(1, 2), keepdim=True)
    return ((h - low) / (high - low)).where(high > low, 0.5)


def tail(power: float) -> AbstractContextManager[Any]:
    """Another weight of the iterations in the mean."""
    return patch.object(rank_descent, "TAIL", power)


def variants(whole: fm.RankDescent) -> Iterator[tuple[str, fm.RankDescent, AbstractContextManager[Any]]]:
    """Rank descent, then what it is without each of its parts."""
    settings: dict[str, Any] = {
        name: getattr(whole, name) for name in ("model", "resolution", "seed", "chunk_size", "autocast")
    }
    yield "rank descent", whole, nullcontext()
    yield "without a prior", replace(whole, prior=None), nullcontext()
    yield "its passes to the descent: 30 iterations", replace(whole, prior=None, iterations=30), nullcontext()
    yield "Grad-CAM for a prior", replace(whole, prior=fm.GradCAM(whole.model, relu=False)), nullcontext()
    yield "the prior alone", replace(whole, iterations=1, step=1e-6), nullcontext()
    yield "deletion alone", OneGame(**settings), nullcontext()
    yield "insertion alone", OneGame(**settings, game="insertion"), nullcontext()
    yield "values for places", replace(whole), patch.object(rank_descent, "places", scaled)
    yield "random moments", RandomMoments(**settings), nullcontext()
    yield "without momentum", replace(whole, momentum=0.0), nullcontext()
    yield "the mean weighted by the 25th power", replace(whole), tail(25.0)
    yield "the plain mean", replace(whole), tail(0.0)
    yield "harder edges, tau 0.01", replace(whole, softness=0.01), nullcontext()
    yield "softer edges, tau 0.2", replace(whole, softness=0.2), nullcontext()
    yield "noise of 0.02 in the images", Noisy(**settings), nullcontext()
    yield "more prior: 22 iterations, 16 samples", replace(whole, iterations=22, prior_samples=16), nullcontext()
    yield "half the passes: 12 iterations, 6 samples", replace(whole, iterations=12, prior_samples=6), nullcontext()


def report(bench: Bench, options: argparse.Namespace) -> str:
    """One table, with paired differences to the whole."""
    settings = {"seed": options.seed, "chunk_size": options.chunk, "autocast": autocast(options)}
    lines: list[list[str]] = []
    ours: list[float] | None = None
    for name, explain, changed in variants(fm.RankDescent(bench.model, resolution=options.resolution, **settings)):
        if options.only is not None and lines and name not in options.only:
            continue
        with changed:
            found = bench.measure(name, options.resolution, explain)
            steady, seeds = steadiness(bench, explain, options.steady)
        values = [row.difference for row in found]
        ours = values if ours is None else ours
        areas = [with_error([getattr(row, game) for row in found]) for game in ("deletion", "insertion")]
        lines.append([name, *areas, difference(values, ours), f"{steady:.2f}", f"{seeds:.2f}", f"{found[0].backward:.0f}"])
    return table(["", "deletion", "insertion", "ins - del to the whole", "steady", "seeds", "backwards"], lines)


def main() -> None:
    """Measure, print, save."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=12)
    parser.set_defaults(part="tune")
    parser.add_argument("--resolution", type=int, default=28)
    parser.add_argument("--only", nargs="+", default=None, help="of the rows, beside the first")
    parser.add_argument("--steady", type=int, default=4, help="photographs to see how steady the maps are")
    parser.add_argument("--save", type=Path, default=None, help="CSV of every score; what is in it is not measured again")
    options = parser.parse_args()
    bench = Bench.open(options)
    side = f"{options.resolution}x{options.resolution}"
    print(f"\n{options.model}, {len(bench.photos)} photographs ({options.part}), {side}, autocast {options.autocast}\n")
    print(report(bench, options))


if __name__ == "__main__":
    main()
