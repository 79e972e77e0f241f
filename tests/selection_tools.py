"""A simulated clock, methods with known maps and times, and choices from given scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request
from faithmap.methods.controls import RandomMap
from faithmap.selection import Choice, Ranked, ScoreName, choose

EVALUATION_PASSES = 2 * 51 + 1
"""Forward passes of the evaluation of a map: 51 points of both curves, and the clean image."""

AREAS: ScoreName = "insertion_minus_deletion"
"""The score that takes these passes."""


LAYER_PASSES = 8
"""Passes of the search for a target layer, over noise of the size of one image."""

TIMING_SECONDS = 0.01 * (4 * (3 + 2 * 3) + LAYER_PASSES)
"""Seconds of the timing: with 4 images three times a forward pass and three times the two of a gradient; and the search."""


class Timed(nn.Module):
    """The score depends on the middle of the image; each image takes 0.01 s of a simulated clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.now += 0.01 * len(x)
        z = 12 * (x[:, :, 6:10, 6:10].mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([z, -z], dim=1)

    def clock(self) -> float:
        return self.now


@dataclass(eq=False)
class Given(Explainer):
    """A known map, bright in the middle by a degree; takes a number of passes and estimates another."""

    degree: float = 1.0
    cost: int = 1
    estimate: int | None = 1
    fails: bool = False
    explained: list[int] = field(default_factory=list)

    def passes(self, image: Tensor) -> Passes | None:
        return None if self.estimate is None else Passes(self.estimate, 0)

    def _explain(self, request: Request) -> RawHeatmap:
        if self.fails and self.explained:
            raise ValueError("no second map")
        self.explained.append(len(request.images))
        for _ in range(self.cost - 1):
            self.model(request.images)
        heatmap = torch.rand(1, 16, 16, generator=request.generators[0]) * (1 - abs(self.degree))
        heatmap[:, 6:10, 6:10] += self.degree
        return RawHeatmap(heatmap, [{"forward_passes": self.cost, "backward_passes": 0}])


def bright_images(count: int) -> list[Tensor]:
    noise = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.4
    noise[..., 6:10, 6:10] += 0.55
    return list(noise.split(1))


def run(model: Timed, explainers: Mapping[str, Explainer], count: int = 3, budget: float = 1000.0, **settings: Any) -> Choice:
    explainers = {**explainers, "random_map": RandomMap(model, resolution=8)}
    images = bright_images(count)
    settings.setdefault("score", AREAS)
    return choose(model, images, explainers=explainers, budget=budget, resolution=8, clock=model.clock, **settings)


def left_out(choice: Choice) -> list[tuple[Any, ...]]:
    return [(out.name, out.reason, out.seconds) for out in choice.left_out]


class Slow(Given):
    """Reports progress after each pass, and takes more passes with every image."""

    def _explain(self, request: Request) -> RawHeatmap:
        for step in range(self.cost * (1 + len(self.explained))):
            self.model(request.images)
            request.progress(step + 1, self.cost * (1 + len(self.explained)))
        return super()._explain(request)


def choice_of(**scores: list[float]) -> Choice:
    """A choice from scores; the last letter of a name states the time per image, c a control."""
    rows = [
        Ranked(name, name.endswith("c"), torch.tensor(values), Passes(1, 0), {"s": 10.0, "f": 1.0}.get(name[-1], 0.1))
        for name, values in scores.items()
    ]
    return Choice("insertion_minus_deletion", tuple(sorted(rows, key=lambda r: -r.mean)), (), 60.0, 10.0)


SPREAD = torch.linspace(-0.1, 0.1, 20)


def around(mean: float, seed: int, noise: float = 0.02) -> list[float]:
    values: list[float] = (mean + SPREAD + noise * torch.randn(20, generator=torch.Generator().manual_seed(seed))).tolist()
    return values
