"""Target layers: every way to name one, and the picture in what vision transformers return."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
from oracles import SmallNet, Untouched, given
from torch import Tensor, nn

from faithmap.default_layer import is_norm_of_positions
from faithmap.layers import TargetLayer, TokenGrid, channels_first, find_layers, target_layers
from faithmap.methods.cams.cam import GradCAM
from faithmap.model import Classifier, plain_name

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.warning_types.FaithmapWarning")


Entry: TypeAlias = TargetLayer | Callable[[SmallNet], TargetLayer]


@pytest.mark.parametrize(
    "layer",
    ["conv2", "module.conv2", lambda net: net.conv2, ["conv1", "conv2"], lambda net: [net.conv2, "conv1"], None],
    ids=["name", "wrapped name", "module", "names", "both", "none"],
)
def test_layers_are_found(layer: Entry, small_net: SmallNet, images: Tensor) -> None:
    entry: TargetLayer = layer(small_net) if callable(layer) else layer
    for model in (small_net, Classifier(small_net), nn.DataParallel(small_net)):
        found = find_layers(model, entry, images)
        assert "conv2" in found
        assert all(small_net.get_submodule(name) is layer for name, layer in found.items())
        assert list(found)[:1] == (["conv1"] if entry == ["conv1", "conv2"] else ["conv2"])


def test_names_of_wrapped_models() -> None:
    assert plain_name("module.module._orig_mod.blocks.3") == "blocks.3"
    assert plain_name("features.0") == "features.0"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("conv3", "target_layer 'conv3' is no module of the model; did you mean 'conv"),
        ("zzzzzzzz", "see model.named_modules"),
        ("", "target_layer '' is no module"),
        ([], "target_layer is empty"),
        (nn.Conv2d(3, 3, 1), "target_layer Conv2d is not a module of the model"),
    ],
)
def test_invalid_layers_are_refused(layer: TargetLayer, message: str, small_net: SmallNet, images: Tensor) -> None:
    with pytest.raises(ValueError, match=message):
        GradCAM(small_net, target_layer=layer)(images)


def test_a_model_without_a_spatial_layer_is_refused(untouched: Untouched) -> None:
    model = untouched(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    with pytest.raises(ValueError, match="no layer of the model has a spatial output"):
        GradCAM(model)(torch.rand(1, 3, 2, 2))


def test_an_output_in_which_a_change_is_not_local_needs_a_reshape_transform(images: Tensor) -> None:
    model = nn.Sequential(
        nn.Flatten(1), nn.Linear(3 * 32 * 32, 16 * 9), nn.Unflatten(1, (16, 9)), nn.Flatten(1), nn.Linear(144, 3)
    )
    with pytest.raises(ValueError, match="a local change of the image is not local in it; give a layer before"):
        GradCAM(model, target_layer="2")(images)
    with pytest.raises(ValueError, match=r"reshape_transform returned \(1, 16, 9\)"):
        GradCAM(model, target_layer="2", reshape_transform=lambda x: x)(images)
    picture = GradCAM(model, target_layer="2", reshape_transform=lambda x: x.unflatten(2, (3, 3)))(images)
    assert picture.heatmap.shape == (3, 3, 3)


def test_channels_before_flattened_positions_are_read() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.Flatten(2), nn.Flatten(1), nn.Linear(5 * 6 * 8, 3))
    image = torch.rand(1, 3, 24, 32)
    flat, upright = (GradCAM(model, target_layer=name)(image, 0).heatmap for name in ("1", "0"))
    assert torch.equal(flat, upright)
    assert flat.shape == (1, 6, 8)


def test_tokens_in_reading_order() -> None:
    tokens = torch.arange(14.0).view(1, 7, 2)
    grid = TokenGrid((2, 3), prefix=1)(tokens)
    assert grid.shape == (1, 2, 2, 3)
    assert grid[0, :, 1, 0].tolist() == tokens[0, 4].tolist()
    assert channels_first(torch.rand(1, 4, 5, 6)).shape == (1, 6, 4, 5)


timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

TRANSFORMERS: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, int], tuple[int, int]]] = {
    "timm vit": (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=5), "blocks.11.norm1", (224, 224), (14, 14)),
    "timm deit, two prefix tokens": (
        lambda: timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5),
        "blocks.11.norm1",
        (224, 224),
        (14, 14),
    ),
    "timm vit, registers and another size": (
        lambda: timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=(96, 160), reg_tokens=4),
        "blocks.11.norm1",
        (96, 160),
        (6, 10),
    ),
    "timm swin": (
        lambda: timm.create_model("swin_tiny_patch4_window7_224", num_classes=5),
        "layers.3.blocks.1.norm1",
        (224, 224),
        (7, 7),
    ),
    "torchvision vit": (
        lambda: torchvision.models.vit_b_32(num_classes=5),
        "encoder.layers.encoder_layer_11.ln_1",
        (224, 224),
        (7, 7),
    ),
    "torchvision swin": (lambda: torchvision.models.swin_t(num_classes=5), "features.7.1.norm1", (224, 224), (7, 7)),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_need_no_settings(name: str) -> None:
    """The layer is found, its tokens become a picture, and each patch stands where it was cut out."""
    make, layer, size, grid = TRANSFORMERS[name]
    torch.manual_seed(0)
    model, image = make(), torch.rand(1, 3, *size)
    for parameter in model.parameters():
        if parameter.shape[0] == 5:
            nn.init.normal_(parameter)
    explanation = GradCAM(model, relu=False)(image, 1)
    assert explanation.diagnostics[0]["target_layer"] == [layer]
    assert explanation.resolution == grid
    assert explanation.heatmap.abs().sum() > 0
    patch = size[0] / grid[0], size[1] / grid[1]
    assert given(explanation.rows).tolist() == pytest.approx([patch[0] * (j + 0.5) - 0.5 for j in range(grid[0])])
    assert given(explanation.columns).tolist() == pytest.approx([patch[1] * (j + 0.5) - 0.5 for j in range(grid[1])])


def test_a_patch_of_a_transformer_is_at_its_place_in_the_image() -> None:
    """One patch is changed; the token that changes at the first block's norm is the one of that place."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=(64, 96)).eval()
    image = torch.zeros(1, 3, 64, 96)
    bright = image.clone()
    bright[..., 16:32, 48:64] = 1
    layer = find_layers(model, "blocks.0.norm1", image)["blocks.0.norm1"]
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        model(image), model(bright)
    handle.remove()
    changed = TokenGrid((4, 6), prefix=1)(kept[1] - kept[0]).abs().sum(dim=1)[0]
    assert changed.nonzero().tolist() == [[1, 3]]


