"""Cells stand where they look: against impulses, against gradients, and on models whose object lies at a known place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import given
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.capture import CellTracker, Placement, probed, tiles
from faithmap.methods.cams.cam import GradCAM

SIZE = 65


class Same(nn.Module):
    """Stride 2 with the padding of TensorFlow: more of it at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        padded: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return padded


class ChannelsLast(nn.Module):
    """A norm over the channels, as ConvNeXt has it: to the end and back, which cannot be tracked."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2) * 1


class Block(nn.Module):
    """A residual block that halves the picture, with a pooled and a convolved branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, stride=2, padding=1)
        self.down = nn.Conv2d(1, 1, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = F.relu(self.conv(x)) + self.down(x)
        return total


MODELS: dict[str, Callable[[], nn.Module]] = {
    "stride": lambda: nn.Conv2d(1, 1, 3, stride=4, padding=1),
    "rows unlike columns": lambda: nn.Conv2d(1, 1, (3, 5), stride=(2, 4), padding=(0, 2), dilation=(2, 1)),
    "pooling": lambda: nn.Sequential(nn.Conv2d(1, 1, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2)),
    "same": lambda: nn.Sequential(Same(), Same(), nn.ReLU(), Same()),
    "residual": lambda: nn.Sequential(Block(), nn.Hardtanh(inplace=True), Block(), Block()),
    "no padding": lambda: nn.Sequential(nn.Conv2d(1, 1, 5), nn.MaxPool2d(2), nn.Conv2d(1, 1, 3)),
    "module padding": lambda: nn.Sequential(nn.ZeroPad2d((3, 0, 1, 2)), nn.Conv2d(1, 1, 3, stride=2)),
    "reflected": lambda: nn.Sequential(nn.ReflectionPad2d((2, 1, 3, 0)), nn.Conv2d(1, 1, 3, stride=3)),
    "channels last": lambda: nn.Sequential(nn.Conv2d(1, 1, 4, 4), ChannelsLast(), nn.Conv2d(1, 1, 2, 2)),
}


def centres_by_gradient(model: nn.Module, image: Tensor, row: int, column: int) -> tuple[float, float]:
    """Middle of the pixels that a cell depends on."""
    image = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(image)[0, :, row, column].sum(), image)
    rows, columns = gradient[0, 0].abs().sum(dim=1).nonzero(), gradient[0, 0].abs().sum(dim=0).nonzero()
    return (rows.min() + rows.max()).item() / 2, (columns.min() + columns.max()).item() / 2


def spread_out(module: nn.Module) -> nn.Module:
    """The same windows, with a gradient to every pixel in them."""
    if isinstance(module, nn.MaxPool2d):
        return nn.AvgPool2d(module.kernel_size, module.stride, module.padding)
    if isinstance(module, (nn.Hardtanh, ChannelsLast)):
        return nn.Identity()
    for name, child in module.named_children():
        setattr(module, name, spread_out(child))
    return module


@pytest.mark.parametrize("name", MODELS)
def test_a_cell_is_centred_on_its_receptive_field(name: str) -> None:
    image = torch.rand(1, 1, SIZE, SIZE)
    with torch.no_grad(), (tracker := CellTracker(image)).tracking():
        output = MODELS[name]()(image)
    rows, columns = given(tracker.place(output)).centres((output.shape[-2], output.shape[-1]))
    row, column = output.shape[-2] // 2, output.shape[-1] // 2
    model = spread_out(MODELS[name]())
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    assert (rows[row].item(), columns[column].item()) == centres_by_gradient(model, image, row, column)


def test_centres_equal_published_receptive_fields() -> None:
    """A ResNet's stride-32 cells stand at 32 j, those of an EfficientNet with SAME padding at 32 j + 31."""
    torchvision, timm = pytest.importorskip("torchvision"), pytest.importorskip("timm")
    for model, start in ((torchvision.models.resnet18(), 0), (timm.create_model("tf_efficientnet_lite0"), 31)):
        image = torch.rand(1, 3, 224, 224)
        features: list[Tensor] = []
        last = model.layer4 if start == 0 else model.bn2
        handle = last.register_forward_hook(lambda module, args, output, kept=features: kept.append(output))
        with torch.no_grad(), (tracker := CellTracker(image)).tracking():
            model.eval()(image)
        handle.remove()
        rows, columns = given(tracker.place(features[0])).centres((7, 7))
        assert rows.tolist() == columns.tolist() == [start + 32 * j for j in range(7)]


