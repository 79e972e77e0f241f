"""Contest: methods play deletion and insertion on the same photographs, the cheapest first, for as long as there is time.

What a pass takes is measured on the first photograph, and what a method takes is estimated from it before any is run: those
that would break the budget are left out. When a method has done the first photograph, its own time takes the estimate's place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.cautions import FaithmapWarning
from faithmap.choosing.choice import SCORES, Choice, LeftOut, Ranked, ScoreName
from faithmap.choosing.entries import check_entries, explainers_for
from faithmap.choosing.pace import Clock, Pace, clock_of
from faithmap.methods.base import Explainer, Passes
from faithmap.methods.controls import Control
from faithmap.metrics.functional import deletion_insertion
from faithmap.metrics.functional.protocols import PROTOCOLS
from faithmap.score import Target, target_of
from faithmap.seeds import image_generators

Progress: TypeAlias = Callable[[float, str], None]
"""Called with the methods done, parts of one included, and what is being done."""


def choose(
    model: nn.Module,
    photographs: Sequence[Float[Tensor, "1 c h w"]],
    target: Target = None,
    *,
    explainers: Mapping[str, Explainer] | None = None,
    budget: float = 120.0,
    score: ScoreName = "insertion_minus_deletion",
    resolution: int = 28,
    seed: int = 0,
    keys: Sequence[int] | None = None,
    chunk_size: int = 32,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> Choice:
    """Run the methods that fit the model and the budget, and rank them.

    Args:
        model: a Classifier, or any module that takes the photographs.
        photographs: each as the model takes it; sizes may differ.
        target: what is explained; None for each one's predicted class.
        explainers: by name; None for all of the registry. Controls among them are always run.
        budget: seconds for everything.
        score: that ranks, from deletion and insertion under the ``igos`` protocol.
        resolution: cells a side at which both are played with every map.
        seed: of the run.
        keys: what stands for each photograph where random numbers are drawn; None for its number.
        chunk_size: images in one pass of the games at the most.
        progress: told how far it has come.
        clock: seconds; None for the computer's.

    Raises:
        ValueError: for no photographs, settings that do not fit, or a budget that is too small for any method.
    """
    check_entries(model, photographs, budget, score, resolution, keys)
    contest = _Contest(
        model,
        photographs,
        target,
        {
            **(
                explainers_for(model, resolution=resolution, chunk_size=chunk_size, seed=seed)
                if explainers is None
                else explainers
            )
        },
        budget,
        score,
        resolution,
        seed,
        keys or range(len(photographs)),
        chunk_size,
        progress or _silent,
        clock or clock_of(photographs[0].device),
    )
    return contest.result()


@dataclass
class _Contest:
    """The settings, and what is known so far."""

    model: nn.Module
    photographs: Sequence[Tensor]
    target: Target
    explainers: dict[str, Explainer]
    budget: float
    score: ScoreName
    resolution: int
    seed: int
    keys: Sequence[int]
    chunk_size: int
    progress: Progress
    clock: Clock
    left_out: list[LeftOut] = field(default_factory=list)
    ranked: list[Ranked] = field(default_factory=list)

    def result(self) -> Choice:
        """Measure, plan, run and rank."""
        self.started = self.clock()
        self.progress(0.0, "timing the model")
        plan = self._plan()
        for i, name in enumerate(plan):
            self._run(name, plan[name], i)
        if all(method.control for method in self.ranked):
            raise ValueError(f"no method could be run; {self.left_out[0].name}: {self.left_out[0].reason}")
        best_first = sorted(self.ranked, key=lambda method: method.mean, reverse=SCORES[self.score])
        return Choice(self.score, tuple(best_first), tuple(self.left_out), self.budget, self.clock() - self.started)

    def _plan(self) -> dict[str, float | None]:
        """The methods that are worth a try with the seconds that each will take; controls first, then the cheapest."""
        first = self.photographs[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FaithmapWarning)
            pace = Pace.measured(self.model, first, self._target(0), self.chunk_size, self.clock)
        games = 2 * ((PROTOCOLS["igos"].steps or first.shape[-2]) + 1) + 1
        costs: dict[str, float | None] = {}
        for name, explainer in self.explainers.items():
            obstacle = pace.obstacle(name)
            if obstacle is not None:
                self.left_out.append(LeftOut(name, f"does not fit the model: {obstacle}"))
                continue
            passes = explainer.passes(first)
            judged = None if passes is None else Passes(passes.forward + games, passes.backward)
            costs[name] = None if judged is None else pace.seconds(judged) * len(self.photographs)
        order = sorted(costs, key=lambda name: (not self._is_control(name), costs[name] is None, costs[name] or 0.0))
        return self._affordable({name: costs[name] for name in order})

    def _affordable(self, costs: dict[str, float | None]) -> dict[str, float | None]:
        total, kept = self.clock() - self.started, {}
        for name, seconds in costs.items():
            if not self._is_control(name) and total + (seconds or 0.0) > self.budget:
                self.left_out.append(LeftOut(name, "would break the budget", seconds))
                continue
            kept[name] = seconds
            total += seconds or 0.0
        cheapest = next((out for out in self.left_out if out.seconds is not None), None)
        if cheapest is not None and all(map(self._is_control, kept)):
            raise ValueError(
                f"no method fits into {self.budget:.3g} s: {cheapest.name}, the cheapest, would take about "
                f"{cheapest.seconds:.3g} s for {len(self.photographs)} photographs, beside the controls; give a larger budget "
                "or fewer photographs"
            )
        return kept

    def _run(self, name: str, expected: float | None, number: int) -> None:
        """One method on all photographs, unless the time proves too short."""
        if not self._is_control(name) and self._spent() + (expected or 0.0) > self.budget:
            self.left_out.append(LeftOut(name, "would break the budget, of which others took more than expected", expected))
            return
        count, began = len(self.photographs), self.clock()
        scores: list[float] = []
        passes: list[Passes] = []
        seconds: list[float] = []
        for i in range(count):
            self.progress(number + i / count, f"photograph {i + 1} of {count} by {name}")
            try:
                found = self._one(name, i)
            except (ValueError, NotImplementedError) as error:
                self.left_out.append(LeftOut(name, f"failed on photograph {i + 1}: {error}"))
                return
            scores.append(found[0])
            passes.append(found[1])
            seconds.append(found[2])
            rest = (self.clock() - began) * (count - 1)
            if i == 0 and not self._is_control(name) and self._spent() + rest > self.budget:
                self.left_out.append(LeftOut(name, "would break the budget, by its time for the first photograph", rest))
                return
        mean = Passes(*(round(sum(kind) / count) for kind in zip(*passes, strict=True)))
        self.ranked.append(Ranked(name, self._is_control(name), torch.tensor(scores), mean, sum(seconds) / count))

    def _one(self, name: str, i: int) -> tuple[float, Passes, float]:
        """A method's score on one photograph, its passes and its seconds."""
        image, began = self.photographs[i], self.clock()
        generator = image_generators(self.seed, [self.keys[i]], image.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FaithmapWarning)
            why = self.explainers[name](image, self._target(i), generator=generator)
        seconds = self.clock() - began
        side = (self.resolution, self.resolution)
        cells = why.cells if why.resolution == side else why.at(side)
        played = deletion_insertion(self.model, image, cells.to(image), why.explained, chunk_size=self.chunk_size)
        value = played.difference if self.score == "insertion_minus_deletion" else getattr(played, self.score).area
        asked = (why.diagnostics[0].get(f"{kind}_passes", 0) for kind in ("forward", "backward"))
        return float(value[0]), Passes(*asked), seconds

    def _target(self, i: int) -> Target:
        """Of one photograph."""
        if isinstance(self.target, (list, tuple)):
            return int(self.target[i])
        return target_of(self.target, torch.tensor([i], device=self.photographs[i].device))

    def _is_control(self, name: str) -> bool:
        return isinstance(self.explainers[name], Control)

    def _spent(self) -> float:
        return self.clock() - self.started


def _silent(done: float, what: str) -> None:
    del done, what
