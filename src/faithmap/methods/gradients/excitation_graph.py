"""The operations of one forward pass, from the image to the score, as Excitation Backprop needs them.

A *value* is a tensor between two operations. Operations are recorded in torch's dispatcher, whichever module, function or
operator calls them. A tensor that is changed in place is a new value. Links point down only, from a value to the operation
that computed it: tensors that no later operation needs are freed during the pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from faithmap.capture import Operation, intercept_operations
from faithmap.model import plain_name

TAKES_UNITS = frozenset(
    {"convolution", "linear", "mm", "addmm", "bmm", "mean", "sum", "avg_pool2d", "_adaptive_avg_pool2d", "upsample_bilinear2d"}
)
"""Operations whose inputs are units: weighted sums and averages."""

MAKES_UNITS = frozenset({"relu", "hardtanh", "clamp", "clamp_min", "threshold", "leaky_relu"})
"""Operations whose outputs are units: rectifications."""

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
"""Operations that read only the shape of a tensor."""

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
        operation: that computed it.
        output: its number among the operation's results.
        shape: of the tensor.
        units: its numbers, kept where they are units: outputs of a rectification, inputs of a weighted sum, or a cut.
        free: for each image, whether its numbers are no responses, and any of them can win: pixels have no natural zero, and
            a layer that may be negative need not be one of units.
    """

    operation: RecordedOperation
    output: int
    shape: torch.Size
    units: Tensor | None = None
    free: Tensor | None = None


@dataclass(eq=False)
class RecordedOperation:
    """A recorded operation, in the form that writes into no argument.

    Attributes:
        name: of the operation, without overloads; empty for a cut.
        serial: rises in the order of operations.
        func: the operation; None if it has no form that can be repeated.
        args: as it was called, with values in place of the tensors that depend on the image.
        kwargs: likewise.
        where: the module that called it.
        outputs: shapes of its results.
        indices: of the largest numbers, for a maximum.
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
        """The argument of that name, positional or by keyword."""
        place = self._names.index(name) if name in self._names else len(self.args)
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)

    def run(self, tensors: Sequence[Tensor], changed: Mapping[str, Any] = MappingProxyType({})) -> list[Tensor]:
        """Repeat the operation with these tensors for the values, and with ``changed`` arguments by name."""
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


class Recorder:
    """Records the operations on images inside its block.

    Args:
        images: whose pixels are the first units.
    """

    def __init__(self, images: Tensor) -> None:
        self._values: MutableMapping[Tensor, Value] = WeakIdKeyDictionary()
        self._units: WeakSet[Value] = WeakSet()
        self._written: dict[int, tuple[StorageWeakRef, int]] = {}
        self._modules: list[str] = []
        self._serial = 0
        self.images = self.cut(images)
        self.images.free = torch.ones_like(images[:, :1, :1, :1], dtype=torch.bool)

    def cut(self, tensor: Tensor) -> Value:
        """Start anew at a tensor: a value of units, without the operations that made it."""
        self._serial += 1
        value = Value(RecordedOperation("", self._serial, outputs=[tensor.shape]), 0, tensor.shape)
        self._values[tensor] = value
        self._keep(value, tensor)
        value.free = (tensor < 0).flatten(1).any(dim=1).view(-1, *[1] * (tensor.ndim - 1))
        return value

    def value(self, tensor: Tensor) -> Value | None:
        """The value of a tensor; None if it does not depend on the image."""
        value, written = self._values.get(tensor), self._written.get(_storage(tensor)) if self._written else None
        if written is None or written[0].expired() or (value is not None and value.operation.serial >= written[1]):
            return value
        self._serial += 1
        name = "a tensor that shares its memory and was changed in place"
        return Value(RecordedOperation(name, self._serial, where=self._where, outputs=[tensor.shape]), 0, tensor.shape)

    @property
    def _where(self) -> str:
        return self._modules[-1] if self._modules else "the score"

    @contextmanager
    def naming(self, model: nn.Module) -> Iterator[None]:
        """Record the module in which each operation inside the block is called."""
        with ExitStack() as stack:
            for name, module in model.named_modules():
                label = (
                    f"layer {plain_name(name)!r} ({type(module).__name__})" if name else f"the model ({type(module).__name__})"
                )
                stack.callback(module.register_forward_pre_hook(self._entering(label)).remove)
                stack.callback(module.register_forward_hook(self._leaving).remove)
            yield

    def _entering(self, label: str) -> Any:
        def hook(module: nn.Module, arguments: Any) -> None:
            del module, arguments
            self._modules.append(label)

        return hook

    def _leaving(self, module: nn.Module, arguments: Any, output: Any) -> None:
        del module, arguments, output
        self._modules.pop()

    def recording(self) -> AbstractContextManager[None]:
        """Record the operations inside the block."""
        return intercept_operations(self._recorded)

    def _recorded(self, operation: Operation) -> Any:
        args, kwargs = tree_map(self._followed, (list(operation.args), dict(operation.kwargs)))
        if not any(isinstance(leaf, Value) for leaf in tree_leaves((args, kwargs))):
            return operation.run()
        self._serial += 1
        recorded = RecordedOperation(operation.name, self._serial, operation.pure, args, kwargs, self._where)
        if recorded.name == "as_strided" and _same_strides(*operation.args, **operation.kwargs):
            recorded.name = "alias"
        if recorded.name in TAKES_UNITS:
            self._keep_inputs((list(operation.args), dict(operation.kwargs)), (args, kwargs))
        written = [_storage(tensor) for tensor in operation.written]
        for value in list(self._units):
            if value.units is not None and _storage(value.units) in written:
                value.units = value.units.clone()
        result = operation.run()
        self._note(recorded, result)
        for tensor in operation.written:
            self._written[_storage(tensor)] = (StorageWeakRef(tensor.untyped_storage()), recorded.serial)
        return result

    def _followed(self, leaf: Any) -> Any:
        found = self.value(leaf) if isinstance(leaf, Tensor) else None
        return leaf if found is None else found

    def _note(self, operation: RecordedOperation, result: Any) -> None:
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        tensors = [tensor for tensor in results if isinstance(tensor, Tensor)]
        operation.outputs = [tensor.shape for tensor in tensors]
        operation.indices = next((tensor for tensor in tensors if tensor.dtype == torch.int64), None)
        for i, tensor in enumerate(tensors):
            if tensor.is_floating_point() and operation.name not in CONSTANT:
                self._values[tensor] = value = Value(operation, i, tensor.shape)
                if operation.name in MAKES_UNITS:
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


def _same_strides(tensor: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> bool:
    """Whether new strides read the same numbers: they may differ in dimensions of length 1."""
    pairs = zip(tensor.shape, tensor.stride(), stride, strict=False)
    same = tuple(size) == tuple(tensor.shape) and all(count == 1 or old == new for count, old, new in pairs)
    return same and storage_offset in (None, tensor.storage_offset())
