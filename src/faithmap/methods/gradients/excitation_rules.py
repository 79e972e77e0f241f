r"""Marginal winning probabilities, from the explained unit down to a layer (Excitation Backprop, Zhang et al. 2016).

.. math:: P(a_i) = \sum_j P(a_i \mid a_j) P(a_j) \quad\text{(Eq. 1)}, \qquad
    P(a_i \mid a_j) = \frac{\hat a_i w_{ji}}{\sum_{k : w_{jk} \ge 0} \hat a_k w_{jk}} \;\text{ if } w_{ji} \ge 0,
    \text{ else } 0 \quad\text{(Eq. 2)}

with :math:`\hat a` the response of a unit and w its weights; biases do not count. The paper assumes responses that are never
negative, with weights between them. Real networks have more operations, which are brought to that form:

- *Units* are the outputs of rectifications and the inputs of weighted sums and averages. What lies between is a sum of
  weighted inputs, and is folded: normalisation into the convolution before it, branches into the sum that they end in.
- A unit that may be negative is split into two, :math:`\hat a^+ = relu(a)` and :math:`\hat a^- = relu(-a)`, the second with
  weights -w: the same network, and neither is negative. So a value has one mass for *up* and one for *down*.

For a weighted sum, :math:`P(a) = \hat a \odot W^{+T} (P / E)`, with :math:`E = W^+ \hat a` its excitation. Each kind of
operation has one rule:

=========  ===============================================================  ==============================================
Moved      views, concatenation, padding, winners of a maximum              the mass moves with the numbers
Scaled     batch normalisation, a factor                                    passes; up and down are exchanged where s < 0
Summed     residual additions, differences, constants                       in proportion to the excitation of each
Mixed      convolutions, linear layers, averages                            :math:`\hat a \odot W^{+T} (P / E)`
Rectified  relu, relu6 and hardtanh from 0, clamp at 0, leaky relu          passes
=========  ===============================================================  ==============================================

Any other operation between the explained unit and the layer is refused, by name.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from faithmap.methods.gradients.excitation_graph import (
    FACTORS,
    MAKES_UNITS,
    NORMS,
    TAKES_UNITS,
    UNCHANGED,
    RecordedOperation,
    Value,
)
from faithmap.score import at_least_single

Excitation = Callable[[Value, bool], Tensor | None]
"""The excitation of a value, up (True) or down; None if there is none."""

Share = tuple[Value, bool, Tensor]
"""An input, the sign of its mass (True for up), and the mass."""


class Rule(ABC):
    """How excitation and mass pass one kind of operation."""

    @abstractmethod
    def excitation(self, operation: RecordedOperation, output: int, up: bool, of: Excitation) -> Tensor | None:
        """The excitation of a result, up or down, from that of the inputs."""

    @abstractmethod
    def shares(self, operation: RecordedOperation, masses: list[Tensor | None], up: bool, of: Excitation) -> Iterator[Share]:
        """The shares of the inputs in the mass of the results."""


class Moved(Rule):
    """Rule of operations that move numbers: each result is one of the inputs' numbers."""

    def excitation(self, operation: RecordedOperation, output: int, up: bool, of: Excitation) -> Tensor | None:
        """The excitation of the inputs, moved as they are."""
        found = [of(value, up) for value in operation.inputs]
        known = next((tensor for tensor in found if tensor is not None), None)
        if known is None:
            return None
        excitations = [_zeros(v, known) if e is None else e for v, e in zip(operation.inputs, found, strict=True)]
        return self._moved(operation, excitations)[output]

    def shares(self, operation: RecordedOperation, masses: list[Tensor | None], up: bool, of: Excitation) -> Iterator[Share]:
        """The mass, moved back."""
        del of
        known = next(mass for mass in masses if mass is not None)
        leaves = [_zeros(value, known).requires_grad_() for value in operation.inputs]
        with torch.enable_grad():
            moved = self._moved(operation, leaves)
        pairs = [(result, mass) for result, mass in zip(moved, masses, strict=False) if mass is not None]
        for value, mass in zip(operation.inputs, _transposed(pairs, leaves), strict=True):
            yield value, up, mass

    def _moved(self, operation: RecordedOperation, tensors: list[Tensor]) -> list[Tensor]:
        if operation.name in ("view", "_unsafe_view"):
            return [tensors[0].reshape(operation.outputs[0])]
        if operation.name in UNCHANGED:
            return tensors
        if operation.indices is not None:
            winners = tensors[0].flatten(-2).gather(-1, operation.indices.flatten(-2))
            return [winners.view(operation.outputs[0])]
        constants = tree_map(
            lambda leaf: torch.zeros_like(leaf) if _floating(leaf) else leaf, (operation.args, operation.kwargs)
        )
        cleared = RecordedOperation(operation.name, operation.serial, operation.func, *constants)
        return cleared.run(tensors, {"value": 0} if operation.name == "constant_pad_nd" else {})


