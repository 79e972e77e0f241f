"""Contest: methods play deletion and insertion on the same photographs, the cheapest first, for as long as there is time.

What a pass takes is measured on the first photograph, and what a method takes is foretold from its passes before it is run.
The games are the same for all: by what they take of the time that was foretold for them, all that is foretold is corrected as
the contest goes on. What a method does not foretell is seen at its first photograph, for which it gets its share of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.methods.base import Explainer, Passes
from faithmap.methods.controls import Control
from faithmap.score import Target
from faithmap.selection.budget import CONTROLS, Allowance, OutOfTimeError
from faithmap.selection.candidates import check_entries, explainers_for
from faithmap.selection.choice import SCORES, Choice, LeftOut, Ranked, ScoreName
from faithmap.selection.games import Games, Turn
from faithmap.selection.timing import Clock, Pace, clock_of
from faithmap.text import spoken

Progress: TypeAlias = Callable[[float, str], None]
"""Called with the methods done, parts of one included, and what is being done."""


def choose(
    model: nn.Module,
    photographs: Sequence[Float[Tensor, "1 c h w"]],
    target: Target = None,
    *,
    explainers: Mapping[str, Explainer] | None = None,
    budget: float = 120.0,
    spent: float = 0.0,
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
        explainers: by name; None for all of the registry. Of the controls among them the first is run first, and the others
            next, if all controls take no more than a third of the budget; else they come last.
        budget: seconds for everything.
        spent: seconds of it that are gone.
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
    check_entries(model, photographs, target, explainers, budget, score, resolution, keys, chunk_size)
    allowance = Allowance(budget, clock or clock_of(photographs[0].device), spent)
    given = explainers_for(model, resolution=resolution, chunk_size=chunk_size, seed=seed) if explainers is None else explainers
    numbers = range(len(photographs)) if keys is None else keys
    played = Games(model, photographs, target, score, resolution, seed, numbers, chunk_size)
    return _Contest(played, dict(given), allowance, progress or _silent).result()


@dataclass
class _Contest:
    """What is known so far."""

    games: Games
    explainers: dict[str, Explainer]
    allowance: Allowance
    progress: Progress
    pace: Pace = field(init=False)
    passes: dict[str, Passes | None] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    ranked: list[Ranked] = field(default_factory=list)
    judged: float = 0.0
    foretold: float = 0.0

    def result(self) -> Choice:
        """Measure, plan, run and rank."""
        self.progress(0.0, "timing the model")
        self.pace = self.games.pace(self.allowance.clock)
        plan = self._plan()
        if all(map(self._is_control, plan)):
            raise ValueError(self._nothing())
        if not self.allowance.fits(sum(map(self._expected, self._least(plan)))):
            raise ValueError(self._too_little(self._least(plan)))
        for number, name in enumerate(self._in_turn(plan)):
            expected, known = self._expected(name), self.passes[name] is not None
            if self.allowance.fits(expected):
                self._run(name, number)
            else:
                self.left_out.append(LeftOut(name, "would break the budget", expected if known else None))
        self._see_what_there_is(plan)
        by_mean = sorted(self.ranked, key=lambda method: method.mean, reverse=SCORES[self.games.score])
        return Choice(self.games.score, tuple(by_mean), tuple(self.left_out), self.allowance.budget, self.allowance.spent)

    def _plan(self) -> list[str]:
        """The methods that can be run; controls first, then the cheapest, those that do not foretell what they take last."""
        first = self.games.photographs[0]
        for name, explainer in self.explainers.items():
            obstacle = self.pace.obstacle(explainer, first)
            if obstacle is None:
                try:
                    self.passes[name] = explainer.passes(first)
                except ValueError as error:
                    obstacle = f"cannot be run: {error}"
            if obstacle is not None:
                self.left_out.append(LeftOut(name, obstacle))
        return sorted(
            self.passes,
            key=lambda n: (not self._is_control(n), self.passes[n] is None, 0 if self._is_control(n) else self._expected(n)),
        )

    def _least(self, plan: list[str]) -> list[str]:
        """The first control, if there is one, and the cheapest method: with less there is no choice."""
        controls = [name for name in plan if self._is_control(name)]
        return controls[:1] + [name for name in plan if not self._is_control(name)][:1]

    def _expected(self, name: str) -> float:
        """Seconds for all photographs; of the games alone where a method foretells nothing."""
        passes = self.passes[name] or Passes(0, 0)
        each = self.pace.seconds(passes) + self._judging
        return each * self._drift * self.games.sizes()

    @property
    def _judging(self) -> float:
        """Seconds that were foretold for the games with one map, on a photograph of the first one's size."""
        return self.pace.forward * self.games.passes

    @property
    def _drift(self) -> float:
        """How much longer than foretold the games take."""
        return self.judged / self.foretold if self.foretold > 0 else 1.0

    def _in_turn(self, plan: list[str]) -> Iterator[str]:
        """The methods as they are planned; last the controls that would take too much of the time."""
        late = []
        for name in plan:
            controls = 1 + sum(method.control for method in self.ranked)
            if self._is_control(name) and controls > 1 and controls * self._expected(name) > CONTROLS * self.allowance.budget:
                late.append(name)
            else:
                yield name
        yield from late

    def _run(self, name: str, number: int) -> None:
        """One method on all photographs, unless the time proves too short."""
        count, began = len(self.games), self.allowance.clock()
        found: list[Turn] = []
        for i in range(count):
            self.progress(number + i / count, f"photograph {i + 1} of {count} by {name}")
            judging = self._judging * self.games.size(i)
            try:
                found.append(self.games.play(self.explainers[name], i, self.allowance, judging * self._drift))
            except OutOfTimeError as error:
                whole = (error.seconds + judging * self._drift) * self.games.sizes() / self.games.size(i)
                self.left_out.append(LeftOut(name, f"would break the budget; stopped at photograph {i + 1}", whole))
                return
            except (ValueError, TypeError, NotImplementedError) as error:
                self.left_out.append(LeftOut(name, f"failed on photograph {i + 1}: {error}"))
                return
            if found[-1].judging is not None:
                self.judged, self.foretold = self.judged + found[-1].judging, self.foretold + judging
            speed = (self.allowance.clock() - began) / (self.games.sizes() - self.games.sizes(i + 1))
            if not self.allowance.bears(speed * self.games.sizes(i + 1)) and i + 1 < count:
                which = "the first photograph" if i == 0 else f"{i + 1} photographs"
                reason = f"would break the budget, by its time for {which}"
                self.left_out.append(LeftOut(name, reason, speed * self.games.sizes()))
                return
        scores, passes, seconds, _ = zip(*found, strict=True)
        mean = Passes(*(round(sum(kind) / count) for kind in zip(*passes, strict=True)))
        self.ranked.append(Ranked(name, self._is_control(name), torch.tensor(scores), mean, sum(seconds) / count))

    def _see_what_there_is(self, plan: list[str]) -> None:
        """Raise ValueError where there is no method to choose."""
        if any(not method.control for method in self.ranked):
            return
        dear = [out.name for out in self.left_out if out.seconds is not None and not self._is_control(out.name)]
        if dear:
            raise ValueError(self._too_little(self._least(plan)))
        raise ValueError(self._nothing())

    def _nothing(self) -> str:
        """Why there is no method at all: the first one's reason."""
        first, *others = [out for out in self.left_out if not self._is_control(out.name)]
        return f"no method could be run; {first.name}: {first.reason}" + (f"; and {len(others)} more" if others else "")

    def _too_little(self, least: list[str]) -> str:
        """What the budget is too little for, and what would do."""
        name, count = least[-1], len(self.games)
        needed = sum(self._expected(each) for each in least)
        fewer = int(count * (self.allowance.budget - self.allowance.spent) / needed)
        less = f", or {fewer} photograph{'s' * (fewer > 1)}" if 0 < fewer < count else ""
        beside = f", and {least[0]} as a control as much again" if len(least) > 1 else ""
        return (
            f"no method fits into {spoken(self.allowance.budget)}: {name}, the cheapest, would take about "
            f"{spoken(self._expected(name))} for {count} photograph{'s' * (count > 1)}{beside}; "
            f"give {spoken(1.1 * (needed + self.allowance.spent))} or more{less}"
        )

    def _is_control(self, name: str) -> bool:
        return isinstance(self.explainers[name], Control)


def _silent(done: float, what: str) -> None:
    del done, what
