"""Networks trained for seconds on images with a known quarter: Grad-CAM at the default layer points at this quarter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.methods.cams.cam import GradCAM

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.filterwarnings("ignore::faithmap.FaithmapWarning"),
    pytest.mark.usefixtures("one_thread"),
]

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

SIDE = 32
TEXTURES = torch.tensor(
    [
        [[1, 1, -1, -1]] * 4,
        [[1] * 4, [1] * 4, [-1] * 4, [-1] * 4],
        [[1, 1, -1, -1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]],
        [[1, -1, -1, 1], [1, -1, -1, 1], [-1, 1, 1, -1], [-1, 1, 1, -1]],
    ]
)
"""Stripes upright and lying, two checkers: equal in mean and energy."""


def timm_model(family: str, cls: str, **settings: Any) -> nn.Module:
    model: nn.Module = getattr(getattr(timm.models, family), cls)(num_classes=4, **settings)
    return model


def clip_vision() -> nn.Module:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.CLIPConfig(
        vision_config={**small, "image_size": 64, "patch_size": 4, "projection_dim": 16}, text_config=small, num_labels=4
    )
    model: nn.Module = transformers.CLIPForImageClassification(config)
    return model


def hiera() -> nn.Module:
    patches = {"patch_kernel": (7, 7), "patch_stride": (4, 4), "patch_padding": (3, 3)}
    units = {"stages": (1, 1), "q_pool": 1, "mask_unit_size": (4, 4), "mask_unit_attn": (True, False)}
    return timm_model("hiera", "Hiera", img_size=(SIDE, SIDE), embed_dim=16, num_heads=1, **units, **patches)


STAGES: dict[str, Any] = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_labels": 4}


def resnet() -> nn.Module:
    config = transformers.ResNetConfig(embedding_size=16, layer_type="basic", **STAGES)
    model: nn.Module = transformers.ResNetForImageClassification(config)
    return model


def convnext() -> nn.Module:
    model: nn.Module = transformers.ConvNextForImageClassification(transformers.ConvNextConfig(num_stages=2, **STAGES))
    return model


def marked_quarters(count: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A texture in each quarter, one quarter tinted: images, the texture there, and this quarter.

    A stem sees textures and tints, but not which texture is tinted, since the same textures are in other quarters.
    """
    textures = torch.randint(4, (count, 4), generator=generator)
    quarters = torch.randint(4, (count,), generator=generator)
    tiles = TEXTURES[textures].repeat(1, 1, side // 8, side // 8).unflatten(1, (2, 2))
    picture = tiles.permute(0, 1, 3, 2, 4).reshape(count, 1, side, side)
    tinted = F.interpolate(F.one_hot(quarters, 4).float().view(count, 1, 2, 2), size=side)
    noise = torch.randn(count, 3, side, side, generator=generator)
    tint = 0.25 * tinted * torch.tensor([1, -0.5, -0.5]).view(3, 1, 1)
    return 0.5 + 0.2 * picture + tint + 0.1 * noise, textures.gather(1, quarters.unsqueeze(1)).squeeze(1), quarters


def one_quarter(count: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A texture in one quarter, noise of the same energy in the others: images, the texture, and its quarter."""
    textures, quarters = (torch.randint(4, (count,), generator=generator) for _ in "ab")
    tiles = TEXTURES[textures].repeat(1, side // 4, side // 4).unsqueeze(1)
    where = F.interpolate(F.one_hot(quarters, 4).float().view(count, 1, 2, 2), size=side)
    others = torch.randn(count, 1, side, side, generator=generator).sign()
    noise = torch.randn(count, 3, side, side, generator=generator)
    return 0.5 + 0.2 * torch.where(where > 0, tiles, others) + 0.05 * noise, textures, quarters


class Network(NamedTuple):
    """A network of one family.

    Attributes:
        make: with random weights.
        slow: whether the modules that mix positions start at zero and learn at a tenth of the rate, so that the positions keep
            their contents, as in a network that was trained for long.
        side: of the images, in pixels. Cells of a convolutional network see less of the image the larger it is.
        task: images, their classes and the quarters.
    """

    make: Callable[[], nn.Module]
    slow: bool = False
    side: int = SIDE
    task: Callable[[int, int, torch.Generator], tuple[Tensor, Tensor, Tensor]] = marked_quarters


SMALL: dict[str, Any] = {"img_size": SIDE, "patch_size": 4, "embed_dim": 32}
SWIN: dict[str, Any] = {
    "img_size": SIDE,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 16,
    "depths": (1, 2),
    "num_heads": (1, 2),
}
TNT: dict[str, Any] = {"inner_dim": 8, "num_heads_inner": 2, "num_heads_outer": 2, "first_stride": 2}
PVT: dict[str, Any] = {"depths": (1, 1), "embed_dims": (16, 32), "num_heads": (1, 2), "sr_ratios": (2, 1), "mlp_ratios": (4, 4)}
NETWORKS = {
    "resnet": Network(resnet, side=64),
    "convnext": Network(convnext, side=64),
    "vit": Network(
        lambda: timm_model("vision_transformer", "VisionTransformer", **SMALL, depth=1, num_heads=2), task=one_quarter
    ),
    "swin": Network(lambda: timm_model("swin_transformer", "SwinTransformer", **SWIN), slow=True),
    "swin v2": Network(lambda: timm_model("swin_transformer_v2", "SwinTransformerV2", **SWIN), slow=True),
    "tnt": Network(lambda: timm_model("tnt", "TNT", **{**SMALL, "patch_size": 8}, depth=1, **TNT), task=one_quarter),
    "mlp-mixer": Network(lambda: timm_model("mlp_mixer", "MlpMixer", **SMALL, num_blocks=2), slow=True),
    "clip vision": Network(clip_vision, slow=True, side=64),  # 0.66 of 0.73 at the norm before the first block
    "pvt": Network(lambda: timm_model("pvt_v2", "PyramidVisionTransformerV2", **PVT), slow=True),
    "hiera": Network(hiera),
}


def trained(network: Network) -> nn.Module:
    """The network, trained on a new batch in each step, with accuracy 1 on 64 other images."""
    torch.manual_seed(0)
    model, generator = network.make(), torch.Generator().manual_seed(1)
    ends = ("attn.proj", "attn.out_proj", "mlp_tokens.fc2")
    mixing = [module for name, module in model.named_modules() if name.endswith(ends)]
    slow = [parameter for module in mixing for parameter in module.parameters()] if network.slow else []
    for parameter in slow:
        nn.init.zeros_(parameter)
    fast = [parameter for parameter in model.parameters() if all(parameter is not other for other in slow)]
    optimiser = torch.optim.AdamW([{"params": fast}, {"params": slow}], lr=3e-3, weight_decay=0.05)
    average = 1.4
    for step in range(200):
        for group, factor in zip(optimiser.param_groups, (1, 0.1), strict=True):
            group["lr"] = 3e-3 * factor * min(1, (step + 1) / 20)
        images, textures, _ = network.task(32, network.side, generator)
        loss = F.cross_entropy(logits(model.train(), images), textures)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average = 0.8 * average + 0.2 * float(loss.detach())
        if average < 0.05:
            break
    images, textures, _ = network.task(64, network.side, torch.Generator().manual_seed(0))
    assert torch.equal(logits(model.eval(), images).argmax(dim=1), textures)
    return model


def logits(model: nn.Module, images: Tensor) -> Tensor:
    output = model(images)
    found: Tensor = output if isinstance(output, Tensor) else output.logits
    return found


def share(model: nn.Module, layer: str | None, images: Tensor, textures: Tensor, quarters: Tensor) -> tuple[float, float]:
    """The share of Grad-CAM's positive map in the tinted quarter, and of the images in which this quarter has the most."""
    heatmap = GradCAM(model, target_layer=layer, placement="tiles")(images, textures).at()
    sums = F.adaptive_avg_pool2d(heatmap.unsqueeze(1), 2).flatten(1)
    inside = sums.gather(1, quarters.unsqueeze(1)).squeeze(1) / sums.sum(dim=1).clamp_min(1e-12)
    return float(inside.mean()), float((sums.argmax(dim=1) == quarters).float().mean())


def blocks_and_norms(model: nn.Module) -> list[str]:
    """Stages, blocks and their parts, and norms."""
    modules = list(model.named_modules())[1:]
    return [name for name, module in modules if any(module.children()) or "norm" in type(module).__name__.lower()]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_share_in_the_known_quarter_at_the_default_layer_is_near_that_at_the_best_layer(name: str) -> None:
    network = NETWORKS[name]
    model = trained(network)
    few = network.task(32, network.side, torch.Generator().manual_seed(2))
    found = dict[str, float]()
    for layer in blocks_and_norms(model):
        with suppress(ValueError):  # a layer in which the image cannot be found
            found[layer] = share(model, layer, *few)[0]
    assert len(found) >= 4
    assert share(model, None, *few)[0] >= 0.9 * max(found.values())
    if name == "swin v2":
        assert found["layers.1.blocks.1.norm1"] < 0.2 < 0.9 < found["layers.1.blocks.1"], "the layer of the first Swin"
