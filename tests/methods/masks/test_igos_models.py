"""I-GOS on models of every kind, and on the embedded one with a real photograph."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from oracles import SmallNet
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import faithmap as fm

pytestmark = pytest.mark.filterwarnings("ignore::faithmap.warning_types.FaithmapWarning")
QUICK: dict[str, Any] = {"resolution": 4, "iterations": 2, "path_points": 3}


def test_a_vision_transformer_is_explained_along_its_gradient(images: Tensor) -> None:
    """One accepted step of one noiseless point is a step along autograd's gradient, clipped."""
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3).double().eval()
    nn.init.normal_(model.heads.head.weight)
    image = images[:1].double()
    settings: dict[str, Any] = {
        "resolution": 4,
        "iterations": 1,
        "path_points": 1,
        "noise_std": 0.0,
        "lambda1": 0.0,
        "lambda2": 0.0,
    }
    explanation = fm.IGOS(model, **settings, step=5.0)(image, 1, baseline="black")
    mask = torch.ones(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    composed = image * nn.functional.interpolate(mask, (32, 32), mode="bilinear", align_corners=True)
    slope = torch.autograd.grad(model(composed).softmax(1)[0, 1], mask)[0]
    assert explanation.heatmap.abs().max() > 0
    assert torch.allclose(explanation.heatmap, 1 - (1 - 5 * slope[:, 0]).clamp(0, 1), atol=1e-10)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_model_gives_the_same_map(small_net: SmallNet, images: Tensor) -> None:
    compiled = cast(nn.Module, torch.compile(small_net, backend="eager"))
    assert torch.allclose(fm.IGOS(compiled, **QUICK)(images).heatmap, fm.IGOS(small_net, **QUICK)(images).heatmap, atol=1e-6)


def test_a_model_in_half_precision_has_maps_in_single_precision(small_net: SmallNet, images: Tensor) -> None:
    """Scores, masks and maps stay in single precision, and close to those of the model in single precision."""
    fixed: dict[str, Any] = {**QUICK, "step": 50.0, "lambda1": 0.0, "lambda2": 0.0, "noise_std": 0.0}
    exact = fm.IGOS(fm.Classifier(small_net), **fixed)(images)
    rough = fm.IGOS(fm.Classifier(small_net.bfloat16()), **fixed)(images, exact.target)
    assert rough.score is not None
    assert rough.heatmap.dtype == rough.score.dtype == torch.float32
    assert nn.functional.cosine_similarity(exact.heatmap.flatten(1), rough.heatmap.flatten(1)).min() > 0.95


@pytest.mark.sweep
@pytest.mark.parametrize("photo", ["chelsea", "coffee"])
def test_the_map_of_the_embedded_model_is_better_than_random_maps(photo: str) -> None:
    model = fm.load()
    image = model.read(fm.sample_photo(photo))
    explanation = fm.IGOS(model, resolution=14, iterations=6, path_points=8)(image)
    curves = fm.deletion_insertion(model, image, explanation, steps=14)
    random = [
        fm.deletion_insertion(model, image, torch.rand(1, 14, 14, generator=torch.Generator().manual_seed(seed)), steps=14)
        for seed in range(2)
    ]
    assert curves.difference.item() > max(control.difference.item() for control in random) + 0.05
    assert explanation.diagnostics[0]["objective"][-1] < explanation.diagnostics[0]["objective"][0]
