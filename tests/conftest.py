"""Checks that everything comes back as it went in, and the small network that most tests disturb."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from oracles import SmallNet
from torch import Tensor, nn

torch.set_num_threads(2)


@pytest.fixture
def small_net() -> SmallNet:
    torch.manual_seed(0)
    return SmallNet()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For models and images so small that two are no faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def untouched() -> Iterator[Callable[[nn.Module], nn.Module]]:
    """Register a model; when the test is over, it must be bit for bit and flag for flag what it was."""
    watched: list[tuple[nn.Module, dict[str, Tensor], list[bool], list[bool], list[tuple[int, ...]]]] = []

    def hooks(model: nn.Module) -> list[tuple[int, ...]]:
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return [tuple(len(getattr(module, kind)) for kind in kinds) for module in model.modules()]

    def flags(model: nn.Module) -> tuple[list[bool], list[bool]]:
        return [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]

    def watch(model: nn.Module) -> nn.Module:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        watched.append((model, state, *flags(model), hooks(model)))
        return model

    yield watch
    for model, state, modes, trainable, hooked in watched:
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert (modes, trainable) == flags(model)
        assert hooked == hooks(model)
        assert all(p.grad is None for p in model.parameters())


@pytest.fixture(autouse=True)
def same_numbers_every_time() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    assert torch.is_grad_enabled()
