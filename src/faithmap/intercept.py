"""Intercept the operations of a model's pass: see each with its arguments, and do it, or another in its place.

torch shows a pass at two levels, and the library needs both:

operations
    Below autograd, where modules, functions and operators are all alike, and changes in place are visible. To follow tensors:
    where cells are centred (:mod:`faithmap.placement`), what made the score (Excitation Backprop).
calls
    Above autograd, as the model's author wrote them. Only here can a module with backward hooks take the place of a function,
    as the methods of captum need it: below, the gradient of the function is already fixed.

Compiled models run uncompiled inside, since their operations are not visible otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation or a call that is about to be done.

    Attributes:
        function: a torch operator, or the function that was called.
        args: its positional arguments.
        kwargs: its keyword arguments.
        name: the same in all forms: without overload, without the underscores of in-place forms, without ``aten``.

    >>> Operation(torch.ops.aten.relu_.default, (), {}).name, Operation(torch.Tensor.__iadd__, (), {}).name
    ('relu', 'iadd')
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self._name())

    def _name(self) -> str:
        schema = getattr(self.function, "_schema", None)
        if schema is None:
            return str(getattr(self.function, "__name__", "")).strip("_")
        space, name = schema.name.split("::")
        name = name[:-1] if self._in_place else name
        return name if space == "aten" else f"{space}::{name}"

    @property
    def pure(self) -> Any:
        """The operator in the form that writes into no argument; None if it has no such form."""
        if not self._in_place:
            return self.function
        space, name = self.function._schema.name.split("::")
        packet = getattr(getattr(torch.ops, space), name[:-1], None)
        return getattr(packet, self.function._overloadname, None)

    @property
    def written(self) -> list[Tensor]:
        """The tensors that the operator writes into."""
        found = []
        for place, argument in enumerate(self.function._schema.arguments):
            given = self.args[place] if place < len(self.args) else self.kwargs.get(argument.name)
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(given, Tensor):
                found.append(given)
        return found

    def run(self) -> Any:
        """Do it as it was called."""
        return self.function(*self.args, **self.kwargs)

    @property
    def _in_place(self) -> bool:
        name: str = self.function._schema.name
        return name.endswith("_") and not name.endswith("__")


Intercept: TypeAlias = Callable[[Operation], Any]
"""Does an operation, by ``run`` or otherwise, and returns its result."""


@contextmanager
def intercept_operations(intercept: Intercept) -> Iterator[None]:
    """Send every operation below autograd inside the block through a function.

    >>> seen = []
    >>> with intercept_operations(lambda operation: (seen.append(operation.name), operation.run())[1]):
    ...     zero = torch.nn.ReLU()(torch.zeros(1))
    >>> seen
    ['zeros', 'relu']
    """
    with uncompiled(), _Operations(intercept):
        yield


@contextmanager
def intercept_calls(intercept: Intercept) -> Iterator[None]:
    """Send every call of a torch function inside the block through a function.

    >>> ones = torch.ones(2)
    >>> with intercept_calls(lambda call: call.run() + 1 if call.name == "relu" else call.run()):
    ...     torch.nn.functional.relu(ones)
    tensor([2., 2.])
    """
    with uncompiled(), _Calls(intercept):
        yield


@contextmanager
def note_outputs(modules: Iterable[nn.Module], note: Callable[[nn.Module, Any, Any], None]) -> Iterator[None]:
    """Call a function with each module, its arguments and its output, whenever one of the modules has run inside the block."""
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(note).remove)
        yield


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled models operation by operation inside the block, so that hooks are called."""
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # nothing can have been compiled without it, and to load it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


class _Operations(TorchDispatchMode):
    def __init__(self, intercept: Intercept) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's own
        self.intercept = intercept

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return self.intercept(Operation(func, args, kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, intercept: Intercept) -> None:
        super().__init__()
        self.intercept = intercept

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return self.intercept(Operation(func, args, kwargs or {}))
