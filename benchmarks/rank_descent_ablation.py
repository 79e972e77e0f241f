"""What each ingredient of rank descent gives: the areas and the steadiness without it, or with what was tried in its place.

    python benchmarks/rank_descent_ablation.py --photos ../shared/photos --count 12 --autocast bfloat16

The even photographs. ``steady`` and ``seeds`` as in tune_rank_descent.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from jaxtyping import Float
from torch import Tensor
from tune_rank_descent import Variant, opened, options_of, report

import faithmap as fm
from faithmap.methods.masks import rank_descent
from faithmap.probe import MaskedModel


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


def variants(whole: fm.RankDescent) -> Iterator[Variant]:
    """Rank descent, then what it is without each of its parts."""
    settings: dict[str, Any] = {
        name: getattr(whole, name) for name in ("model", "resolution", "seed", "chunk_size", "autocast")
    }
    yield "rank descent", whole, nullcontext()
    yield "without a prior", replace(whole, prior=None), nullcontext()
    yield "its passes to the descent: 30 iterations", replace(whole, prior=None, iterations=30), nullcontext()
    yield "Grad-CAM for a prior", replace(whole, prior=fm.GradCAM(whole.model, relu=False)), nullcontext()
    drawn = fm.ExpectedGradCAM(whole.model, relu=False, gradient=fm.Expected(samples=whole.prior_samples))
    yield "the prior's samples drawn at random", replace(whole, prior=drawn), nullcontext()
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


def main() -> None:
    """Measure, print, save."""
    options = options_of(__doc__.splitlines()[0] if __doc__ else "", "of the rows, beside the first")
    bench, whole = opened(options)
    first, *others = variants(whole)
    chosen = [row for row in others if options.only is None or row[0] in options.only]
    print(report(bench, options, [first, *chosen], ("", "the whole")))


if __name__ == "__main__":
    main()
