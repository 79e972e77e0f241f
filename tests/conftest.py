"""Models whose right answer is known, and a check that a model comes back as it went in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

torch.set_num_threads(2)


class Linear(nn.Module):
    """Two classes whose logits are +-w.x: everything about it has a closed form."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        evidence = (x * self.weight).sum(dim=(1, 2, 3))
        return torch.stack([evidence, -evidence], dim=1)


class Patch(nn.Module):
    """Looks at one rectangle alone: class 0 is as likely as the rectangle is bright."""

    def __init__(self, rows: slice, columns: slice, gain: float = 12.0) -> None:
        super().__init__()
        self.rows, self.columns, self.gain = rows, columns, gain

    def forward(self, x: Tensor) -> Tensor:
        seen = x[:, :, self.rows, self.columns].mean(dim=(1, 2, 3))
        logit = self.gain * (seen - 0.5)
        return torch.stack([logit, -logit], dim=1)


class SmallNet(nn.Module):
    """An ordinary convolutional network with everything that can be disturbed: dropout, batch norm, in-place ops."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv1(x)))
        x = self.relu(self.conv2(x))
        return self.head(self.drop(x.mean(dim=(2, 3)))) * 20


@pytest.fixture
def small_net() -> SmallNet:
    torch.manual_seed(0)
    return SmallNet()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


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
