"""Excitation backprop: against loops over dense matrices, against a network written without negative units, and by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import SmallNet, Untouched, given
from torch import Tensor, nn
from torch.nn import functional as F

import faithmap as fm
from faithmap import image_generators
from faithmap.methods.cams.cam import GradCAM
from faithmap.methods.gradients import ContrastiveExcitationBackprop, ExcitationBackprop

pytestmark = [
    pytest.mark.filterwarnings("ignore::faithmap.LowConfidenceWarning"),
    pytest.mark.filterwarnings("ignore::faithmap.EmptyHeatmapWarning"),
]

PICTURES = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


class Stack(nn.Module):
    """Stages with a rectification between them, a linear layer at the end."""

    def __init__(self, *stages: nn.Module, rectify: Callable[[Tensor], Tensor] = F.relu, classes: int = 4) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.rectified = nn.ModuleList(Rectify(rectify) for _ in stages)
        self.rectify = rectify
        with torch.no_grad():
            images_in = PICTURES
            for stage in stages:
                images_in = rectify(stage.double().eval()(images_in).clone())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(images_in[0].numel(), classes)).double()

    def forward(self, x: Tensor) -> Tensor:
        for stage, rectify in zip(self.stages, self.rectified, strict=True):
            x = rectify(stage(x))
        logits: Tensor = self.head(x)
        return logits


class Rectify(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Does(nn.Module):
    """A function of one tensor, with modules at hand."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


class Sum(nn.Module):
    """Branches that end in one sum: each is a connection of its own between the same units."""

    def __init__(self, *branches: nn.Module, factors: tuple[float, ...] = (1.0, 1.0)) -> None:
        super().__init__()
        self.branches, self.factors = nn.ModuleList(branches), factors

    def forward(self, x: Tensor) -> Tensor:
        first, second = (branch(x) for branch in self.branches)
        return torch.add(first * self.factors[0], second, alpha=self.factors[1])


class InPlace(Sum):
    def forward(self, x: Tensor) -> Tensor:
        first, second = (branch(x) for branch in self.branches)
        total: Tensor = first.add_(second)
        return total


class Less(Sum):
    def forward(self, x: Tensor) -> Tensor:
        first, second = (branch(x) for branch in self.branches)
        return torch.sub(first, second, alpha=-self.factors[1])


def norm(channels: int) -> nn.BatchNorm2d:
    """With scales of both signs."""
    layer = nn.BatchNorm2d(channels).double().eval()
    for tensor in (given(layer.running_mean), layer.weight.data, layer.bias.data):
        tensor.normal_()
    given(layer.running_var).uniform_(0.5, 2)
    return layer


