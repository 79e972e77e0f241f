"""Time budget: the time that remains, and a callback that stops a method which takes too long.

A method is started only if its estimated time fits into the budget. If it then takes longer, it is stopped when the budget is
exceeded by 3 % at the latest: between two images, or at its next step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from faithmap.methods.base import Progress
from faithmap.selection.timing import Clock

OVERRUN = 1.03
"""Share of the budget up to which a method that was started may run, so that nearly finished work is not lost."""

CONTROL_SHARE = 1 / 3
"""Share of the budget that controls may take before the methods; further controls are evaluated last."""


class OutOfTimeError(Exception):
    """The time of a method is over while it explains an image; ``seconds`` is the estimated time of the image."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


@dataclass
class TimeBudget:
    """A number of seconds, and how many are spent.

    Attributes:
        budget: seconds for everything.
        clock: measures the time.
        already_spent: seconds before the clock was started.
    """

    budget: float
    clock: Clock
    already_spent: float = 0.0
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock() - self.already_spent

    @property
    def spent(self) -> float:
        """Seconds that are spent."""
        return self.clock() - self.started

    def fits(self, seconds: float) -> bool:
        """Whether there is time to start something that takes so long."""
        return self.spent + seconds <= self.budget

    def allows(self, seconds: float) -> bool:
        """Whether something that was started may continue for so long."""
        return self.spent + seconds <= self.budget * OVERRUN

    def limit(self, share: float, reserved: float) -> Progress:
        """A progress callback that raises :class:`OutOfTimeError` when the time of a method is over.

        Args:
            share: of the remaining time that the method may use.
            reserved: seconds of that share for the evaluation afterwards.
        """
        began = self.clock()
        available = (self.budget * OVERRUN - self.spent) * share - reserved

        def step(done: int, total: int) -> None:
            seconds = self.clock() - began
            if done < total and seconds > available:
                raise OutOfTimeError(seconds * total / max(done, 1))

        return step
