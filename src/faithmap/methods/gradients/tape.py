"""Tape: which operation made which tensor of one forward pass, from the image to the score.

Operations are seen where torch dispatches them, so that modules, functions and operators are all alike. What a tensor was
before it was changed in place is a value of its own. Links go down alone, from a value to the step that made it: what no later
tensor needs is forgotten as the pass goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from faithmap.methods.gradients.steps import CONSTANT, MAKES_UNITS, TAKES_UNITS, Step, Value
from faithmap.model import plain_name


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
