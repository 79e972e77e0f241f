"""Vision transformers of timm and Hugging Face: all kinds of methods explain them as they come, and find a known patch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from oracles import Untouched, given
from torch import nn
from torch.nn import functional as F

import faithmap as fm
from faithmap.methods.gradients import ExpectedGradients, Gradient, IntegratedGradients, SmoothGrad
from faithmap.methods.masks import RISE, IGOSPlusPlus, Mask, Occlusion

pytestmark = [pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"), pytest.mark.usefixtures("one_thread")]

timm = pytest.importorskip("timm")


def timm_vit() -> nn.Module:
    size: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    model: nn.Module = timm.models.vision_transformer.VisionTransformer(num_classes=4, reg_tokens=2, **size)
    return model


def timm_swin() -> nn.Module:
    size: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 4,
        "window_size": 4,
        "embed_dim": 16,
        "depths": (1, 2),
        "num_heads": (1, 2),
    }
    model: nn.Module = timm.models.swin_transformer.SwinTransformer(num_classes=4, **size)
    return model


def hugging_face_vit() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    size: dict[str, Any] = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
    }
    model: nn.Module = transformers.ViTForImageClassification(transformers.ViTConfig(**size, patch_size=8, num_labels=4))
    return model


def hugging_face_swin() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    size: dict[str, Any] = {
        "image_size": 32,
        "patch_size": 4,
        "window_size": 4,
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [1, 2],
    }
    model: nn.Module = transformers.SwinForImageClassification(transformers.SwinConfig(**size, num_labels=4))
    return model


MODELS = {
    "timm vit": timm_vit,
    "timm swin": timm_swin,
    "hugging face vit": hugging_face_vit,
    "hugging face swin": hugging_face_swin,
}

COARSE: dict[str, Any] = {"resolution": 8, "iterations": 2, "baseline": "black"}
METHODS: dict[str, Callable[..., fm.Explainer]] = {
    "igos": lambda model, **k: fm.IGOS(model, path_points=3, step=5.0, **COARSE, **k),
    "igos_plus_plus": lambda model, **k: IGOSPlusPlus(model, path_points=2, step=5.0, **COARSE, **k),
    "mask": lambda model, **k: Mask(model, **COARSE, **k),
    "rise": lambda model, **k: RISE(model, masks=12, cells=4, **k),
    "occlusion": lambda model, **k: Occlusion(model, patch=8, stride=8, **k),
    "gradient": Gradient,
    "smoothgrad": lambda model, **k: SmoothGrad(model, samples=4, **k),
    "integrated gradients": lambda model, **k: IntegratedGradients(model, samples=4, **k),
    "expected gradients": lambda model, **k: ExpectedGradients(model, samples=4, **k),
    "gradcam": fm.GradCAM,
    "gradcam_plus_plus": fm.GradCAMPlusPlus,
    "hirescam": fm.HiResCAM,
    "layercam": fm.LayerCAM,
    "xgradcam": fm.XGradCAM,
    "expected_fusedcam": lambda model, **k: fm.ExpectedFusedCAM(model, gradient=fm.Expected(samples=4), **k),
    "integrated_gradcam": lambda model, **k: fm.IntegratedGradCAM(model, gradient=fm.Integrated(samples=4), **k),
    "scorecam": fm.ScoreCAM,
    "ablationcam": fm.AblationCAM,
    "eigencam": fm.EigenCAM,
}
CAMS = [name for name in METHODS if "cam" in name]


def lively(make: Callable[[], nn.Module]) -> nn.Module:
    """Random weights, large enough for classes to differ from image to image."""
    torch.manual_seed(0)
    model = make()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("name", METHODS)
def test_results_do_not_depend_on_batch_and_chunk_and_cells_are_at_the_patches(
    name: str, make: Callable[[], nn.Module], untouched: Untouched
) -> None:
    model = untouched(lively(make).train())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    signed = {"relu": False} if name in CAMS else {}
    together = METHODS[name](model, **signed)(images, [1, 2])
    alone = METHODS[name](model, chunk_size=3, **signed)(images[1:], 2, generator=fm.image_generators(0, [1]))
    largest = float(alone.heatmap.abs().max())
    assert alone.heatmap.std() > 1e-3 * largest > 0
    assert torch.allclose(together.heatmap[1], alone.heatmap[0], atol=1e-4 * largest)
    assert not torch.allclose(together.heatmap[0], together.heatmap[1], atol=1e-2 * largest)
    if name in CAMS:
        assert together.resolution == (4, 4)
        assert given(together.rows).tolist() == given(together.columns).tolist() == pytest.approx([3.5, 11.5, 19.5, 27.5])


def seer(row: int, column: int) -> nn.Module:
    """A ViT set by hand: its class token looks at one patch, and class 0 is as likely as that patch is bright.

    Channel 0 of a token is its patch's brightness, 1 and 2 say which patch it is; 6 and 7 are so large that the norms divide by
    a constant. Keys read channel 1, values channel 0; the MLP adds nothing.
    """
    vit: Any = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=8, depth=1, num_heads=1, num_classes=2
    )
    block = vit.blocks[0]
    with torch.no_grad():
        for parameter in (
            *vit.patch_embed.parameters(),
            *block.attn.parameters(),
            *block.mlp.parameters(),
            *vit.head.parameters(),
        ):
            parameter.zero_()
        vit.cls_token.zero_()
        vit.pos_embed.zero_()
        vit.patch_embed.proj.weight[0] = 1 / (3 * 64)
        vit.pos_embed[0, 1 + 4 * row + column, 1], vit.pos_embed[0, 1 + 4 * row + column, 2] = 4, -4
        vit.pos_embed[0, :, 6], vit.pos_embed[0, :, 7] = 40, -40
        query, key, value = block.attn.qkv.weight.split(8)
        block.attn.qkv.bias[0] = 200
        key[0, 1], value[0, 0], block.attn.proj.weight[0, 0] = 1.0, 20.0, 1.0
        vit.head.weight[0, 0], vit.head.weight[1, 0] = 150, -150
        vit.head.bias[0], vit.head.bias[1] = -2.6, 2.6
        assert query.abs().sum() == 0
    model: nn.Module = vit
    return model


WHOLE = ("gradcam", "gradcam_plus_plus", "xgradcam", "integrated_gradcam", "eigencam", "scorecam")
"""These weigh channels whole: the brightness of all patches is one channel."""


@pytest.mark.parametrize("place", [(0, 3), (2, 1)])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in WHOLE])
def test_the_one_patch_that_a_transformer_looks_at(name: str, place: tuple[int, int]) -> None:
    model = seer(*place)
    image = 0.7 + 0.2 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    dark = image.clone()
    dark[..., 8 * place[0] : 8 * place[0] + 8, 8 * place[1] : 8 * place[1] + 8] = 0.1
    with torch.no_grad():
        assert model(image).softmax(1)[0, 0] > 0.9 > 0.1 > model(dark).softmax(1)[0, 0], "as the docstring says"
    explain = METHODS[name](model)
    if isinstance(explain, RISE):
        explain = replace(explain, masks=400)
    patches = F.avg_pool2d(explain(image, 0, baseline="black").at().unsqueeze(1), 8).flatten()
    order = patches.argsort(descending=True)
    assert divmod(int(order[0]), 4) == place
    assert patches[order[0]] > 1.1 * patches[order[1]]


STAGES: dict[str, Any] = {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4}
CONVOLUTIONAL: dict[str, tuple[dict[str, Any], str]] = {
    "ResNet": ({**STAGES, "embedding_size": 8, "layer_type": "basic"}, "resnet.encoder"),
    "RegNet": ({**STAGES, "embedding_size": 8, "groups_width": 8}, "regnet.encoder"),
    "ConvNext": (STAGES, "convnext.encoder"),
    "ConvNextV2": (STAGES, "convnextv2.encoder"),
    "MobileNetV2": ({"depth_multiplier": 0.35}, "mobilenet_v2.conv_1x1"),
}
"""Small convolutional classifiers of Transformers, and their last layer, from whose mean the class is predicted."""


@pytest.mark.parametrize("family", CONVOLUTIONAL)
def test_convolutional_classifiers_of_transformers_are_explained_at_the_layer_that_is_pooled(family: str) -> None:
    """Their base models also return that layer, which the score is not computed from there."""
    transformers = pytest.importorskip("transformers")
    settings, layer = CONVOLUTIONAL[family]
    config = getattr(transformers, f"{family}Config")(**settings, num_labels=4)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForImageClassification")(config).eval()
    image = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    explanation = fm.GradCAM(model, relu=False)(image, 1)
    assert explanation.diagnostics[0]["target_layer"] == [layer]
    assert explanation.resolution == (5, 5)
    assert explanation.heatmap.std() > 0
