"""The default target layer of many architectures with random weights: name, cells, and whether a change lands right.

Sixteen squares of a noise image are changed, one after the other, at other places than those by which the layer was found. The
cell that changes most, relative to its mean change for all squares, has to be near the square: within one cell, and one more
for each 14 cells of a side. By chance about a third of the squares of a 7 x 7 map are near.

    python benchmarks/layers.py [--only NAME] [--library timm]
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.layers import LayerContext, target_layers
from faithmap.model import undisturbed

SQUARES = tuple(product((0.125, 0.375, 0.625, 0.875), repeat=2))
"""Centres of the changed squares, down and across, as shares of the image; they are spread evenly."""

LARGE, SMALLER = 500, 224
"""A model for images of so many pixels on a side is made for smaller ones."""

SIZES = (
    "test",
    "atto",
    "femto",
    "pico",
    "nano",
    "xx_small",
    "xxs",
    "_ti",
    "tiny",
    "x_small",
    "mini",
    "_s",
    "small",
    "18",
    "_b0",
)
"""Parts of the names of small models, the smallest first."""


@dataclass(frozen=True)
class Architecture:
    """A network that is made when it is its turn."""

    library: str
    name: str
    make: Callable[[], nn.Module]
    size: tuple[int, int] = (224, 224)


def of_timm() -> Iterator[Architecture]:
    """The smallest model of each of timm's families, by its name."""
    timm = import_module("timm")
    for module in timm.list_modules():
        names = [name for name in timm.list_models(module=module) if not name.startswith("test_")]
        if names:
            name = min(names, key=_rank)
            config = timm.get_pretrained_cfg(name)
            fixed = (config.input_size if config is not None else (3, 224, 224))[1:]
            size = fixed if max(fixed) < LARGE else (SMALLER, SMALLER)

            def make(name: str = name, smaller: bool = size != fixed) -> nn.Module:
                for settings in ({"img_size": SMALLER, "depth": 2}, {"img_size": SMALLER}) if smaller else ():
                    with suppress(TypeError):
                        return cast(nn.Module, timm.create_model(name, pretrained=False, num_classes=7, **settings))
                return cast(nn.Module, timm.create_model(name, pretrained=False, num_classes=7))

            yield Architecture("timm", name, make, size)


def _rank(name: str) -> tuple[int, int, str]:
    return next((i for i, part in enumerate(SIZES) if part in name), len(SIZES)), len(name), name


TORCHVISION = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vgg11_bn",
    "vit_b_32",
    "wide_resnet50_2",
)


