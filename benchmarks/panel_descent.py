r"""Candidates for the default method: rank descent under removals that change in every iteration.

    python benchmarks/jury.py --photos ../shared/photos --part all --count 20 --methods "panel descent" "rank descent" Grad-CAM

Each iteration takes the next of several removals; every second round of them is of the mirrored image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

import faithmap as fm
from faithmap.baselines import Baseline, family_of
from faithmap.methods.base import RawHeatmap, Request
from faithmap.methods.masks.base import mask_probe
from faithmap.methods.masks.rank_descent import TAIL, RankDescent, normalised, ranks
from faithmap.methods.references import GOLDEN
from faithmap.probe import MaskProbe
from faithmap.seeds import uniform


def flipped(z: Float[Tensor, "m c h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
    """The mirrored images."""
    del index
    return z.flip(-1)


@dataclass(eq=False)
class PanelDescent(RankDescent):
    """Rank descent under several removals.

    Args:
        removals: one after the other, one in each iteration.
        mirrored: whether every second round of removals is of the mirrored image.
        trust: pull towards the prior's ranks in each step, in parts of the step.
    """

    title: ClassVar[str] = "panel descent"
    removals: tuple[Baseline, ...] = ()
    mirrored: bool = True
    trust: float = 0.0

    def optimises(self, baseline: Baseline | None = None) -> tuple[str, ...]:
        """All kinds of removal.

        Args:
            baseline: is not used.
        """
        del baseline
        return tuple(sorted({family_of(removal) for removal in self.removals}))

    def _explain(self, request: Request) -> RawHeatmap:
        heatmaps, diagnostics = [], []
        for image in range(len(request.images)):
            row = torch.tensor([image], device=request.images.device)
            probes = [mask_probe(self, request, row.repeat(2), removal) for removal in self.removals]
            h, record = self._start(request, image)
            heatmaps.append(self._descend_all(probes, request, image, h))
            diagnostics.append(record)
        return RawHeatmap(torch.cat(heatmaps), diagnostics)

    def _descend_all(
        self, probes: list[MaskProbe], request: Request, image: int, h: Float[Tensor, "1 r c"]
    ) -> Float[Tensor, "1 r c"]:
        start, prior = uniform((1,), request.generators[image]).to(h), h.clone()
        v, mean, weight = torch.zeros_like(h), torch.zeros_like(h), 0
        for k in range(self.iterations):
            t, t_insertion = (start + k * GOLDEN) % 1, (start + k * GOLDEN + 0.5) % 1
            mirrored = self.mirrored and k // len(probes) % 2 == 1
            g = self.gradient(probes[k % len(probes)], ranks(h), t, t_insertion, flipped if mirrored else None)
            v = self.momentum * v + (1 - self.momentum) * normalised(g)
            h = h - self.step * normalised(v)
            if self.trust:
                h = h + self.step * self.trust * normalised(prior - ranks(h))
            weight += (k + 1) ** TAIL
            mean += (h - mean) * (k + 1) ** TAIL / weight
        return mean


BLURS: tuple[Baseline, ...] = (fm.Blur(None, 15.0), fm.Blur(None, 30.0), fm.Blur(None, 60.0))
COLOURS: tuple[Baseline, ...] = (fm.Mean(), fm.Constant((0.8, 0.3, 0.2)), fm.Constant((0.2, 0.4, 0.8)), fm.Constant(0.25))


def candidates(model: fm.Classifier, shared: dict[str, Any]) -> dict[str, fm.Explainer]:
    """The rows that ``jury.py`` can measure."""
    mixed = tuple(removal for pair in zip((*BLURS, BLURS[1]), COLOURS, strict=True) for removal in pair)
    return {
        "panel descent": PanelDescent(model, **shared, removals=mixed),
        "panel descent, not mirrored": PanelDescent(model, **shared, removals=mixed, mirrored=False),
        "panel descent, 50 iterations": PanelDescent(model, **shared, removals=mixed, iterations=50),
        "panel descent, trust": PanelDescent(model, **shared, removals=mixed, trust=0.3),
        "panel descent, all kinds": PanelDescent(model, **shared, removals=(*mixed, fm.Noise(), fm.Shuffled())),
        "panel descent, blurs": PanelDescent(model, **shared, removals=BLURS),
    }