def test_tiles_are_equal_parts_of_the_image() -> None:
    rows, columns = tiles((2, 4), (8, 8)).centres((2, 4))
    assert rows.tolist() == [1.5, 5.5]
    assert columns.tolist() == [0.5, 2.5, 4.5, 6.5]


def test_unknown_operations_give_no_centres() -> None:
    image = torch.rand(1, 1, 12, 12)
    with (tracker := CellTracker(image)).tracking():
        shuffled = image.view(1, 1, 6, 2, 6, 2).mean(dim=(3, 5))
    assert tracker.place(shuffled) is None


class EveryFourth(nn.Module):
    """A stride by slicing, which cannot be tracked: cells look at 4 j + 1 and 4 j + 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(x[:, :, 1::4, 2::4]).relu().mean(dim=(2, 3)))
        return logits


def test_gradients_place_the_cells_where_strides_are_unknown() -> None:
    explanation = GradCAM(EveryFourth(), target_layer="conv", relu=False)(torch.rand(2, 1, 40, 24))
    assert given(explanation.rows).tolist() == pytest.approx([4 * j + 1 for j in range(10)], abs=1e-6)
    assert given(explanation.columns).tolist() == pytest.approx([4 * j + 2 for j in range(6)], abs=1e-6)


def test_the_placement_setting_decides_the_centres() -> None:
    """A convolution whose weight lies in its first tap looks at 4 j, though its window is centred on 4 j + 1."""
    first = nn.Conv2d(1, 1, 3, stride=4)
    nn.init.zeros_(first.weight)
    first.weight.data[..., 0, 0] = 1
    model = nn.Sequential(first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    starts: tuple[tuple[Placement, float], ...] = (("strides", 1.0), ("gradients", 0.0), ("tiles", 1.5))
    for placement, start in starts:
        explanation = GradCAM(model, target_layer="0", relu=False, placement=placement)(torch.rand(1, 1, 40, 40))
        assert given(explanation.rows).tolist() == pytest.approx([start + 4 * j for j in range(10)], abs=1e-5)
    wrong: dict[str, Any] = {"placement": "middle"}
    with pytest.raises(ValueError, match="'middle'; give one of strides, gradients, tiles"):
        GradCAM(model, **wrong)(torch.rand(1, 1, 40, 40))


def test_a_probe_finds_the_middle_of_a_symmetric_window() -> None:
    blur = torch.outer(*[torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0])] * 2).expand(1, 1, 5, 5)
    image = torch.rand(1, 1, 50, 50)
    place = probed(lambda x: F.conv2d(x, blur, stride=5), image, (10, 10))
    assert place.start == pytest.approx((2.0, 2.0))
    assert place.jump == pytest.approx((5.0, 5.0))


@pytest.mark.parametrize(
    "blind",
    [
        lambda x: (x * 0)[:, :, ::4, ::4],
        lambda x: x.flip(2)[:, :, ::4, ::4],
        lambda x: x[:, :, torch.randperm(40)][:, :, ::4, ::4],
        lambda x: x[:, :, ::39, ::39][:, :, :1],
    ],
)
def test_zero_gradients_leave_equal_tiles(blind: Callable[[Tensor], Tensor]) -> None:
    image = torch.rand(1, 1, 40, 40)
    rows, columns = blind(image).shape[-2:]
    shape = (rows, columns)
    assert probed(blind, image, shape) == tiles(shape, (40, 40))


@pytest.mark.parametrize("padding", ["resnet", "same"])
def test_the_map_is_high_on_the_object(padding: str) -> None:
    """A white square on black, at every place: the map's centre of mass, drawn, is within a pixel of the square's."""
    first = nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False) if padding == "resnet" else Same()
    later = [nn.Conv2d(4, 4, 3, stride=2, padding=1, bias=False, groups=4) for _ in range(2)]
    body = nn.Sequential(first, *later) if padding == "resnet" else nn.Sequential(Same(), Same(), Same())
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 if padding == "resnet" else 1, 2))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.0 if parameter.ndim == 1 else 0.1)
    for top, left in ((20, 20), (24, 40), (41, 27)):
        image = torch.zeros(1, 1, 80, 80)
        image[..., top : top + 16, left : left + 16] = 1
        explanation = GradCAM(model, target_layer="0")(image, 0)
        drawn = explanation.at()[0]
        at = torch.arange(80.0)
        found = (drawn.sum(1) @ at / drawn.sum()).item(), (drawn.sum(0) @ at / drawn.sum()).item()
        assert found == pytest.approx((top + 7.5, left + 7.5), abs=1.0)
