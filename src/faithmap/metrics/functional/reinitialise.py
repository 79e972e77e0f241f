"""Random weights in the place of trained ones, layer by layer, and the trained ones back.

A layer is a module with parameters of its own. Its new values are drawn in a copy of it, on the processor, whose generator
begins at a seed made of the run's seed and the layer's name: a layer gets the same values whichever others are random too.

:initialiser: the layer's ``reset_parameters``, or ``_reset_parameters`` as torch's attention has it. Buffers that it resets are
    reset with it: a batch norm's statistics become mean 0 and variance 1. What it leaves as it was, such as class tokens,
    position embeddings and LayerScale, is permuted.
:permutation: the trained values in random order, for all parameters alike; buffers stay. The scale of a layer, and with it that
    of the signal, is kept. A parameter with a single value stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from faithmap.capture import uncompiled
from faithmap.model import plain_name
from faithmap.seeds import derived, seeded

Draw: TypeAlias = Literal["initialiser", "permutation"]


class Order:
    """Layers by their dotted names, in the order in which a pass that is watched runs them.

    A layer that runs several times counts where it runs last. One that is not called as a module, such as the projection that
    torch's attention reads the weights of, stands right behind the module that it is in.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._last: dict[nn.Module, int] = {}
        self._calls = 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Hooks on all modules inside the block; none afterwards."""
        handles = [module.register_forward_pre_hook(self._note) for module in self.model.modules()]
        try:
            with uncompiled():
                yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def layers(self) -> dict[str, nn.Module]:
        """From the output down."""
        modules = dict(self.model.named_modules())
        times: dict[str, int] = {}
        for name, module in modules.items():
            times[name] = self._last.get(module, times.get(name.rpartition(".")[0], 0))
        rising = sorted(modules, key=times.__getitem__)  # stable: behind its parent
        found: dict[str, nn.Module] = {}
        for name in reversed(rising):
            if next(modules[name].parameters(recurse=False), None) is not None:
                found[name if plain_name(name) in found else plain_name(name)] = modules[name]
        return found

    def _note(self, module: nn.Module, arguments: object) -> None:
        del arguments
        self._calls += 1
        self._last[module] = self._calls


class Trained:
    """What a model holds, kept to be put back: values, training modes, and which parameters require gradients."""

    def __init__(self, model: nn.Module) -> None:
        self.values = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers()) if _can_be_written(t)]
        self.modes = [(module, module.training) for module in model.modules()]
        self.flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Evaluation mode and gradients enabled inside the block; everything as it was afterwards, whatever happens."""
        try:
            for module, _ in self.modes:
                module.training = False
            with torch.enable_grad():
                yield
        finally:
            self.restore()
            for module, mode in self.modes:
                module.training = mode
            for parameter, flag in self.flags:
                parameter.requires_grad_(flag)

    def restore(self) -> None:
        """The values alone. Written past autograd, so that a graph of the user's from before is still good afterwards."""
        for tensor, value in self.values:
            tensor.data.copy_(value)


def randomise(name: str, layer: nn.Module, seed: int, draw: Draw) -> None:
    """Write new values into a layer's own parameters, and the buffers that its initialiser resets."""
    seed = derived(seed, name)
    new = _initialised(layer, seed) if draw == "initialiser" else {}
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in layer.named_parameters(recurse=False):
        before = _on_processor(parameter)
        unchanged = key not in new or torch.equal(before, new[key])
        parameter.data.copy_(_permuted(before, generator) if unchanged else new[key])
    for key, buffer in layer.named_buffers(recurse=False):
        if key in new and not torch.equal(_on_processor(buffer), new[key]):
            buffer.data.copy_(new[key])


def _initialised(layer: nn.Module, seed: int) -> dict[str, Tensor]:
    """What a layer's initialiser makes of its own parameters and buffers; nothing where it has none."""
    name = next((n for n in ("reset_parameters", "_reset_parameters") if callable(getattr(layer, n, None))), None)
    if name is None:
        return {}
    twin = _twin(layer)
    with seeded(seed, torch.device("cpu")), torch.no_grad():
        getattr(twin, name)()
    own = (*twin.named_parameters(recurse=False), *twin.named_buffers(recurse=False))
    return {key: value.detach() for key, value in own}


def _permuted(values: Tensor, generator: torch.Generator) -> Tensor:
    return values.flatten()[torch.randperm(values.numel(), generator=generator)].view(values.shape)


def _twin(module: nn.Module) -> nn.Module:
    """A copy on the processor that shares no tensor, in single precision or better; hooks and all else are the module's own."""
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__)
    parameters = {key: None if p is None else nn.Parameter(_on_processor(p), False) for key, p in module._parameters.items()}
    buffers = {key: None if b is None else _on_processor(b) for key, b in module._buffers.items()}
    children = {key: None if child is None else _twin(child) for key, child in module._modules.items()}
    twin.__dict__.update(_parameters=parameters, _buffers=buffers, _modules=children)
    return twin


def _on_processor(value: Tensor) -> Tensor:
    half = value.dtype in (torch.float16, torch.bfloat16)
    return value.detach().to("cpu", torch.float32 if half else value.dtype, copy=True)


def _can_be_written(tensor: Tensor) -> bool:
    """Whether every element has a place of its own in memory; no layer writes into an expanded one."""
    return all(size <= 1 or stride != 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