def conv(into: int, out: int, size: int | tuple[int, int] = 3, stride: int = 1, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(into, out, size, stride, **settings).double()


def by_hand(model: Stack, image: Tensor, target: int, sign: float = 1.0) -> list[Tensor]:
    """Eqs. 1 and 2, unit by unit: P of the image, and of what each rectification put out."""
    responses, stages = [image], [*model.stages, model.head]
    for stage in model.stages:
        responses.append(model.rectify(stage(responses[-1]).clone()).detach())
    winning = F.one_hot(torch.tensor(target), 4).double()
    found = []
    for stage, response in zip(reversed(stages), reversed(responses), strict=True):
        contributions = torch.zeros(len(winning), response.numel()).double()
        for branch, factor in zip(getattr(stage, "branches", [stage]), getattr(stage, "factors", [1.0, 1.0]), strict=False):
            jacobian = torch.autograd.functional.jacobian(branch, response, vectorize=True)
            weights = sign * factor * jacobian.reshape(len(winning), -1)
            contributions = contributions + (weights * response.flatten()).clamp(min=0)
        sign, below = 1.0, torch.zeros(response.numel()).double()
        for probability, row in zip(winning.tolist(), contributions, strict=True):
            if probability > 0 and row.sum() > 0:
                below += probability * row / row.sum()
        winning = below
        found.append(winning.view(response.shape))
    return found[::-1]


STAGES: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: conv(4, 4, 3, padding=1, stride=2),
    "no bias": lambda: conv(4, 4, bias=False),
    "groups and dilation": lambda: conv(4, 6, 3, groups=2, dilation=2, padding=1),
    "transposed": lambda: nn.ConvTranspose2d(4, 4, 3, stride=2).double(),
    "norm": lambda: nn.Sequential(conv(4, 4), norm(4)),
    "norm of units": lambda: norm(4),
    "residual": lambda: Sum(nn.Sequential(conv(4, 4, 3, padding=1), norm(4)), nn.Identity()),
    "residual in place": lambda: InPlace(nn.Sequential(conv(4, 4, 3, padding=1), norm(4)), nn.Identity()),
    "projected": lambda: Sum(nn.Sequential(conv(4, 3, 3, padding=1), norm(3)), nn.Sequential(conv(4, 3, 1), norm(3))),
    "difference": lambda: Less(conv(4, 3), conv(4, 3), factors=(1.0, -0.5)),
    "from a constant": lambda: Does(lambda x, c: 1 - c(x) / 2, conv(4, 4)),
    "negated": lambda: Does(lambda x, c: -c(x).mul_(torch.tensor([[[2.0]], [[-3.0]]])) + 0.25, conv(4, 2)),
    "same": lambda: Does(lambda x, c: c(F.pad(x, (0, 1, 0, 1))), conv(4, 4, 3, stride=2)),
    "padded with ones": lambda: Does(lambda x: F.pad(x, (1, 1, 1, 1), value=1.0)),
    "reflected": lambda: Does(lambda x, c: F.pad(c(x), (1, 2, 1, 0), mode="reflect"), conv(4, 4)),
    "maximum": lambda: nn.Sequential(conv(4, 4), nn.MaxPool2d(3, 2, 1)),
    "adaptive maximum": lambda: nn.Sequential(conv(4, 4), nn.AdaptiveMaxPool2d(2)),
    "average": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "adaptive average": lambda: nn.AdaptiveAvgPool2d((4, 3)),
    "mean": lambda: Does(lambda x: x.mean(dim=(2, 3), keepdim=True).expand(-1, -1, 2, 3)),
    "upsampled": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "nearest": lambda: nn.Sequential(conv(4, 2), nn.Upsample(scale_factor=2)),
    "concatenated": lambda: Does(lambda x, c: torch.cat([c(x), x, torch.ones_like(x)], dim=1), conv(4, 2, 3, padding=1)),
    "split": lambda: Does(lambda x, c: torch.cat(c(x).split((1, 3), dim=1)[::-1], dim=1)[:, 1:], conv(4, 4)),
    "shuffled": lambda: nn.Sequential(conv(4, 4), nn.ChannelShuffle(2), nn.PixelShuffle(2), nn.Dropout2d(), nn.Identity()),
    "permuted": lambda: Does(lambda x, c: c(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Linear(4, 3).double()),
    "bare matrix": lambda: Does(
        lambda x, c: (x.flatten(2) @ c.weight[:, 0, 0, :25].T).unflatten(2, (2, 2)), conv(1, 4, (1, 25))
    ),
}


@pytest.mark.filterwarnings("ignore:.*nothing inhibits the score")
@pytest.mark.parametrize("name", STAGES)
def test_every_operation_against_loops(name: str) -> None:
    """At each layer and at the image, of positive pixels and of such as are normalised; the dual unit's walk likewise."""
    torch.manual_seed(11)
    images = PICTURES - torch.tensor([0.0, 0.5]).view(2, 1, 1, 1)
    model = Stack(conv(3, 4, 3, padding=1), STAGES[name](), nn.LazyConv2d(2, 2)).eval()
    hands = [[by_hand(model, image, i, sign) for i, image in enumerate(images.split(1))] for sign in (1.0, -1.0)]
    for number, layer in enumerate(("input", "rectified.0", "rectified.1", "rectified.2")):
        won, dual = (torch.cat([found[number] for found in hand]) for hand in hands)
        explanation = ExcitationBackprop(model, target_layer=layer)(images, [0, 1])
        mass = won.sum(dim=(1, 2, 3))
        assert [d["mass"] for d in explanation.diagnostics] == pytest.approx(mass.tolist(), abs=1e-9)
        assert torch.allclose(explanation.heatmap, (won.sum(dim=1) / mass.view(-1, 1, 1)).nan_to_num(), atol=1e-9), layer
        contrast = ContrastiveExcitationBackprop(model, target_layer=layer, relu=False)(images, [0, 1])
        assert torch.allclose(contrast.heatmap, (won - dual).sum(dim=1), atol=1e-9), layer


@pytest.mark.parametrize(
    "rectify",
    [
        F.relu6,
        lambda x: F.relu(x, inplace=True),
        lambda x: F.hardtanh(x, 0.0, 0.3, inplace=True),
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_(0, 0.5),
        lambda x: F.threshold(x, 0.0, 0.0),
        lambda x: torch.clamp_min(x, 0),
    ],
)
def test_all_rectifications_are_alike(rectify: Callable[[Tensor], Tensor]) -> None:
    model = Stack(conv(3, 4), Sum(conv(4, 4, 3, padding=1), nn.Identity()), rectify=rectify).eval()
    for layer, won in zip(("input", "rectified.0", "rectified.1"), by_hand(model, PICTURES[:1], 2), strict=True):
        explanation = ExcitationBackprop(model, target_layer=layer)(PICTURES[:1], 2)
        assert torch.allclose(explanation.heatmap, won.sum(dim=1) / won.sum(), atol=1e-9)


def test_by_hand() -> None:
    """Two pixels, three units, two classes; the numbers are worked out in docs/methods/excitation_backprop.md."""
    first, head = nn.Conv2d(1, 3, (1, 2), bias=False), nn.Linear(3, 2, bias=False)
    first.weight.data = torch.tensor([[1.0, 1.0], [2.0, -0.5], [-1.0, 1.0]]).view(3, 1, 1, 2)
    head.weight.data = torch.tensor([[1.0, 1.0, -0.5], [0.0, 0.0, 1.0]])
    model = nn.Sequential(first, nn.ReLU(), nn.Flatten(), head)
    image = torch.tensor([[[[1.0, 3.0]]]])
    explanation = ExcitationBackprop(model, target_layer="input")(image, 0)
    assert torch.allclose(explanation.heatmap, torch.tensor([[[1 / 3, 2 / 3]]]))
    units = ExcitationBackprop(model, target_layer="1")(image, 0)
    assert units.heatmap.tolist() == [[[1.0]]]
    contrast = ContrastiveExcitationBackprop(model, target_layer="input")(image, 0)
    assert torch.allclose(contrast.heatmap, torch.tensor([[[1 / 3, 0.0]]]))
    signed = ContrastiveExcitationBackprop(model, target_layer="input", relu=False)(image, 0)
    assert torch.allclose(signed.heatmap, torch.tensor([[[1 / 3, -1 / 3]]]))


class Bottleneck(nn.Module):
    """An inverted residual block with a linear end; in pairs, each unit of that end is written as two rectified ones."""

    def __init__(self, pairs: bool) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.begin, self.narrow, self.wide, self.end = conv(3, 4), conv(4, 2, 1), conv(2, 5), conv(5, 2, 3, padding=2)
        self.last, self.head, self.pairs = conv(2, 4), nn.Linear(4, 3).double(), pairs

    def forward(self, x: Tensor) -> Tensor:
        b = self.narrow(F.relu(self.begin(x)))
        if self.pairs:
            up, down = F.relu(b), F.relu(-b)
            inner = F.relu(conv_of(self.wide, up) - conv_of(self.wide, down, bias=False))
            total = self.end(inner) + up - down
            up, down = F.relu(total), F.relu(-total)
            top = conv_of(self.last, up) - conv_of(self.last, down, bias=False)
        else:
            top = self.last(b + self.end(F.relu(self.wide(b))))
        logits: Tensor = self.head(F.relu(top).mean(dim=(2, 3)))
        return logits


def conv_of(layer: nn.Conv2d, x: Tensor, bias: bool = True) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias if bias else None)