class Scaled(Rule):
    """Rule of s x + t, with s independent of the image."""

    def excitation(self, operation: RecordedOperation, output: int, up: bool, of: Excitation) -> Tensor | None:
        """The excitation times s; where s is negative, that of the other sign times -s."""
        del output
        (value,), scale, total = operation.inputs, _scale(operation), None
        for sign in (True, False):
            part, excites = (scale if sign == up else -scale).clamp(min=0), of(value, sign)
            if excites is not None and bool((part > 0).any()):
                total = part * excites if total is None else total + part * excites
        return total

    def shares(self, operation: RecordedOperation, masses: list[Tensor | None], up: bool, of: Excitation) -> Iterator[Share]:
        """The whole mass; 0 where s is 0."""
        del of
        (value,), scale, (mass, *_) = operation.inputs, _scale(operation), masses
        assert mass is not None  # noqa: S101 - only operations with a mass are passed
        for sign in (True, False):
            part = (scale if sign == up else -scale) > 0
            if bool(part.any()):
                yield value, sign, (mass * part).sum_to_size(value.shape)


class Summed(Rule):
    """Rule of sums of inputs with factors, and of constants."""

    def excitation(self, operation: RecordedOperation, output: int, up: bool, of: Excitation) -> Tensor | None:
        """The sum of the terms' excitations."""
        del output
        total = None
        for value, factor in self._terms(operation):
            excites = of(value, up == (factor > 0))
            if excites is not None:
                more = abs(factor) * excites.broadcast_to(operation.outputs[0])
                total = more if total is None else total + more
        return total

    def shares(self, operation: RecordedOperation, masses: list[Tensor | None], up: bool, of: Excitation) -> Iterator[Share]:
        """In proportion to the terms' excitation; the whole mass to a single term."""
        mass, terms = masses[0], self._terms(operation)
        assert mass is not None  # noqa: S101 - only operations with a mass are passed
        if len(terms) == 1:
            ((value, factor),) = terms
            yield value, up == (factor > 0), mass.sum_to_size(value.shape)
            return
        total = self.excitation(operation, 0, up, of)
        quotient = None if total is None else _quotient(mass, total)
        for value, factor in terms:
            excites = of(value, up == (factor > 0))
            if excites is not None and quotient is not None:
                yield value, up == (factor > 0), (abs(factor) * excites * quotient).sum_to_size(value.shape)

    def _terms(self, operation: RecordedOperation) -> list[tuple[Value, float]]:
        if operation.name == "neg":
            return [(operation.inputs[0], -1.0)]
        alpha = float(operation.argument("alpha", 1))
        first, second = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[operation.name]
        pairs = ((operation.argument("self"), first), (operation.argument("other"), second))
        return [(value, factor) for value, factor in pairs if isinstance(value, Value) and factor != 0]


class Mixed(Rule):
    """Rule of weighted sums of units, and of averages, whose weights are positive."""

    def excitation(self, operation: RecordedOperation, output: int, up: bool, of: Excitation) -> Tensor | None:
        """Responses times weights of the right sign."""
        del output
        (value,), total = operation.inputs, None
        for sign in (True, False):
            response = of(value, sign)
            part = None if response is None else self._half(operation, response, sign == up)
            total = part if total is None else total if part is None else total + part
        return total

    def shares(self, operation: RecordedOperation, masses: list[Tensor | None], up: bool, of: Excitation) -> Iterator[Share]:
        """Eq. 2, by the operation and its transpose with the weights of one sign."""
        (value,), mass = operation.inputs, masses[0]
        assert mass is not None  # noqa: S101 - only operations with a mass are passed
        leaves: dict[bool, Tensor] = {}
        parts: list[Tensor] = []
        for sign in (True, False):
            response = of(value, sign)
            if response is not None:
                with torch.enable_grad():
                    leaf = response.detach().requires_grad_()
                    part = self._half(operation, leaf, sign == up)
                if part is not None:
                    leaves[sign], parts = leaf, [*parts, part]
        if leaves:
            with torch.enable_grad():
                total = torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]
            back = _transposed([(total, _quotient(mass, total.detach()))], list(leaves.values()))
            for (sign, leaf), share in zip(leaves.items(), back, strict=True):
                yield value, sign, leaf.detach() * share

    def _half(self, operation: RecordedOperation, response: Tensor, positive: bool) -> Tensor | None:
        """The operation with the positive part of its weights, or the negative part without its sign; None for no weights."""
        if operation.name not in FACTORS:
            return operation.run([response])[0] if positive else None
        first, second = FACTORS[operation.name]
        name = second if isinstance(operation.argument(first), Value) else first
        weight = operation.argument(name).to(response.dtype)
        changed: dict[str, Tensor | None] = {name: weight.relu() if positive else (-weight).relu()}
        if operation.name == "addmm":
            changed["self"] = response.new_zeros(1)
        elif operation.name in ("convolution", "linear"):
            changed["bias"] = None
        return operation.run([response], changed)[0]


