"""Score-CAM, Ablation-CAM and Eigen-CAM against their definitions, one channel at a time."""

from __future__ import annotations

import pytest
import torch
from oracles import SmallNet, Untouched, given
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.methods.cams.cam import LayerExplainer
from faithmap.methods.cams.gradient_free import AblationCAM, EigenCAM, ScoreCAM
from faithmap.model import Classifier

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.warning_types.FaithmapWarning")

METHODS = [ScoreCAM, AblationCAM, EigenCAM]


def activation_of(net: SmallNet, images: Tensor) -> Tensor:
    activation: Tensor = net.conv2(net.relu(net.norm(net.conv1(images))))
    return activation.detach()


@pytest.fixture
def net(small_net: SmallNet) -> SmallNet:
    return small_net.eval()


def test_score_cam_channel_by_channel(net: SmallNet, images: Tensor) -> None:
    explanation = ScoreCAM(net, target_layer="conv2", chunk_size=5, relu=False)(images, [0, 1, 2])
    with torch.no_grad():
        a = activation_of(net, images)
        for i in range(3):
            scores = []
            for channel in a[i]:
                scaled = (channel - channel.min()) / (channel.max() - channel.min())
                up = F.interpolate(scaled[None, None], (32, 32), mode="bilinear", align_corners=True)
                scores.append(net(images[i : i + 1] * up)[0, i])
            expected = (torch.stack(scores).softmax(0).view(-1, 1, 1) * a[i]).sum(0)
            assert torch.allclose(explanation.heatmap[i], expected, atol=1e-5)
    assert [d["forward_passes"] for d in explanation.diagnostics] == [17] * 3


def test_score_cam_hides_by_the_models_own_zero(net: SmallNet, images: Tensor) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    wrapped = ScoreCAM(Classifier(net, mean=mean, std=std), target_layer="conv2")(images, 1)
    shifted = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.allclose(wrapped.heatmap, ScoreCAM(net, target_layer="conv2")(shifted, 1).heatmap, atol=1e-4)
    blurred = ScoreCAM(net, target_layer="conv2", baseline="blur", relu=False)(images, 1).heatmap
    assert not torch.allclose(blurred, ScoreCAM(net, target_layer="conv2", relu=False)(images, 1).heatmap, atol=1e-4)
    same = ScoreCAM(net, target_layer="conv2", relu=False)(images, 1, baseline="blur").heatmap
    assert torch.equal(blurred, same)


def test_a_channel_that_is_one_value_shows_nothing(images: Tensor) -> None:
    constant = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(constant.weight)
    model = nn.Sequential(constant, nn.Flatten(), nn.Linear(2048, 2))
    assert ScoreCAM(model, target_layer="0")(images, 0).heatmap.isfinite().all()


def test_ablation_cam_channel_by_channel(net: SmallNet, images: Tensor) -> None:
    explanation = AblationCAM(net, target_layer="conv2", chunk_size=5, relu=False)(images, [0, 1, 2])
    with torch.no_grad():
        a = activation_of(net, images)
        for i in range(3):
            falls = []
            for k in range(16):
                without = a[i : i + 1].clone()
                without[:, k] = 0
                falls.append(given(explanation.score)[i] - 20 * net.head(without.relu().mean(dim=(2, 3)))[0, i])
            weights = torch.stack(falls) / given(explanation.score)[i].abs()
            assert torch.allclose(explanation.heatmap[i], (weights.view(-1, 1, 1) * a[i]).sum(0), atol=1e-5)
    assert [d["forward_passes"] for d in explanation.diagnostics] == [17] * 3