def of_torchvision() -> Iterator[Architecture]:
    """One model of each of torchvision's families, and its segmenters."""
    models = import_module("torchvision.models")
    for name in TORCHVISION:
        size = (299, 299) if name == "inception_v3" else (224, 224)
        extra: Mapping[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        yield Architecture("torchvision", name, partial(getattr(models, name), weights=None, **extra), size)
    for name in ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        made: Mapping[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 5}
        made = made if "lraspp" in name else {**made, "aux_loss": True}
        yield Architecture("torchvision", name, partial(getattr(models.segmentation, name), **made), (160, 160))


def of_transformers() -> Iterator[Architecture]:
    """Image classifiers of transformers with small configurations."""
    library = import_module("transformers")
    plain: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    patches: dict[str, Any] = {**plain, "image_size": 96, "patch_size": 12}
    swin: dict[str, Any] = {
        "image_size": 96,
        "patch_size": 4,
        "window_size": 6,
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [1, 2],
    }
    stages: dict[str, Any] = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 2, 1]}
    configurations: Mapping[str, Mapping[str, Any]] = {
        **dict.fromkeys(("ViT", "DeiT", "Beit", "Data2VecVision", "ViTMSN", "Dinov2", "Dinov2WithRegisters", "IJepa"), patches),
        **dict.fromkeys(("Swin", "Swinv2"), swin),
        "FocalNet": {"image_size": 96, "embed_dim": 16, "depths": [1, 2], "focal_levels": [1, 1], "focal_windows": [3, 3]},
        **dict.fromkeys(("ConvNext", "ConvNextV2", "ResNet", "RegNet"), stages),
        "Bit": {"hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 2, 1], "embedding_size": 32},
        "MobileNetV1": {"image_size": 160},
        "MobileNetV2": {"image_size": 160},
        **{name: {} for name in ("PoolFormer", "SwiftFormer", "Cvt", "Pvt", "PvtV2", "Levit", "Segformer", "MobileViT")},
        "EfficientNet": {"width_coefficient": 0.5, "depth_coefficient": 0.3, "hidden_dim": 640},
        "MobileViTV2": {"image_size": 128},
        "Hiera": {"embed_dim": 16, "image_size": [96, 96], "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2]},
        "TextNet": {},
    }
    sizes = {"Pvt": 224, "PvtV2": 224, "Levit": 224, "SwiftFormer": 224, "Segformer": 192, "MobileViT": 256, "PoolFormer": 160}
    for name, settings in configurations.items():
        classifier = getattr(library, f"{name}ForImageClassification", None)
        if classifier is not None:
            config = getattr(library, f"{name}Config")

            def make(classifier: Any = classifier, config: Any = config, settings: Any = settings) -> nn.Module:
                return lively(classifier(config(**settings, num_labels=5)))

            side = sizes.get(name) or settings.get("image_size", 160)
            side = side[0] if isinstance(side, list) else side
            yield Architecture("transformers", name, make, (side, side))
    for name in ("CLIP", "Siglip"):

        def towers(name: str = name) -> nn.Module:
            vision = {**patches, "projection_dim": 16}
            config = getattr(library, f"{name}Config")(vision_config=vision, text_config=plain, num_labels=5)
            return lively(getattr(library, f"{name}ForImageClassification")(config))

        yield Architecture("transformers", name, towers, (96, 96))


def lively(model: nn.Module) -> nn.Module:
    """Weights as large as a trained network's: with a standard deviation of 0.02 the signal is lost in rounding."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    return model


def of_vit_pytorch() -> Iterator[Architecture]:
    """Transformers of vit-pytorch."""
    plain: dict[str, Any] = {"image_size": 96, "patch_size": 12, "num_classes": 5, "dim": 32, "depth": 2, "heads": 2}
    full: dict[str, Any] = {**plain, "mlp_dim": 64}
    places = {
        "vit.ViT": full,
        "simple_vit.SimpleViT": full,
        "simple_vit_with_register_tokens.SimpleViT": full,
        "simple_vit_with_qk_norm.SimpleViT": full,
        "simple_vit_with_patch_dropout.SimpleViT": full,
        "vit_for_small_dataset.ViT": full,
        "deepvit.DeepViT": full,
        "cait.CaiT": {**full, "cls_depth": 1},
        "parallel_vit.ViT": full,
        "learnable_memory_vit.ViT": full,
        "vit_with_patch_merger.ViT": full,
        "cct.CCT": {"img_size": 96, "embedding_dim": 32, "num_layers": 2, "num_heads": 2, "mlp_ratio": 2.0, "num_classes": 5},
        "pit.PiT": {**full, "depth": (1, 1)},
        "xcit.XCiT": {**full, "cls_depth": 1},
        "regionvit.RegionViT": {"dim": (16, 32, 32, 32), "depth": (1, 1, 1, 1), "num_classes": 5},
        "crossformer.CrossFormer": {"num_classes": 5, "dim": (32, 64, 64, 64), "depth": (1, 1, 1, 1)},
        "twins_svt.TwinsSVT": {"num_classes": 5},
        "max_vit.MaxViT": {"num_classes": 5, "dim": 16, "depth": (1, 1), "dim_head": 16, "window_size": 7},
    }
    for place, settings in places.items():
        module, _, cls = place.rpartition(".")
        side = 224 if cls in ("RegionViT", "CrossFormer", "TwinsSVT", "MaxViT") else 96

        def make(module: str = module, cls: str = cls, settings: Any = settings) -> nn.Module:
            made: nn.Module = getattr(import_module(f"vit_pytorch.{module}"), cls)(**settings)
            return made

        yield Architecture("vit-pytorch", place, make, (side, side))


def of_others() -> Iterator[Architecture]:
    """Both towers of open_clip, and segmenters of segmentation_models_pytorch."""
    for name in ("ViT-S-32", "RN50"):
        yield Architecture("open_clip", name, partial(import_module("open_clip").create_model, name))
    for name in ("Unet", "FPN", "DeepLabV3Plus", "Linknet", "PSPNet", "PAN", "UPerNet", "Segformer"):

        def make(name: str = name) -> nn.Module:
            library = import_module("segmentation_models_pytorch")
            made: nn.Module = getattr(library, name)("resnet18", encoder_weights=None, classes=5)
            return made

        yield Architecture("segmentation_models_pytorch", name, make, (128, 128))


LIBRARIES = (of_timm, of_torchvision, of_transformers, of_vit_pytorch, of_others)


def landed(model: nn.Module, context: LayerContext, size: tuple[int, int]) -> int:
    """Number of the changed squares whose cell changes most, relative to its mean change for all squares."""
    generator = torch.Generator().manual_seed(7)
    base = torch.rand(1, 3, *size, generator=generator)
    sides = [max(1, round(pixels / 7)) for pixels in size]
    images = [base]
    for place in SQUARES:
        top, left = (round(share * pixels - side / 2) for share, pixels, side in zip(place, size, sides, strict=True))
        changed = base.clone()
        changed[..., top : top + sides[0], left : left + sides[1]] = torch.rand(1, 3, *sides, generator=generator).round()
        images.append(changed)
    probe = context.probe(model, torch.cat(images), "logit", chunk_size=len(images))
    activation: Float[Tensor, "n k h w"] = next(
        iter(probe.clean(_first_number, "logit", gradient=False)[2].activation.values())
    )
    change = (activation[1:] - activation[:1]).double().square().sum(dim=1).sqrt()
    change = F.avg_pool2d(change / change.mean(dim=0).clamp_min(1e-30), 3, 1, 1, count_include_pad=False)
    rows, columns = change.shape[1:]
    hits = 0
    for place, values in zip(SQUARES, change, strict=True):
        row, column = divmod(int(values.argmax()), columns)
        reach = [max(1.0, 1 + cells / 14) for cells in (rows, columns)]
        hits += abs(row + 0.5 - place[0] * rows) <= reach[0] + 0.5 and abs(column + 0.5 - place[1] * columns) <= reach[1] + 0.5
    return hits


def check_gradient(model: nn.Module, context: LayerContext, size: tuple[int, int]) -> None:
    """Raise ValueError if no number of the output has a gradient to the layer, so that there is no map."""
    probe = context.probe(model, torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(8)), "logit", chunk_size=1)
    probe.clean(_first_number, "logit", gradient=True)


def _first_number(output: Any) -> Float[Tensor, " n"]:
    """Any number for each image, for models of all kinds."""
    tensors = [output] if isinstance(output, Tensor) else list(output.values() if hasattr(output, "values") else output)
    first: Tensor = next(tensor for tensor in tensors if isinstance(tensor, Tensor) and tensor.ndim > 1)
    return first.flatten(1)[:, 0]


def examined(architecture: Architecture) -> tuple[str, str, str, str]:
    """Layer, cells, rule, and how many changes land right."""
    torch.manual_seed(0)
    model = architecture.make().eval()
    image = torch.zeros(1, 3, *architecture.size)
    with undisturbed(model):
        try:
            context = target_layers(model, None, None, image, placement="tiles")
        except ValueError as error:
            return "refused", "", str(error), ""
        hits = landed(model, context, architecture.size)
        check_gradient(model, context, architecture.size)
    ((name, (rows, columns)),) = context.centres.items()
    rule = context.found_by if context.doubt is None else f"{context.found_by}; warned: {context.doubt}"
    return f"`{name}`", f"{len(rows)} x {len(columns)}", rule, f"{hits} of {len(SQUARES)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of the names")
    parser.add_argument("--library", default="", help="one library")
    parser.add_argument("--skip", type=int, default=0, help="number of architectures that are done already")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    everything = [a for library in LIBRARIES for a in library() if options.only in a.name and options.library in a.library]
    print("| library | architecture | pixels | layer | cells | found as | lands right |\n" + "| --- " * 7 + "|")
    for architecture in everything[options.skip :]:
        started = time.perf_counter()
        try:
            layer, cells, rule, hits = examined(architecture)
        except (
            ImportError,
            RuntimeError,
            TypeError,
            ValueError,
            AttributeError,
            KeyError,
            IndexError,
            AssertionError,
        ) as error:
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"{architecture.library} {architecture.name}: not made: {message[:300]}", file=sys.stderr)
            continue
        pixels = "x".join(map(str, architecture.size))
        print(f"| {architecture.library} | {architecture.name} | {pixels} | {layer} | {cells} | {rule} | {hits} |", flush=True)
        print(f"{architecture.name}: {time.perf_counter() - started:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