def test_hugging_face_vit() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        num_labels=4,
    )
    model = transformers.ViTForImageClassification(config)
    explanation = GradCAM(model, relu=False)(torch.rand(2, 3, 32, 32), 1)
    assert explanation.resolution == (4, 4)
    assert explanation.diagnostics[0]["target_layer"][0].endswith("1.layernorm_before")
    assert explanation.heatmap.abs().sum() > 0


RESNET = ["layer4", "layer3", "layer2"]
SCALES = {
    "tf_efficientnet_lite0": (timm, ["bn2", "blocks.5.0.bn1", "blocks.3.0.bn1"]),
    "resnet18": (torchvision.models, RESNET),
    "resnet50": (torchvision.models, RESNET),
    "vgg11": (torchvision.models, ["features.19", "features.14", "features.9"]),
    "densenet121": (torchvision.models, ["features", "features.transition3.relu", "features.transition2.relu"]),
    "mobilenet_v2": (torchvision.models, ["features", "features.14.conv.0", "features.7.conv.0"]),
}


@pytest.mark.sweep
@pytest.mark.parametrize("name", SCALES)
def test_the_last_layer_of_each_resolution_behind_its_nonlinearity(name: str) -> None:
    library, layers = SCALES[name]
    torch.manual_seed(0)
    model = library.create_model(name) if library is timm else getattr(library, name)()
    image = torch.rand(1, 3, 224, 224)
    model.eval()
    assert list(find_layers(model, None, image, 3)) == layers
    assert list(find_layers(model, None, image)) == layers[:1]


def test_channels_at_the_end_are_no_width() -> None:
    model = timm.create_model("convnext_atto").eval()
    image = torch.rand(1, 3, 224, 224)
    layers = find_layers(model, None, image, 9)
    centres = target_layers(model, list(layers), None, image, placement="tiles").centres
    assert [(len(rows), len(columns)) for rows, columns in centres.values()] == [(56, 56), (28, 28), (14, 14), (7, 7)]


@pytest.mark.parametrize(
    ("module", "norm"),
    [
        (nn.LayerNorm(2), True),
        (nn.GroupNorm(1, 2), True),
        (nn.RMSNorm(2), True),
        (nn.BatchNorm2d(2), False),
        (nn.InstanceNorm2d(2), False),
        (nn.Sequential(nn.BatchNorm2d(2)), False),
    ],
)
def test_a_batch_norm_is_part_of_a_convolution_and_no_norm_of_positions(module: nn.Module, norm: bool) -> None:
    """Around the other norms of a block paths lead, too, but they normalise what the block reads."""
    assert is_norm_of_positions(module) == norm
