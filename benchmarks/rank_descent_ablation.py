"""Ablation of rank descent: areas and stability without each of its parts, or with an alternative in its place.

    python benchmarks/rank_descent_ablation.py --photos ../shared/photos --count 12 --autocast bfloat16

Uses the even photographs. ``steady`` and ``seeds`` are those of tune_rank_descent.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from jaxtyping import Float
from torch import Tensor
from tune_rank_descent import Variant, opened, options_of, report

import faithmap as fm
from faithmap.methods.masks import rank_descent
from faithmap.probe import Disturbance, MaskProbe


@dataclass(eq=False)
class OneCurve(fm.RankDescent):
    """Both passes of an iteration are spent on one curve, at two fractions t."""

    curve: str = "deletion"

    def gradient(
        self, probe: MaskProbe, u: Tensor, t: Tensor, t_insertion: Tensor, disturb: Disturbance | None = None
    ) -> Tensor:
        """The gradient of the area under that curve."""
        shares = torch.cat([t, t_insertion])
        selected = torch.sigmoid((u - (1 - shares.view(-1, 1, 1))) / self.softness)
        masks = 1 - selected if self.curve == "deletion" else selected
        gradient = probe.gradients(masks, torch.arange(2, device=u.device), torch.ones_like(shares), disturb)
        gradient = (gradient * selected * (1 - selected) / self.softness).sum(dim=0, keepdim=True)
        return rank_descent.blurred(-gradient, self.smoothing)


@dataclass(eq=False)
class RandomFractions(fm.RankDescent):
    """Fractions t drawn at random instead of the low-discrepancy sequence."""

    def gradient(
        self, probe: MaskProbe, u: Tensor, t: Tensor, t_insertion: Tensor, disturb: Disturbance | None = None
    ) -> Tensor:
        """The gradient at fractions whose seed is made from those of the sequence."""
        generator = torch.Generator().manual_seed(int(float(t + t_insertion) * 2**24))
        drawn = torch.rand(2, generator=generator).to(u)
        return super().gradient(probe, u, drawn[:1], drawn[1:], disturb)


@dataclass(eq=False)
class Noisy(fm.RankDescent):
    """Normal noise in the image of each pass, as in I-GOS."""

    noise: float = 0.02

    def gradient(
        self, probe: MaskProbe, u: Tensor, t: Tensor, t_insertion: Tensor, disturb: Disturbance | None = None
    ) -> Tensor:
        """The gradient on noisy images."""
        del disturb
        generator = torch.Generator().manual_seed(int(float(t) * 2**24))

        def noisy(images: Float[Tensor, "m c h w"], index: Tensor) -> Float[Tensor, "m c h w"]:
            del index
            return images + self.noise * torch.randn(images.shape, generator=generator).to(images)

        return super().gradient(probe, u, t, t_insertion, noisy)


def scaled(h: Float[Tensor, "m r c"]) -> Float[Tensor, "m r c"]:
    """Values scaled to [0, 1], in place of ranks."""
    low, high = h.amin(dim=(1, 2), keepdim=True), h.amax(dim=(1, 2), keepdim=True)
    return ((h - low) / (high - low)).where(high > low, 0.5)


def tail(power: float) -> AbstractContextManager[Any]:
    """Another weight of the iterations in the mean."""
    return patch.object(rank_descent, "TAIL", power)


def variants(whole: fm.RankDescent) -> Iterator[Variant]:
    """Rank descent, then its variants."""
    settings: dict[str, Any] = {
        name: getattr(whole, name) for name in ("model", "resolution", "seed", "chunk_size", "autocast")
    }
    yield "rank descent", whole, nullcontext()
    yield "without a prior", replace(whole, prior=None), nullcontext()
    yield "no prior, its passes for the descent: 30 iterations", replace(whole, prior=None, iterations=30), nullcontext()
    yield "Grad-CAM for a prior", replace(whole, prior=fm.GradCAM(whole.model, relu=False)), nullcontext()
    drawn = fm.ExpectedFusedCAM(whole.model, relu=False, gradient=fm.Expected(samples=whole.prior_samples))
    yield "the prior's samples drawn at random", replace(whole, prior=drawn), nullcontext()
    yield "the prior alone", replace(whole, iterations=1, step=1e-6), nullcontext()
    yield "deletion alone", OneCurve(**settings), nullcontext()
    yield "insertion alone", OneCurve(**settings, curve="insertion"), nullcontext()
    yield "values for ranks", replace(whole), patch.object(rank_descent, "ranks", scaled)
    yield "random fractions t", RandomFractions(**settings), nullcontext()
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
