"""Allowance: the time that there is, what is gone of it, and what stops a method that takes more.

A method is begun only if what it is expected to take fits into the budget. One that then takes longer is stopped, at the
latest when the budget is overrun by 3 %: between two photographs, or at its next step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from faithmap.methods.base import Progress
from faithmap.selection.timing import Clock

OVERRUN = 1.03
"""Part of the budget to which a method that has been begun may run: what is nearly done is not thrown away."""

CONTROLS = 1 / 3
"""Part of the budget that controls may take before the methods; more of them come last, if there is time left."""


class OutOfTimeError(Exception):
    """A method is still at a photograph when its time is up; ``seconds`` is what the photograph takes, at the speed so far."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


@dataclass
class Allowance:
    """Seconds.

    Attributes:
        budget: for everything.
        clock: that counts them.
        before: what was spent already.
    """

    budget: float
    clock: Clock
    before: float = 0.0
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock() - self.before

    @property
    def spent(self) -> float:
        """So far."""
        return self.clock() - self.started

    def fits(self, seconds: float) -> bool:
        """Whether something that takes so long may begin."""
        return self.spent + seconds <= self.budget

    def bears(self, seconds: float) -> bool:
        """Whether something that is under way may go on for so long."""
        return self.spent + seconds <= self.budget * OVERRUN

    def watch(self, share: float, after: float) -> Progress:
        """What a method is to call at its steps; it raises :class:`OutOfTimeError` when the method's time is up.

        Args:
            share: how much of what is left the method may take, for what it is at.
            after: seconds of that which are needed when it is done.
        """
        began = self.clock()
        limit = (self.budget * OVERRUN - self.spent) * share - after

        def step(done: int, total: int) -> None:
            seconds = self.clock() - began
            if done < total and seconds > limit:
                raise OutOfTimeError(seconds * total / max(done, 1))

        return step