def test_ablation_cam_takes_patches_away_and_leaves_the_class_token() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3, depth=2, embed_dim=24).eval()
    image = torch.rand(1, 3, 32, 32)
    explanation = AblationCAM(model, target_layer="blocks.1.norm1", relu=False, chunk_size=7)(image, 0)
    kept: list[Tensor] = []

    def ablate(module: nn.Module, args: object, output: Tensor) -> Tensor:
        kept.append(output.clone())
        output[:, 1:, len(kept) - 1] = 0
        return output

    handle = model.blocks[1].norm1.register_forward_hook(ablate)
    with torch.no_grad():
        scores = torch.stack([model(image)[0, 0] for _ in range(24)])
        handle.remove()
        clean = model(image)[0, 0]
    patches = kept[0][0, 1:].T.reshape(24, 2, 2)
    expected = (((clean - scores) / clean.abs()).view(-1, 1, 1) * patches).sum(dim=0)
    assert torch.allclose(explanation.heatmap[0], expected, atol=1e-5)
    assert expected.abs().max() > 1e-3


def test_eigen_cam_of_one_pattern() -> None:
    """Where all channels are multiples of one picture, that picture is the map, up to a positive factor."""
    picture = torch.rand(1, 1, 6, 5) + 0.1
    model = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Flatten(), nn.Linear(90, 2))
    model[0].weight.data = torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1, 1)
    heatmap = EigenCAM(model, target_layer="0")(picture, 0).heatmap
    assert torch.allclose(heatmap, picture[:, 0] * 5.25**0.5, atol=1e-5)


def test_eigen_cam_is_the_first_component(net: SmallNet, images: Tensor) -> None:
    """The first component's energy is the largest singular value's."""
    heatmap = EigenCAM(net, target_layer="conv2", relu=False)(images).heatmap
    largest = torch.linalg.svdvals(activation_of(net, images).flatten(2)).amax(dim=1)
    assert torch.allclose(heatmap.flatten(1).norm(dim=1), largest, rtol=1e-4)
    assert (heatmap.sum(dim=(1, 2)) >= 0).all()
    assert torch.equal(heatmap, EigenCAM(net, target_layer="conv2", relu=False)(images, 3).heatmap)


@pytest.mark.parametrize("method", METHODS)
def test_batch_and_chunk_do_not_matter(method: type[LayerExplainer], net: SmallNet, images: Tensor) -> None:
    whole = method(net, target_layer=["conv1", "conv2"], chunk_size=64)(images, [0, 1, 2]).heatmap
    small = method(net, target_layer=["conv1", "conv2"], chunk_size=3)(images, [0, 1, 2]).heatmap
    alone = method(net, target_layer=["conv1", "conv2"])(images[1:2], 1).heatmap
    assert torch.allclose(whole, small, atol=1e-5)
    assert torch.allclose(whole[1:2], alone, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_model_and_images_are_left_unchanged(
    method: type[LayerExplainer], small_net: SmallNet, images: Tensor, untouched: Untouched
) -> None:
    untouched(small_net.train())
    with torch.no_grad():
        method(small_net, target_layer="conv2")(images)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["pytorch_grad_cam", "torchcam.methods"])
def test_score_cam_like_the_libraries(library: str, images: Tensor) -> None:
    """At the image's own resolution, where the libraries' ways of upsampling cannot differ."""
    methods = pytest.importorskip(library)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6144, 5)).eval()
    found = ScoreCAM(model, target_layer="1")(images[:1], 2).heatmap
    if library == "torchcam.methods":
        with methods.ScoreCAM(model, target_layer=model[1], input_shape=(3, 32, 32)) as theirs:
            logits = model(images[:1])
            (raw,) = theirs(2, logits, normalized=False)
    else:
        targets = [methods.utils.model_targets.ClassifierOutputTarget(2)]
        with methods.ScoreCAM(model=model, target_layers=[model[1]]) as theirs:
            activation = model[:2](images[:1]).detach().numpy()
            raw = theirs.get_cam_image(images[:1], model[1], targets, activation, None, False)
    assert (found - torch.as_tensor(raw).relu()).abs().max() < 1e-4
    assert found.max() > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_no_gradient_is_computed(method: type[LayerExplainer], net: SmallNet, images: Tensor) -> None:
    assert [found["backward_passes"] for found in method(net)(images).diagnostics] == [0, 0, 0]
