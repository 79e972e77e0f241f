"""Grad-CAM, LayerCAM, XGrad-CAM and HiResCAM as the public libraries have them, raw: before anybody normalises or resizes."""

from __future__ import annotations

import pytest
import torch
from oracles import SmallNet
from torch import Tensor, nn

from faithmap.methods.cams.cam import CAM, GradCAM, HiResCAM, LayerCAM, XGradCAM
from faithmap.model import Classifier

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.warning_types.FaithmapWarning")

TARGETS = [0, 3, 1]


@pytest.fixture
def vgg() -> nn.Sequential:
    """A network whose gradients differ from cell to cell, unlike those under a pooled and linear head."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()]
    head = nn.Linear(32, 5)
    model = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(768, 32), nn.ReLU(), head).eval()
    nn.init.normal_(head.weight, std=20)
    return model


@pytest.mark.parametrize(
    ("ours", "name"), [(GradCAM, "GradCAM"), (LayerCAM, "LayerCAM"), (XGradCAM, "XGradCAM"), (HiResCAM, "HiResCAM")]
)
@pytest.mark.filterwarnings("ignore")
def test_like_grad_cam(ours: type[CAM], name: str, vgg: nn.Sequential, images: Tensor) -> None:
    library = pytest.importorskip("pytorch_grad_cam")
    targets = [library.utils.model_targets.ClassifierOutputTarget(c) for c in TARGETS]
    with getattr(library, name)(model=vgg, target_layers=[vgg[4]]) as theirs:
        theirs.outputs = theirs.activations_and_grads(images)
        sum(target(output) for target, output in zip(targets, theirs.outputs, strict=True)).backward()
        captured = theirs.activations_and_grads
        activation, gradient = (part[0].detach().numpy() for part in (captured.activations, captured.gradients))
        raw = theirs.get_cam_image(images, vgg[4], targets, activation, gradient, False)
    found = ours(vgg, target_layer="4")(images, TARGETS).heatmap
    assert (found - torch.as_tensor(raw).relu()).abs().max() < 1e-4
    assert found.max() > 1e-3


@pytest.mark.parametrize(("ours", "name"), [(GradCAM, "GradCAM"), (LayerCAM, "LayerCAM"), (XGradCAM, "XGradCAM")])
@pytest.mark.filterwarnings("ignore")
def test_like_torch_cam(ours: type[CAM], name: str, vgg: nn.Sequential, images: Tensor) -> None:
    library = pytest.importorskip("torchcam.methods")
    with getattr(library, name)(vgg, target_layer=vgg[4], input_shape=(3, 32, 32)) as theirs:
        logits = vgg(images.clone().requires_grad_())
        (raw,) = theirs(TARGETS, logits, normalized=False, retain_graph=True)
    found = ours(vgg, target_layer="4")(images, TARGETS).heatmap
    assert (found - raw.relu()).abs().max() < 1e-4
    assert found.max() > 1e-3


def test_a_classifier_explains_what_its_module_would(small_net: SmallNet, images: Tensor) -> None:
    """Normalisation inside or outside: the same map."""
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    wrapped = GradCAM(Classifier(small_net, mean=mean, std=std), target_layer="conv2")(images, 1)
    shifted = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    bare = GradCAM(small_net, target_layer="conv2")(shifted, 1)
    assert torch.allclose(wrapped.heatmap, bare.heatmap, atol=1e-5)
