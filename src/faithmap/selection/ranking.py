"""Ranking: methods are evaluated by a jury, or by deletion and insertion, the cheapest first, within a time budget.

All are evaluated on the same images.

The time of a pass is measured on the first image, and the time of a method is estimated from its number of passes before it is
run. The evaluation of a map takes the same passes for all methods: the ratio of its measured to its estimated time corrects all
further estimates. A method whose number of passes is unknown is measured on its first image, for which it gets that image's
share of the remaining time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.errors import duration, quantity
from faithmap.methods.base import Explainer, Passes
from faithmap.methods.controls import Control
from faithmap.metrics.functional import free_panel
from faithmap.score import Target
from faithmap.selection.budget import CONTROL_SHARE, OutOfTimeError, TimeBudget
from faithmap.selection.candidates import check_arguments, explainers_for
from faithmap.selection.choice import SCORES, Choice, LeftOut, Ranked, ScoreName
from faithmap.selection.evaluation import ImageResult, MapEvaluation
from faithmap.selection.timing import Clock, PassTimes, clock_of
from faithmap.warning_types import renamed_parameters

Progress: TypeAlias = Callable[[float, str], None]
"""Called with the number of methods done, which includes fractions of the current method, and a description of the work."""


@renamed_parameters(photographs="images")
def choose(
    model: nn.Module,
    images: Sequence[Float[Tensor, "1 c h w"]],
    target: Target = None,
    *,
    explainers: Mapping[str, Explainer] | None = None,
    budget: float = 120.0,
    spent: float = 0.0,
    score: ScoreName = "jury",
    resolution: int = 28,
    seed: int = 0,
    keys: Sequence[int] | None = None,
    chunk_size: int = 32,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> Choice:
    """Evaluate the methods that fit the model and the budget, and rank them.

    >>> from faithmap import Gradient, RandomMap
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    >>> explainers = {"gradient": Gradient(model), "random": RandomMap(model)}
    >>> choose(model, list(torch.rand(3, 1, 3, 16, 16)), explainers=explainers, budget=3600, resolution=4).best.name
    'gradient'

    Args:
        model: a Classifier, or any module that takes the images.
        images: model inputs (1, c, h, w); sizes may differ.
        target: the explained class, one for all images or one for each, or a callable; None for each image's predicted class.
        explainers: by name; None for all methods. The first control among them is evaluated first, and the others next if all
            controls take at most a third of the budget; otherwise these are evaluated last.
        budget: time budget of the whole selection, in seconds.
        spent: seconds of the budget that are already spent.
        score: by which methods are ranked: the mean value of the jurors whose removal none of the methods optimised
            (:func:`faithmap.metrics.functional.free_panel`); or from deletion and insertion with the ``igos`` protocol, which
            some methods optimise.
        resolution: cells per side to which every map is resampled for the evaluation.
        seed: seed of the run.
        keys: one integer per image that replaces its index in the derivation of random numbers.
        chunk_size: maximum number of images per pass of the evaluation.
        progress: called with the number of methods done and a description of the work.
        clock: returns seconds; None for the system's clock.

    Raises:
        ValueError: for no images, settings that do not fit, or a budget that is too small for any method.
    """
    check_arguments(model, images, target, explainers, budget, score, resolution, keys, chunk_size)
    time_budget = TimeBudget(budget, clock or clock_of(images[0].device), spent)
    given = explainers_for(model, resolution=resolution, chunk_size=chunk_size, seed=seed) if explainers is None else explainers
    numbers = range(len(images)) if keys is None else keys
    optimised = frozenset(kind for explainer in given.values() for kind in explainer.optimises())
    if score == "jury" and not free_panel(optimised).jurors:
        raise ValueError("every juror's removal is one that some method optimises; give fewer methods, or another score")
    evaluation = MapEvaluation(model, images, target, score, resolution, seed, numbers, chunk_size, optimised)
    return _Selection(evaluation, dict(given), time_budget, progress or _no_progress).result()


@dataclass
class _Selection:
    evaluation: MapEvaluation
    explainers: dict[str, Explainer]
    budget: TimeBudget
    progress: Progress
    pass_times: PassTimes = field(init=False)
    passes: dict[str, Passes | None] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    ranked: list[Ranked] = field(default_factory=list)
    measured_evaluation: float = 0.0
    estimated_evaluation: float = 0.0

    def result(self) -> Choice:
        """Measure the passes, order the methods, evaluate and rank them."""
        self.progress(0.0, "timing the model")
        self.pass_times = self.evaluation.pass_times(self.budget.clock)
        order = self._order()
        if all(map(self._is_control, order)):
            raise ValueError(self._no_method())
        if not self.budget.fits(sum(map(self._estimated, self._minimum(order)))):
            raise ValueError(self._budget_too_small(self._minimum(order)))
        for number, name in enumerate(self._late_controls_last(order)):
            estimated, known = self._estimated(name), self.passes[name] is not None
            if self.budget.fits(estimated):
                self._evaluate(name, number)
            else:
                self.left_out.append(LeftOut(name, "would exceed the budget", estimated if known else None))
        self._check_any_method(order)
        score = self.evaluation.score
        by_mean = sorted(self.ranked, key=lambda method: method.mean, reverse=SCORES[score])
        jurors = tuple(juror.name for juror in free_panel(self.evaluation.optimised).jurors) if score == "jury" else ()
        return Choice(score, tuple(by_mean), tuple(self.left_out), self.budget.budget, self.budget.spent, jurors)

    def _order(self) -> list[str]:
        """The methods that fit the model: controls first, then by estimated time, methods of unknown time last."""
        first = self.evaluation.images[0]
        for name, explainer in self.explainers.items():
            obstacle = self.pass_times.obstacle(explainer, first)
            if obstacle is None:
                try:
                    self.passes[name] = explainer.passes(first)
                except ValueError as error:
                    obstacle = f"cannot be run: {error}"
            if obstacle is not None:
                self.left_out.append(LeftOut(name, obstacle))

        def key(name: str) -> tuple[bool, bool, float]:
            control = self._is_control(name)
            return not control, self.passes[name] is None, 0 if control else self._estimated(name)

        return sorted(self.passes, key=key)

    def _minimum(self, order: list[str]) -> list[str]:
        """The first control, if any, and the cheapest method: the minimum of a selection."""
        controls = [name for name in order if self._is_control(name)]
        return controls[:1] + [name for name in order if not self._is_control(name)][:1]

    def _estimated(self, name: str) -> float:
        """Estimated seconds for all images; only of the evaluation if the method's passes are unknown."""
        passes = self.passes[name] or Passes(0, 0)
        per_image = self.pass_times.seconds(passes) + self._evaluation_estimate
        return per_image * self._correction * self.evaluation.sizes()

    @property
    def _evaluation_estimate(self) -> float:
        """Estimated seconds of the evaluation of one map, for an image of the first one's size."""
        return self.pass_times.forward * self.evaluation.passes

    @property
    def _correction(self) -> float:
        """Ratio of the measured to the estimated time of the evaluations so far."""
        return self.measured_evaluation / self.estimated_evaluation if self.estimated_evaluation > 0 else 1.0

    def _late_controls_last(self, order: list[str]) -> Iterator[str]:
        """The methods in their order; the controls that would take too much of the time come last."""
        late = []
        for name in order:
            controls = 1 + sum(method.control for method in self.ranked)
            too_long = controls * self._estimated(name) > CONTROL_SHARE * self.budget.budget
            if self._is_control(name) and controls > 1 and too_long:
                late.append(name)
            else:
                yield name
        yield from late

    def _evaluate(self, name: str, number: int) -> None:
        """Evaluate one method on all images, unless its time runs out."""
        count, began = len(self.evaluation), self.budget.clock()
        results: list[ImageResult] = []
        for i in range(count):
            self.progress(number + i / count, f"image {i + 1} of {count} by {name}")
            estimate = self._evaluation_estimate * self.evaluation.size(i)
            try:
                reserved = estimate * self._correction
                results.append(self.evaluation.evaluate(self.explainers[name], i, self.budget, reserved))
            except OutOfTimeError as error:
                scale = self.evaluation.sizes() / self.evaluation.size(i)
                whole = (error.seconds + estimate * self._correction) * scale
                self.left_out.append(LeftOut(name, f"would exceed the budget; stopped at image {i + 1}", whole))
                return
            except (ValueError, TypeError, NotImplementedError) as error:
                self.left_out.append(LeftOut(name, f"failed on image {i + 1}: {error}"))
                return
            if (seconds_taken := results[-1].evaluation_seconds) is not None:
                self.measured_evaluation += seconds_taken
                self.estimated_evaluation += estimate
            per_size = (self.budget.clock() - began) / (self.evaluation.sizes() - self.evaluation.sizes(i + 1))
            if not self.budget.allows(per_size * self.evaluation.sizes(i + 1)) and i + 1 < count:
                measured = "the first image" if i == 0 else f"{i + 1} images"
                reason = f"would exceed the budget, by its time for {measured}"
                self.left_out.append(LeftOut(name, reason, per_size * self.evaluation.sizes()))
                return
        scores, passes, seconds, _ = zip(*results, strict=True)
        mean = Passes(*(round(sum(kind) / count) for kind in zip(*passes, strict=True)))
        self.ranked.append(Ranked(name, self._is_control(name), torch.tensor(scores), mean, sum(seconds) / count))

    def _check_any_method(self, order: list[str]) -> None:
        """Raise ValueError if no method was evaluated."""
        if any(not method.control for method in self.ranked):
            return
        too_slow = [out.name for out in self.left_out if out.seconds is not None and not self._is_control(out.name)]
        if too_slow:
            raise ValueError(self._budget_too_small(self._minimum(order)))
        raise ValueError(self._no_method())

    def _no_method(self) -> str:
        """The error if no method could be run, with the reason of the first."""
        first, *others = [out for out in self.left_out if not self._is_control(out.name)]
        return f"no method could be run; {first.name}: {first.reason}" + (f"; and {len(others)} more" if others else "")

    def _budget_too_small(self, minimum: list[str]) -> str:
        """The error if the budget is too small for the minimum, with a sufficient budget and number of images."""
        name, count = minimum[-1], len(self.evaluation)
        needed = sum(self._estimated(each) for each in minimum)
        fewer = int(count * (self.budget.budget - self.budget.spent) / needed)
        less = f", or {quantity(fewer, 'image')}" if 0 < fewer < count else ""
        control = f", and {minimum[0]} as a control about the same" if len(minimum) > 1 else ""
        return (
            f"no method fits into {duration(self.budget.budget)}: {name}, the cheapest, would take about "
            f"{duration(self._estimated(name))} for {quantity(count, 'image')}{control}; "
            f"give {duration(1.1 * (needed + self.budget.spent))} or more{less}"
        )

    def _is_control(self, name: str) -> bool:
        return isinstance(self.explainers[name], Control)


def _no_progress(done: float, what: str) -> None:
    del done, what
