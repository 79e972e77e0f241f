import socket

import pytest
import torch
from torch import nn


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt to reach another computer fails at once, on this computer too."""

    def refuse(*args, **kwargs):
        raise OSError("there is no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def lived_in():
    """Give a fresh module weights and statistics as training would leave them: none at its neutral value."""

    def settle(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d):
                child.running_mean.normal_(0, 0.3, generator=generator)
                child.running_var.uniform_(0.5, 2, generator=generator)
                if child.affine:
                    nn.init.uniform_(child.weight, 0.5, 1.5, generator=generator)
                    nn.init.normal_(child.bias, 0, 0.3, generator=generator)
        return module.eval()

    return settle