class Rectified(Rule):
    """Rule of rectifications. Their outputs are units, whose responses are their excitation."""

    def excitation(self, operation: RecordedOperation, output: int, up: bool, of: Excitation) -> Tensor | None:
        """Never needed: the response itself is known."""
        raise NotImplementedError

    def shares(self, operation: RecordedOperation, masses: list[Tensor | None], up: bool, of: Excitation) -> Iterator[Share]:
        """The whole mass."""
        del of
        mass = masses[0]
        if mass is not None and (up or operation.name == "leaky_relu"):
            yield operation.inputs[0], up, mass


def _scale(operation: RecordedOperation) -> Tensor:
    """The factor s of the input."""
    if operation.name in NORMS:
        mean, variance = operation.argument("running_mean"), operation.argument("running_var")
        epsilon = operation.argument("eps", operation.argument("epsilon", 1e-5))
        weight = operation.argument("weight")
        scale: Tensor = at_least_single(torch.ones_like(mean) if weight is None else weight) * (variance + epsilon).rsqrt()
        return scale.view(-1, *[1] * (len(operation.inputs[0].shape) - 2))
    own, other = operation.argument("self"), operation.argument("other")
    factor = torch.as_tensor(other if isinstance(own, Value) else own)
    return factor.reciprocal() if operation.name == "div" else factor


def _quotient(mass: Tensor, excitation: Tensor) -> Tensor:
    """Mass per excitation; 0 where there is no excitation, as in the paper."""
    least = torch.finfo(excitation.dtype).tiny
    return (mass / excitation.clamp(min=least)).where(excitation > least, 0)


def _transposed(pairs: list[tuple[Tensor, Tensor]], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """The transpose of a linear operation, applied to masses of its results."""
    results, masses = zip(*pairs, strict=True)
    return torch.autograd.grad(results, leaves, masses, allow_unused=True, materialize_grads=True)


def _zeros(value: Value, like: Tensor) -> Tensor:
    return like.new_zeros(value.shape)


def _floating(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


MOVES = (
    *("view", "_unsafe_view", "permute", "transpose", "t", "squeeze", "unsqueeze", "expand", "repeat", "flip", "roll"),
    *("select", "slice", "split", "split_with_sizes", "unbind", "index", "index_select", "gather", "cat", "stack"),
    *("constant_pad_nd", "reflection_pad2d", "replication_pad2d", "upsample_nearest2d", "pixel_shuffle", "pixel_unshuffle"),
    *("channel_shuffle", "native_channel_shuffle", "max_pool2d_with_indices", "adaptive_max_pool2d", *UNCHANGED),
)

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(MOVES, Moved()),
        **dict.fromkeys(("mul", "div", *NORMS), Scaled()),
        **dict.fromkeys(("add", "sub", "rsub", "neg"), Summed()),
        **dict.fromkeys(TAKES_UNITS, Mixed()),
        **dict.fromkeys(MAKES_UNITS, Rectified()),
    }
)
"""By the operation's name in torch's dispatcher, without its overload."""


def rule_for(operation: RecordedOperation) -> Rule:
    """The rule of an operation.

    Raises:
        ValueError: where there is none; names the operation and the module that calls it.
    """
    rule = RULES.get(operation.name)
    if rule is None or operation.func is None:
        problem: str | None = "it is neither a weighted sum nor a rectification of units"
    else:
        problem = _CHECKS[operation.name](operation) if operation.name in _CHECKS else None
    if rule is None or problem is not None:
        raise ValueError(
            f"excitation backprop cannot pass {operation.name} in {operation.where}: {problem}; "
            "give a target_layer behind it, or another method"
        )
    return rule


def _weights_vary(operation: RecordedOperation) -> str | None:
    one = len(operation.inputs) == 1 and any(isinstance(operation.argument(name), Value) for name in FACTORS[operation.name])
    return None if one else "it multiplies two tensors that both depend on the image, or adds another to them"