@pytest.mark.parametrize("explainer", [ExcitationBackprop, ContrastiveExcitationBackprop])
def test_a_unit_that_may_be_negative_is_two_that_are_not(explainer: type[ExcitationBackprop]) -> None:
    plain, pairs = (explainer(Bottleneck(p), target_layer="input")(PICTURES - 0.5, 1) for p in (False, True))
    assert torch.allclose(given(plain.score), given(pairs.score))
    assert torch.allclose(plain.heatmap, pairs.heatmap, atol=1e-12)
    assert torch.allclose(plain.heatmap.sum(dim=(1, 2)), torch.ones(2).double()) or explainer is ContrastiveExcitationBackprop


def test_a_leaky_unit_is_a_pair_as_well() -> None:
    def pair(x: Tensor) -> Tensor:
        return F.relu(x) - 0.1 * F.relu(-x)

    torch.manual_seed(1)
    leaky = Stack(conv(3, 4), conv(4, 2), rectify=lambda x: F.leaky_relu(x, 0.1)).eval()
    plain = copy.deepcopy(leaky)
    for module in plain.rectified:
        assert isinstance(module, Rectify)
        module.function = pair
    first, second = (ExcitationBackprop(model, target_layer="input")(PICTURES, 1).heatmap for model in (leaky, plain))
    assert torch.allclose(first, second, atol=1e-12)


