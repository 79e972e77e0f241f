"""Networks trained for seconds on images with a known quarter: Grad-CAM at the default layer points at this quarter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

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


def timm_model(family: str, cls: str, **settings: Any) -> nn.Module:
    model: nn.Module = getattr(getattr(timm.models, family), cls)(num_classes=4, **settings)
    return model


def clip_vision() -> nn.Module:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.CLIPConfig(
        vision_config={**small, "image_size": 32, "patch_size": 4, "projection_dim": 16}, text_config=small, num_labels=4
    )
    model: nn.Module = transformers.CLIPForImageClassification(config)
    return model


SWIN: dict[str, Any] = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 16, "num_heads": (1, 2)}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "swin v2": lambda: timm_model("swin_transformer_v2", "SwinTransformerV2", depths=(1, 2), **SWIN),
    "clip vision": clip_vision,
}


def coloured_quarters(count: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with one quarter in one of four colours: images, the colour of each, and its quarter."""
    generator = torch.Generator().manual_seed(0)
    images = 0.3 + 0.2 * torch.rand(count, 3, side, side, generator=generator)
    colours, quarters = (torch.randint(4, (count,), generator=generator) for _ in "ab")
    palette = torch.tensor([[0.5, -0.3, -0.3], [-0.3, 0.5, -0.3], [-0.3, -0.3, 0.5], [0.5, 0.5, -0.3]])
    where = torch.zeros(count, 2, 2)
    where.view(count, 4)[torch.arange(count), quarters] = 1
    coloured = F.interpolate(where.unsqueeze(1), size=side) * palette[colours].view(count, 3, 1, 1)
    return (images + coloured).clamp(0, 1), colours, quarters


def trained(make: Callable[[], nn.Module], images: Tensor, colours: Tensor) -> nn.Module:
    """The network, with accuracy 1 on the images."""
    torch.manual_seed(0)
    model = make()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        loss = F.cross_entropy(logits(model.train(), images), colours)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss.item() < 0.05:
            break
    assert torch.equal(logits(model.eval(), images).argmax(dim=1), colours)
    return model


def logits(model: nn.Module, images: Tensor) -> Tensor:
    output = model(images)
    found: Tensor = output if isinstance(output, Tensor) else output.logits
    return found


def points_right(model: nn.Module, layer: str | None, images: Tensor, colours: Tensor, quarters: Tensor) -> float:
    """The share of the images in whose coloured quarter the mean of Grad-CAM's map is the highest."""
    heatmap = GradCAM(model, target_layer=layer, placement="tiles", relu=False)(images, colours).at()
    highest = F.adaptive_avg_pool2d(heatmap.unsqueeze(1), 2).flatten(1).argmax(dim=1)
    return float((highest == quarters).float().mean())


def blocks_and_norms(model: nn.Module) -> list[str]:
    """The last twelve of them."""
    modules = list(model.named_modules())[1:]
    names = [name for name, module in modules if any(module.children()) or "norm" in type(module).__name__.lower()]
    return names[-12:]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_layer_points_at_the_known_quarter_as_often_as_the_best_layer(name: str) -> None:
    images, colours, quarters = coloured_quarters(64, 32)
    model = trained(NETWORKS[name], images, colours)
    few = images[:16], colours[:16], quarters[:16]
    found = dict[str, float]()
    for layer in blocks_and_norms(model):
        with suppress(ValueError):  # a layer in which the image cannot be found
            found[layer] = points_right(model, layer, *few)
    assert len(found) >= 4
    assert points_right(model, None, *few) >= 0.9 * max(found.values())
    if name == "swin v2":
        assert found["layers.1.blocks.1.norm1"] < 0.9 * max(found.values()), "the layer of the first Swin"
