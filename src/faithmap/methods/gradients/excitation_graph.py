"""The operations of one forward pass, from the image to the score, as Excitation Backprop needs them.

A *value* is a tensor between two operations, a *step* one operation. Operations are recorded where torch dispatches them, so
that modules, functions and operators are all alike. A tensor that is changed in place is a new value. Links point down only,
from a value to the step that made it: what no later tensor needs is freed during the pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from faithmap.model import plain_name

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


class Tape(TorchDispatchMode):
    """Records what happens to an image inside the block.

    Args:
        images: whose pixels are the first units.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's own
        self._values: MutableMapping[Tensor, Value] = WeakIdKeyDictionary()
        self._units: WeakSet[Value] = WeakSet()
        self._written: dict[int, tuple[StorageWeakRef, int]] = {}
        self._modules: list[str] = []
        self._serial = 0
        self.images = self.enter(images)
        self.images.free = torch.ones_like(images[:, :1, :1, :1], dtype=torch.bool)

    def enter(self, tensor: Tensor) -> Value:
        """Forget how the tensor came about: its numbers are units that nothing was seen to excite."""
        self._serial += 1
        value = Value(Step("", self._serial, outputs=[tensor.shape]), 0, tensor.shape)
        self._values[tensor] = value
        self._keep(value, tensor)
        value.free = (tensor < 0).flatten(1).any(dim=1).view(-1, *[1] * (tensor.ndim - 1))
        return value

    def of(self, tensor: Tensor) -> Value | None:
        """What the tape knows of a tensor: None where it does not hang on the image."""
        value, written = self._values.get(tensor), self._written.get(_storage(tensor)) if self._written else None
        if written is None or written[0].expired() or (value is not None and value.step.serial >= written[1]):
            return value
        self._serial += 1
        name = "a tensor that shares its memory and was changed in place"
        return Value(Step(name, self._serial, where=self._where, outputs=[tensor.shape]), 0, tensor.shape)

    @property
    def _where(self) -> str:
        return self._modules[-1] if self._modules else "the score"

    @contextmanager
    def naming(self, model: nn.Module) -> Iterator[None]:
        """Steps inside the block say which module of the model they come from."""
        with ExitStack() as stack:
            for name, module in model.named_modules():
                told = (
                    f"layer {plain_name(name)!r} ({type(module).__name__})" if name else f"the model ({type(module).__name__})"
                )
                stack.callback(module.register_forward_pre_hook(self._entering(told)).remove)
                stack.callback(module.register_forward_hook(self._leaving).remove)
            yield

    def _entering(self, told: str) -> Any:
        def hook(module: nn.Module, arguments: Any) -> None:
            del module, arguments
            self._modules.append(told)

        return hook

    def _leaving(self, module: nn.Module, arguments: Any, output: Any) -> None:
        del module, arguments, output
        self._modules.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do the operation, and write down what it made of what."""
        del types
        kwargs = dict(kwargs or {})
        values = tree_map(self._followed, (list(args), kwargs))
        if not any(isinstance(leaf, Value) for leaf in tree_leaves(values)):
            return func(*args, **kwargs)
        step = self._step(func, *values)
        if step.name == "as_strided" and _same_strides(*args, **kwargs):
            step.name = "alias"
        if step.name in TAKES_UNITS:
            self._keep_inputs((list(args), kwargs), values)
        written = [_storage(tensor) for tensor in _changed(func, args, kwargs)]
        for value in [v for v in self._units if v.units is not None and _storage(v.units) in written]:
            value.units = value.units.clone()  # type: ignore[union-attr] # as the line above has it
        result = func(*args, **kwargs)
        self._note(step, result)
        for tensor in _changed(func, args, kwargs):
            self._written[_storage(tensor)] = (StorageWeakRef(tensor.untyped_storage()), step.serial)
        return result

    def _followed(self, leaf: Any) -> Any:
        found = self.of(leaf) if isinstance(leaf, Tensor) else None
        return leaf if found is None else found

    def _step(self, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Step:
        self._serial += 1
        space, name = func._schema.name.split("::")
        if name.endswith("_") and not name.endswith("__"):
            name = name[:-1]
            packet = getattr(getattr(torch.ops, space), name, None)
            func = getattr(packet, func._overloadname, None)
        name = name if space == "aten" else f"{space}::{name}"
        return Step(name, self._serial, func, args, kwargs, self._where)

    def _note(self, step: Step, result: Any) -> None:
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        tensors = [tensor for tensor in results if isinstance(tensor, Tensor)]
        step.outputs = [tensor.shape for tensor in tensors]
        step.indices = next((tensor for tensor in tensors if tensor.dtype == torch.int64), None)
        for i, tensor in enumerate(tensors):
            if tensor.is_floating_point() and step.name not in CONSTANT:
                self._values[tensor] = value = Value(step, i, tensor.shape)
                if step.name in MAKES_UNITS:
                    self._keep(value, tensor)

    def _keep_inputs(self, arguments: Any, values: Any) -> None:
        for tensor, value in zip(tree_leaves(arguments), tree_leaves(values), strict=True):
            if isinstance(value, Value):
                self._keep(value, tensor)

    def _keep(self, value: Value, tensor: Tensor) -> None:
        if value.units is None:
            value.units = tensor.detach()
            self._units.add(value)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _changed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes into."""
    found = []
    for place, argument in enumerate(func._schema.arguments):
        given = args[place] if place < len(args) else kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write and isinstance(given, Tensor):
            found.append(given)
    return found


def _same_strides(tensor: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> bool:
    """Whether new strides read the same numbers: they may differ where there is one number alone."""
    pairs = zip(tensor.shape, tensor.stride(), stride, strict=False)
    same = tuple(size) == tuple(tensor.shape) and all(count == 1 or old == new for count, old, new in pairs)
    return same and storage_offset in (None, tensor.storage_offset())