class TwoPatches(nn.Module):
    """Each class looks at a patch of its own, behind two rectified convolutions that do not spread."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 2, 2), nn.ReLU(inplace=True))
        self.visible = torch.zeros(2, 8, 8)
        self.visible[0, 1:3, 1:3], self.visible[1, 5:7, 4:6] = 1, 1
        for module in self.body[::2]:
            assert isinstance(module, nn.Conv2d)
            module.weight.data.abs_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).mean(dim=1)
        first, second = ((x * visible).sum(dim=(1, 2)) for visible in self.visible)
        return torch.stack([first - second, second - first], dim=1)


@pytest.mark.parametrize("layer", ["input", "body.3"])
def test_it_looks_where_the_model_looks(layer: str) -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = TwoPatches()
    for explainer in (ExcitationBackprop, ContrastiveExcitationBackprop):
        explanation = explainer(model, target_layer=layer)(images, [0, 1])
        visible = model.visible if layer == "body.3" else model.visible.repeat_interleave(2, 1).repeat_interleave(2, 2)
        assert torch.equal(explanation.heatmap > 0, visible > 0)
        assert torch.allclose(explanation.heatmap.sum(dim=(1, 2)), torch.ones(2))
    other = ContrastiveExcitationBackprop(model, target_layer=layer, relu=False)(images, [0, 1])
    assert torch.allclose(other.heatmap.sum(dim=(1, 2)), torch.zeros(2), atol=1e-6)
    assert other.rows is None or other.rows.tolist() == [2 * j + 0.5 for j in range(8)]


def test_a_callable_target_is_walked_from() -> None:
    model = Stack(conv(3, 4), classes=3).eval()
    for explainer in (ExcitationBackprop, ContrastiveExcitationBackprop):
        explain = explainer(model, target_layer="rectified.0")
        found, wanted = explain(PICTURES, lambda out: out[:, 0] * 2.0), explain(PICTURES, 0)
        assert torch.allclose(found.heatmap, wanted.heatmap)
    both = ExcitationBackprop(model, target_layer="rectified.0")(PICTURES, lambda out: out[:, 0] - out[:, 2])
    up, down = (ExcitationBackprop(model, target_layer="rectified.0")(PICTURES, c).heatmap for c in (0, lambda out: -out[:, 2]))
    units = F.relu(model.stages[0](PICTURES)).flatten(1)
    weight = model.head.get_parameter("1.weight")
    share = [(units @ part.relu()).view(-1, 1, 1) for part in (weight[0], -weight[2])]
    assert torch.allclose(both.heatmap, (share[0] * up + share[1] * down) / sum(share))
    with pytest.raises(ValueError, match="cannot pass _softmax in the score"):
        ExcitationBackprop(model, target_layer="rectified.0")(PICTURES, lambda out: out.softmax(dim=1)[:, 0])


LAYERS = {
    "resnet18": (None, "input", "maxpool", "layer1.0", "layer4.1", "avgpool"),
    "vgg11": (None, "input", "features.5"),
}


AT = {64: "input", 32: "features.2", 8: "features.10", 4: "features.15"}
"""VGG's pixels, pool1, pool3 and pool4, for images of 64 pixels."""


