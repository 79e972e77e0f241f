from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from faithmap.zoo import fold_batch_norm

SIZE = (3, 9, 9)


class Net(nn.Module):
    """A convolution, a normalisation, and what comes between and after them."""

    def __init__(self, **conv: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, **conv)
        self.bn = nn.BatchNorm2d(6)

    def features(self, x: Tensor) -> Tensor:
        output: Tensor = self.bn(self.conv(x))
        return output

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.features(x).relu().mean(dim=(2, 3))
        return output


class Around(Net):
    def features(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        output: Tensor = self.bn(x) + x
        return output


class ConvTwice(Net):
    def features(self, x: Tensor) -> Tensor:
        output: Tensor = self.bn(self.conv(x)) + self.conv(x).mean()
        return output


class NormTwice(Net):
    def features(self, x: Tensor) -> Tensor:
        output: Tensor = self.bn(self.bn(self.conv(x)))
        return output


class InPlaceBetween(Net):
    def features(self, x: Tensor) -> Tensor:
        output: Tensor = self.bn(F.relu(self.conv(x), inplace=True))
        return output


class TwoReaders(Net):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm2d(6)

    def features(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        output: Tensor = self.bn(x) * self.other(x)
        return output


class SumBefore(Net):
    def features(self, x: Tensor) -> Tensor:
        output: Tensor = self.bn(self.conv(x) + 1)
        return output


class Unusual(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = super().forward(x).abs()
        return output


def folded_copy(module: nn.Module, size: tuple[int, int, int]) -> Any:
    return fold_batch_norm(module, size)


def net_with(norm: nn.BatchNorm2d) -> Net:
    net = Net()
    net.bn = norm
    return net


def compare(module: nn.Module, folded: nn.Module, size: tuple[int, ...] = SIZE) -> None:
    images = torch.rand((2, *size), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = module(images)
        torch.testing.assert_close(folded(images), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_equation_on_known_numbers() -> None:
    conv, bn = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.5)
    values: dict[Any, float] = {conv.weight: 2, conv.bias: 1, bn.weight: 5, bn.bias: 6, bn.running_mean: 3, bn.running_var: 3.5}
    with torch.no_grad():
        for tensor, value in values.items():
            tensor.fill_(value)
    folded = folded_copy(nn.Sequential(conv, bn, nn.Flatten()), (1, 2, 2))
    assert folded[0].weight.item() == 5  # 2 * 5 / sqrt(3.5 + 0.5)
    assert folded[0].bias.item() == 1  # (1 - 3) * 5 / 2 + 6
    assert isinstance(folded[1], nn.Identity)


@pytest.mark.parametrize("conv", [{}, {"bias": False}, {"groups": 3}, {"padding": 1, "stride": 2}], ids=str)
@pytest.mark.parametrize("norm", [{}, {"affine": False}], ids=str)
def test_same_function(conv: dict[str, Any], norm: dict[str, Any], lived_in: Callable[[nn.Module], Any]) -> None:
    net = Net(**conv)
    net.bn = nn.BatchNorm2d(6, **norm)
    initial = {key: value.clone() for key, value in lived_in(net).state_dict().items()}
    folded = folded_copy(net, SIZE)
    assert isinstance(folded.bn, nn.Identity)
    compare(net, folded)
    assert all(torch.equal(value, initial[key]) for key, value in net.state_dict().items())
    assert isinstance(net.bn, nn.BatchNorm2d)


@pytest.mark.parametrize("kind", [Around, ConvTwice, NormTwice, InPlaceBetween, TwoReaders, SumBefore])
def test_a_convolution_with_another_reader_is_not_folded(kind: Any, lived_in: Callable[[nn.Module], Any]) -> None:
    net = lived_in(kind())
    assert fold_batch_norm(net, SIZE) is net


def test_unusual_normalisations_and_convolutions_are_not_folded(lived_in: Callable[[nn.Module], Any]) -> None:
    for norm in (Unusual(6), nn.BatchNorm2d(6, track_running_stats=False)):
        net = net_with(norm).eval()
        assert fold_batch_norm(net, SIZE) is net
    net = lived_in(Net())
    weight_norm(net.conv)
    assert fold_batch_norm(net, SIZE) is net


def test_foldable_pairs_are_folded_beside_others(lived_in: Callable[[nn.Module], Any]) -> None:
    module = lived_in(nn.Sequential(Around().conv, nn.ReLU(), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)))
    module.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
    folded = folded_copy(module, SIZE)
    assert [type(child).__name__ for child in folded[:5]] == ["Conv2d", "ReLU", "BatchNorm2d", "Conv2d", "Identity"]
    compare(module, folded)


class Followed(nn.Module):
    """Something that may not be folded, then something that may."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.conv = nn.Conv2d(6, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.bn(self.conv(self.net.features(x))).mean(dim=(2, 3))
        return output


@pytest.mark.parametrize(
    "net",
    [ConvTwice(), NormTwice(), InPlaceBetween(), TwoReaders(), SumBefore(), net_with(Unusual(6))],
    ids=lambda net: type(net.bn if type(net) is Net else net).__name__,
)
def test_a_foldable_pair_behind_another_net_is_folded(net: Any, lived_in: Callable[[nn.Module], Any]) -> None:
    module = lived_in(Followed(net))
    folded = folded_copy(module, SIZE)
    assert isinstance(folded.bn, nn.Identity)
    assert isinstance(folded.net.bn, nn.BatchNorm2d)
    compare(module, folded)


def test_without_batch_norm_nothing_is_run() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    module.register_forward_hook(lambda *args: pytest.fail("run"))
    assert fold_batch_norm(module, SIZE) is module


def test_timm_activation_and_names_stay(lived_in: Callable[[nn.Module], Any]) -> None:
    module = lived_in(timm.create_model("tf_efficientnet_lite0", num_classes=7))
    folded = folded_copy(module, (3, 64, 64))
    compare(module, folded, (3, 64, 64))
    assert isinstance(folded.get_submodule("blocks.1.0.bn1.act"), nn.ReLU6)
    assert {name for name, _ in module.named_modules()} == {name for name, _ in folded.named_modules()}
    assert not any(isinstance(child, nn.BatchNorm2d) for child in folded.modules())


def test_torchvision_residuals_and_gradient(lived_in: Callable[[nn.Module], Any]) -> None:
    module = lived_in(torchvision.models.resnet18(num_classes=7))
    folded = folded_copy(module, (3, 64, 64))
    assert not any(isinstance(child, nn.BatchNorm2d) for child in folded.modules())
    gradients: list[Any] = []
    for net in (module, folded):
        image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)).requires_grad_()
        net(image)[0, 3].backward()
        gradients.append(image.grad)
    scale = float(gradients[0].abs().max())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-4 * scale)


def test_hooks_modes_and_random_numbers_are_restored(lived_in: Callable[[nn.Module], Any]) -> None:
    net = lived_in(Net())
    net.conv.weight.requires_grad_(False)
    state = torch.get_rng_state()
    folded = folded_copy(net.train(), SIZE)
    assert not folded.conv.weight.requires_grad
    assert not folded.conv.bias.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    for module in (net, folded):
        assert not any(child.training for child in module.modules())
        assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())


def test_trainable_weights_stay_trainable(lived_in: Callable[[nn.Module], Any]) -> None:
    folded = folded_copy(lived_in(Net(bias=False)), SIZE)
    assert folded.conv.weight.requires_grad
    assert folded.conv.bias.requires_grad


def test_hooks_are_removed_when_the_module_fails() -> None:
    net = Net()
    with pytest.raises(RuntimeError):
        fold_batch_norm(net, (5, 9, 9))
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in net.modules())
