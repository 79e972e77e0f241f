r"""Marginal winning probabilities: from the unit that is explained down to a layer, by Excitation Backprop (Zhang et al. 2016).

.. math:: P(a_i) = \sum_j P(a_i \mid a_j) P(a_j) \quad\text{(Eq. 1)}, \qquad
    P(a_i \mid a_j) = \frac{\hat a_i w_{ji}}{\sum_{k : w_{jk} \ge 0} \hat a_k w_{jk}} \;\text{ if } w_{ji} \ge 0,
    \text{ else } 0 \quad\text{(Eq. 2)}

with :math:`\hat a` the response of a unit and w its weights; biases do not count. The paper has responses that are never
negative, and weights between them. Real networks have more, which is brought to that form:

- *Units* are what a rectification puts out and what a weighted sum or an average takes in. What lies between is a sum of
  weighted inputs, and is folded: normalisation into the convolution before it, branches into the sum that they end in.
- A unit that may be negative is two, :math:`\hat a^+ = relu(a)` and :math:`\hat a^- = relu(-a)`, the second with weights -w:
  the same network, and none is negative any more. So a value has a mass that wants it *up*, and one that wants it *down*.

For a weighted sum that means :math:`P(a) = \hat a \odot W^{+T} (P / E)`, with :math:`E = W^+ \hat a` its excitation.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import torch
from torch import Tensor

from faithmap.methods.gradients.operations import rule_for
from faithmap.methods.gradients.steps import Step, Value
from faithmap.score import at_least_single

Mass = dict[bool, Tensor]
"""Of a value: what wants it up (True), and what wants it down (False)."""


class Walk:
    """Down the tape, from the value that is explained."""

    def __init__(self) -> None:
        self._excitation: dict[tuple[Value, bool], Tensor | None] = {}

    def excitation(self, value: Value, up: bool) -> Tensor | None:
        """What pushes a value up, or down: responses of the units below times weights of that sign; None for nothing at all."""
        key = (value, up)
        if key not in self._excitation:
            if value.units is None:
                self._excitation[key] = rule_for(value.step).excitation(value.step, value.output, up, self.excitation)
            else:
                response = (at_least_single(value.units) * (1 if up else -1)).relu()
                self._excitation[key] = response if bool((response > 0).any()) else None
        return self._excitation[key]

    def down(self, top: Value, start: Mass, stop: Value) -> Mass:
        """The mass that arrives at a value, of what started at the top.

        Raises:
            ValueError: for an operation on the way that the rules do not cover.
        """
        masses: dict[Value, Mass] = {top: dict(start)}
        waiting = {top.step: {top.output: top}}
        order = [(-top.step.serial, top.step)]
        while order:
            _, step = heapq.heappop(order)
            outputs = waiting.pop(step)
            if stop in outputs.values():
                return masses[stop]
            for value, mass in self._shares(step, {i: masses.pop(v) for i, v in outputs.items()}):
                if value.step not in waiting:
                    waiting[value.step] = {}
                    heapq.heappush(order, (-value.step.serial, value.step))
                waiting[value.step][value.output] = value
                held = masses.setdefault(value, {})
                for up, more in mass.items():
                    more = self._of_a_response(value, up, more)  # noqa: PLW2901 - less of the same
                    held[up] = held[up] + more if up in held else more
        return {}

    def _of_a_response(self, value: Value, up: bool, mass: Tensor) -> Tensor:
        """A unit that does not respond cannot win, though the lone input of a sum is given all."""
        if value.units is None:
            return mass
        response = self.excitation(value, up)
        can_win = torch.zeros_like(mass, dtype=torch.bool) if response is None else response > 0
        return mass.where(can_win if value.free is None else can_win | value.free, 0)

    def _shares(self, step: Step, masses: dict[int, Mass]) -> Iterable[tuple[Value, Mass]]:
        if not step.name:
            return
        for up in (True, False):
            of_outputs = [masses.get(i, {}).get(up) for i in range(len(step.outputs))]
            if any(mass is not None for mass in of_outputs):
                for value, way, mass in rule_for(step).shares(step, of_outputs, up, self.excitation):
                    yield value, {way: mass}
