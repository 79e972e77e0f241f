"""What a tape is made of: values and the steps between them; and kinds of operations, by their names in torch's dispatcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

TAKES_UNITS = frozenset(
    {"convolution", "linear", "mm", "addmm", "bmm", "mean", "sum", "avg_pool2d", "_adaptive_avg_pool2d", "upsample_bilinear2d"}
)
"""Operations that mix the numbers that they take in: weighted sums and averages."""

MAKES_UNITS = frozenset({"relu", "hardtanh", "clamp", "clamp_min", "threshold", "leaky_relu"})
"""Operations that rectify."""

CONSTANT = frozenset(
    {
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "randn_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
    }
)
"""Operations that look at a tensor's shape alone."""

FACTORS = {
    "convolution": ("input", "weight"),
    "linear": ("input", "weight"),
    "mm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "bmm": ("self", "mat2"),
}
"""The two arguments that a weighted sum multiplies."""

NORMS = ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")

UNCHANGED = ("_to_copy", "clone", "detach", "alias", "lift_fresh", "contiguous")
"""The same numbers in another tensor."""


@dataclass(eq=False)
class Value:
    """A tensor of the pass, as it was between two operations.

    Attributes:
        step: that made it.
        output: which of the step's results it is.
        shape: of it.
        units: its numbers, kept where they are units: put out by a rectification, taken in by a weighted sum, or at the stop.
        free: for each image, whether its numbers are no responses, and any of them can win: pixels have no natural zero, and
            a layer that may be negative need not be one of units.
    """

    step: Step
    output: int
    shape: torch.Size
    units: Tensor | None = None
    free: Tensor | None = None


@dataclass(eq=False)
class Step:
    """An operation that was done, in its form that changes nothing in place.

    Attributes:
        name: of the operation, without overloads; empty where the pass was entered.
        serial: rises in the order of operations.
        func: the operation; None where it has no form that can be done again.
        args: as it was called, with values in place of the tensors that hang on the image.
        kwargs: likewise.
        where: the module that called it.
        outputs: shapes of its results.
        indices: of the winners, of a maximum.
        inputs: the values among the arguments, in order.
    """

    name: str
    serial: int
    func: Any = None
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    where: str = "the model"
    outputs: list[torch.Size] = field(default_factory=list)
    indices: Tensor | None = None
    inputs: list[Value] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Value)]

    def argument(self, name: str, default: Any = None) -> Any:
        """What was given for the argument of that name."""
        place = self._names.index(name) if name in self._names else len(self.args)
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)

    def run(self, tensors: Sequence[Tensor], changed: Mapping[str, Any] = MappingProxyType({})) -> list[Tensor]:
        """The operation again, with other tensors for the values, and other arguments where they are named."""
        fresh = iter(tensors)
        args, kwargs = tree_map(lambda leaf: next(fresh) if isinstance(leaf, Value) else leaf, (self.args, self.kwargs))
        for name, value in changed.items():
            place = self._names.index(name)
            if place < len(args):
                args[place] = value
            else:
                kwargs[name] = value
        result = self.func(*args, **kwargs)
        return list(result) if isinstance(result, (tuple, list)) else [result]

    @property
    def _names(self) -> list[str]:
        return [] if self.func is None else [argument.name for argument in self.func._schema.arguments]
