from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection fails at once, also one to this computer."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("there is no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def lived_in() -> Callable[[nn.Module], Any]:
    """Give an untrained module weights and statistics that are not neutral, as after training."""

    def settle(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d):
                assert child.running_mean is not None
                assert child.running_var is not None
                child.running_mean.normal_(0, 0.3, generator=generator)
                child.running_var.uniform_(0.5, 2, generator=generator)
                if child.affine:
                    nn.init.uniform_(child.weight, 0.5, 1.5, generator=generator)
                    nn.init.normal_(child.bias, 0, 0.3, generator=generator)
        return module.eval()

    return settle
