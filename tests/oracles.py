"""Models whose right answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

Untouched: TypeAlias = Callable[[nn.Module], nn.Module]
"""The fixture of that name: registers a model that has to be unchanged after the test."""

T = TypeVar("T")


def given(value: T | None) -> T:
    """A value that is not None."""
    assert value is not None
    return value


def fails_from(first: int) -> Callable[[int, int], None]:
    """A progress callback that raises as soon as ``first`` passes are done."""

    def fails(done: int, total: int) -> None:
        if done >= first:
            raise ZeroDivisionError

    return fails


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
        patch = x[:, :, self.rows, self.columns].mean(dim=(1, 2, 3))
        logit = self.gain * (patch - 0.5)
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
        logits: Tensor = self.head(self.drop(x.mean(dim=(2, 3)))) * 20
        return logits