def _factor_varies(operation: RecordedOperation) -> str | None:
    if len(operation.inputs) != 1:
        return "it multiplies two tensors that both depend on the image"
    divides = operation.name == "div" and (
        operation.argument("rounding_mode") is not None or not isinstance(operation.argument("self"), Value)
    )
    return "it divides by a tensor that depends on the image, or rounds" if divides else None


def _normalises_the_batch(operation: RecordedOperation) -> str | None:
    fixed = (
        operation.argument("running_mean") is not None
        and not operation.argument("training", False)
        and len(operation.inputs) == 1
    )
    return None if fixed else "it normalises by the batch's own statistics"


def _is_no_rectification(operation: RecordedOperation) -> str | None:
    low, high = {
        "hardtanh": (operation.argument("min_val", -1), operation.argument("max_val", 1)),
        "clamp": (operation.argument("min"), operation.argument("max")),
        "clamp_min": (operation.argument("min"), None),
        "threshold": (operation.argument("threshold") or operation.argument("value"), None),
        "leaky_relu": (min(operation.argument("negative_slope", 0.01), 0), None),
    }[operation.name]
    numbers = isinstance(low, (int, float)) and (high is None or isinstance(high, (int, float)))
    rectifies = numbers and low == 0 and (high is None or high > 0)
    return None if rectifies else "it does not rectify at 0"


def _reads_other_bits(operation: RecordedOperation) -> str | None:
    return "it reads the numbers as another type" if operation.argument("dtype") is not None else None


_CHECKS: Mapping[str, Callable[[RecordedOperation], str | None]] = MappingProxyType(
    {
        **dict.fromkeys(FACTORS, _weights_vary),
        **dict.fromkeys(("mul", "div"), _factor_varies),
        **dict.fromkeys(NORMS, _normalises_the_batch),
        **dict.fromkeys(MAKES_UNITS - {"relu"}, _is_no_rectification),
        "view": _reads_other_bits,
    }
)


Mass = dict[bool, Tensor]
"""The mass of a value for up (True) and for down (False)."""


class Walk:
    """Passes mass down the graph, from the explained value."""

    def __init__(self) -> None:
        self._excitation: dict[tuple[Value, bool], Tensor | None] = {}

    def excitation(self, value: Value, up: bool) -> Tensor | None:
        """The excitation of a value, up or down: responses of the units below times weights of that sign; None if all are 0."""
        key = (value, up)
        if key not in self._excitation:
            if value.units is None:
                self._excitation[key] = rule_for(value.operation).excitation(value.operation, value.output, up, self.excitation)
            else:
                response = (at_least_single(value.units) * (1 if up else -1)).relu()
                self._excitation[key] = response if bool((response > 0).any()) else None
        return self._excitation[key]

    def down(self, top: Value, start: Mass, stop: Value) -> Mass:
        """The mass at the value ``stop`` for the mass ``start`` at the value ``top``.

        Raises:
            ValueError: for an operation between the two that has no rule.
        """
        masses: dict[Value, Mass] = {top: dict(start)}
        waiting = {top.operation: {top.output: top}}
        order = [(-top.operation.serial, top.operation)]
        while order:
            _, operation = heapq.heappop(order)
            outputs = waiting.pop(operation)
            if stop in outputs.values():
                return masses[stop]
            for value, mass in self._shares(operation, {i: masses.pop(v) for i, v in outputs.items()}):
                if value.operation not in waiting:
                    waiting[value.operation] = {}
                    heapq.heappush(order, (-value.operation.serial, value.operation))
                waiting[value.operation][value.output] = value
                held = masses.setdefault(value, {})
                for up, more in mass.items():
                    more = self._of_a_response(value, up, more)  # noqa: PLW2901 - a part of it
                    held[up] = held[up] + more if up in held else more
        return {}

    def _of_a_response(self, value: Value, up: bool, mass: Tensor) -> Tensor:
        """The mass of a value, without units that do not respond: the only input of a sum gets all, but cannot win."""
        if value.units is None:
            return mass
        response = self.excitation(value, up)
        can_win = torch.zeros_like(mass, dtype=torch.bool) if response is None else response > 0
        return mass.where(can_win if value.free is None else can_win | value.free, 0)

    def _shares(self, operation: RecordedOperation, masses: dict[int, Mass]) -> Iterable[tuple[Value, Mass]]:
        if not operation.name:
            return
        for up in (True, False):
            of_outputs = [masses.get(i, {}).get(up) for i in range(len(operation.outputs))]
            if any(mass is not None for mass in of_outputs):
                for value, sign, mass in rule_for(operation).shares(operation, of_outputs, up, self.excitation):
                    yield value, {sign: mass}