@pytest.mark.sweep
@pytest.mark.parametrize(("name", "default"), [("resnet18", "layer3.0"), ("vgg11", "features.15")])
def test_all_of_it_arrives(name: str, default: str, untouched: Untouched) -> None:
    """The default is the authors' layer: pool4 of VGG-16, the fourth pooling, and res4a of ResNet."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = untouched(getattr(models, name)(num_classes=7))
    image = torch.rand(1, 3, 64, 64) - 0.4
    for side, at in AT.items() if name == "vgg11" else ():
        assert ExcitationBackprop(model, resolution=side)(image).diagnostics[0]["target_layer"] == [at]
    for layer in LAYERS[name]:
        explanation = ExcitationBackprop(model, target_layer=layer)(image)
        assert explanation.diagnostics[0]["mass"] == pytest.approx(1, abs=1e-5)
        assert float(explanation.heatmap.sum()) == pytest.approx(1, abs=1e-5)
        assert float(explanation.heatmap.min()) >= 0
        if layer is None:
            assert explanation.diagnostics[0]["target_layer"] == [default] == [explanation.settings["target_layer"]]
            gradcam = GradCAM(model, target_layer=default)(image)
            assert torch.equal(given(explanation.rows), given(gradcam.rows))
            assert torch.equal(given(explanation.columns), given(gradcam.columns))


def test_only_a_part_passes_a_branch() -> None:
    torch.manual_seed(0)
    block = Sum(nn.Sequential(conv(4, 4, 3, padding=1), nn.ReLU()), nn.Identity())
    model = Stack(conv(3, 4), block).eval()
    parts = [ExcitationBackprop(model, target_layer=f"stages.1.branches.{i}")(PICTURES, 1) for i in (0, 1)]
    masses = [[d["mass"] for d in part.diagnostics] for part in parts]
    assert [a + b for a, b in zip(*masses, strict=True)] == pytest.approx([1.0, 1.0])
    assert min(min(masses)) > 0.05
    whole = ExcitationBackprop(model, target_layer="stages.1")(PICTURES, 1)
    total = torch.stack([torch.tensor(m).view(2, 1, 1) * p.heatmap for m, p in zip(masses, parts, strict=True)]).sum(dim=0)
    assert torch.allclose(whole.heatmap, total)


def test_of_a_trained_network_all_arrives_that_does_not_end_in_a_bias() -> None:
    """Its depthwise convolutions have units that are active though nothing excites them."""
    model = fm.load("efficientnet_lite0")
    image = model.read(fm.sample_photo())[:, :, 40:136, 40:136]
    explanation = ExcitationBackprop(model)(image)
    assert explanation.settings["target_layer"] == "blocks.3.0.bn2.act"
    assert explanation.resolution == (6, 6)
    unbiased = copy.deepcopy(model)
    for name, parameter in unbiased.named_parameters():
        if name.endswith(".bias"):
            parameter.data.zero_()
    for layer in ("blocks.3.0.bn2.act", "input"):
        explanation = ExcitationBackprop(model, target_layer=layer)(image)
        assert float(explanation.heatmap.sum()) == pytest.approx(1, abs=1e-5)
        assert 0.001 < explanation.diagnostics[0]["mass"] < 0.3
        diagnostics = ExcitationBackprop(unbiased, target_layer=layer)(image).diagnostics[0]
        assert diagnostics["mass"] == pytest.approx(1, abs=1e-4)


def pooled() -> nn.Sequential:
    """Three resolutions, each after a pooling."""
    torch.manual_seed(0)
    stages = [layer for into in (3, 4) for layer in (nn.Conv2d(into, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))]
    return nn.Sequential(*stages, nn.Flatten(), nn.Linear(4 * 16, 3)).eval()


@pytest.mark.parametrize(("side", "layer"), [(16, "input"), (8, "2"), (4, "5")])
def test_a_resolution_stands_for_the_first_layer_that_has_it(side: int, layer: str) -> None:
    model, images = pooled(), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found, wanted = ExcitationBackprop(model, resolution=side)(images), ExcitationBackprop(model, target_layer=layer)(images)
    assert found.resolution == (side, side)
    assert found.settings["target_layer"] == layer
    assert torch.equal(found.heatmap, wanted.heatmap)


def test_a_resolution_that_no_layer_has_is_refused_with_those_that_exist() -> None:
    images = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"resolution is 5x5, which no layer .* has; give one of 16x16, 8x8, 4x4"):
        ExcitationBackprop(pooled(), resolution=5)(images)
    with pytest.raises(ValueError, match="resolution 8 and target_layer '2' are both given; give one"):
        ExcitationBackprop(pooled(), resolution=8, target_layer="2")(images)


def test_the_default_of_networks_with_one_resolution_or_none() -> None:
    assert ExcitationBackprop(Stack(conv(3, 2)).eval())(PICTURES).settings["target_layer"] == "rectified.0"
    flat = nn.Sequential(nn.Flatten(), nn.Linear(75, 3)).double()
    assert ExcitationBackprop(flat)(PICTURES).settings["target_layer"] == "input"


@pytest.mark.parametrize("explainer", [ExcitationBackprop, ContrastiveExcitationBackprop])
@pytest.mark.parametrize("layer", [None, "input"])
def test_batch_chunk_and_order_do_not_matter(explainer: type, layer: str | None, small_net: SmallNet, images: Tensor) -> None:
    small_net.double()
    images = images.double()
    whole = explainer(small_net, target_layer=layer)(images)
    assert torch.allclose(explainer(small_net, target_layer=layer, chunk_size=2)(images).heatmap, whole.heatmap, atol=1e-12)
    last = explainer(small_net, target_layer=layer)(images[2:], generator=image_generators(0, [2])).heatmap
    assert torch.allclose(last, whole.heatmap[2:], atol=1e-12)
    turned = explainer(small_net, target_layer=layer)(images.flip(0), whole.target.flip(0)).heatmap
    assert torch.allclose(turned.flip(0), whole.heatmap, atol=1e-12)
    assert [(d["forward_passes"], d["backward_passes"]) for d in whole.diagnostics] == [(2, 1)] * 3


@pytest.mark.parametrize("how", ["autocast", "half"])
def test_half_precision(how: str, small_net: SmallNet, images: Tensor) -> None:
    wanted = ExcitationBackprop(small_net)(images, 1).heatmap
    if how == "autocast":
        found = ExcitationBackprop(small_net, autocast=torch.bfloat16)(images, 1).heatmap
    else:
        found = ExcitationBackprop(small_net.bfloat16())(images.bfloat16(), 1).heatmap
    assert found.dtype == torch.float32
    assert torch.allclose(found, wanted, atol=0.02 * float(wanted.max()))


def test_normalisation_may_be_inside_or_outside(small_net: SmallNet, images: Tensor) -> None:
    inside = fm.Classifier(small_net, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    outside = (images - inside.mean) / inside.std
    found, wanted = (
        ExcitationBackprop(m, target_layer="input")(x, 2).heatmap for m, x in ((inside, images), (small_net, outside))
    )
    assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("explainer", [ExcitationBackprop, ContrastiveExcitationBackprop])
def test_model_and_images_are_left_unchanged(
    explainer: type[ExcitationBackprop], small_net: SmallNet, images: Tensor, untouched: Untouched
) -> None:
    small_net.train()
    untouched(small_net)
    initial = images.clone()
    with torch.no_grad():
        explainer(small_net)(images)
    assert torch.equal(images, initial)
    assert images.grad is None
    assert not images.requires_grad

    def fails(output: Tensor) -> Tensor:
        raise RuntimeError("a score that fails")

    with pytest.raises(RuntimeError, match="a score that fails"):
        explainer(small_net)(images, fails)
    small_net.add_module("drop", nn.SiLU())
    untouched(small_net)
    with pytest.raises(ValueError, match="cannot pass silu in layer 'drop'"):
        explainer(small_net)(images)
    torch.rand(3) + 1  # no mode is left on
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()


def filled(x: Tensor, c: nn.Module) -> Tensor:
    buffer = torch.zeros(len(x), 4, 3, 3, dtype=x.dtype)
    buffer[:, :2] = c(x)
    return buffer


def seen_before(x: Tensor, c: nn.Module) -> Tensor:
    y = c(x)
    half = y[:, :1]
    y.mul_(2)
    total: Tensor = half + y
    return total


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "silu": (lambda: nn.Sequential(conv(3, 2), nn.SiLU()), r"silu in layer 'stages.0.1' \(SiLU\): it is neither"),
    "gate": (
        lambda: Does(lambda x, c: c(x) * c(x).sigmoid(), conv(3, 2)),
        "mul in layer 'stages.0' .*both depend on the image",
    ),
    "divided": (lambda: Does(lambda x, c: 1 / c(x), conv(3, 2)), "cannot pass reciprocal in layer 'stages.0'"),
    "ratio": (lambda: Does(lambda x: x / x.sum()), "cannot pass div in"),
    "layer norm": (lambda: nn.LayerNorm((3, 5, 5)), "native_layer_norm in layer 'stages.0'"),
    "batch statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), "the batch's own statistics"),
    "hardtanh": (nn.Hardtanh, "cannot pass hardtanh .*does not rectify at 0"),
    "clamp": (lambda: Does(lambda x: x.clamp(0.1, 0.5)), "cannot pass clamp .*does not rectify at 0"),
    "dynamic": (lambda: Does(lambda x: F.conv2d(x, x[:1, :, :2, :2])), "convolution .*two tensors that both depend"),
    "buffer": (lambda: Does(filled, conv(3, 2)), "cannot pass a tensor that shares its memory and was changed in place in"),
    "view": (lambda: Does(seen_before, conv(3, 2)), "cannot pass a tensor that shares its memory and was changed in place in"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operations_without_a_rule_are_named_in_the_error(name: str) -> None:
    make, message = REFUSED[name]
    model = Stack(make()).eval()
    with pytest.raises(ValueError, match=message):
        ExcitationBackprop(model, target_layer="input")(PICTURES, 1)
    behind = ExcitationBackprop(model, target_layer="rectified.0")(PICTURES, 1)
    assert torch.allclose(behind.heatmap.sum(dim=(1, 2)), torch.ones(2).double())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: ExcitationBackprop(m, target_layer="conv3"), "'conv3' is no module of the model; did you mean 'conv"),
        (lambda m: ExcitationBackprop(m, target_layer=["conv1", "conv2"]), "names 2 layers; give one"),
        (lambda m: ExcitationBackprop(m, target_layer="relu"), "'relu' runs several times"),
        (lambda m: ExcitationBackprop(m, target_layer=m.head), r"'head' returns \(1, 5\); give a layer"),
        (lambda m: ExcitationBackprop(m, target_layer=nn.ReLU()), "ReLU is not a module of the model"),
        (lambda m: ExcitationBackprop(m, chunk_size=0), "chunk_size is 0"),
        (lambda m: ExcitationBackprop(Aside(m), target_layer="aside"), "'aside' does not feed the score"),
        (lambda m: ExcitationBackprop(Constant()), "does not depend on the image"),
    ],
)
def test_settings_outside_their_range_are_refused(
    make: Callable[[nn.Module], ExcitationBackprop], message: str, small_net: SmallNet, images: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        make(small_net)(images, 1)


def test_a_score_that_nothing_inhibits_has_no_dual(small_net: SmallNet, images: Tensor) -> None:
    rectified = nn.Sequential(small_net, nn.ReLU())
    target = small_net.eval()(images).argmax(dim=1)
    with pytest.warns(fm.FaithmapWarning, match="nothing inhibits the score"):
        explanation = ContrastiveExcitationBackprop(rectified)(images, target)
    assert torch.allclose(explanation.heatmap, ExcitationBackprop(rectified)(images, target).heatmap, atol=1e-6)
    assert all("nothing inhibits" in d["warnings"][0] for d in explanation.diagnostics)


class Aside(nn.Module):
    """With a layer whose result nobody wants."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.aside = inner, nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        output: Tensor = self.inner(x)
        return output


class Constant(nn.Module):
    """Says the same of every image."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.arange(3.0).expand(len(x), -1)
