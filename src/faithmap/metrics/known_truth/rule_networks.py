"""Small networks of five architectures that are trained on a known rule, and the score of their maps.

A recipe is an architecture, a rule and a seed: the same recipe gives the same network on the same machine. Every step draws new
images, so that a network cannot learn them by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.metrics.known_truth.overlap import Heatmaps, overlap_with
from faithmap.metrics.known_truth.rules import CLASSES, SIZE, RuleName, rule_images
from faithmap.model import Classifier
from faithmap.probe import run_model
from faithmap.seeds import derived, seeded

Architecture: TypeAlias = Literal["cnn", "resnet", "convnext", "vit", "swin"]
Progress: TypeAlias = Callable[[int, int], None]

BATCH = 32
HELD_OUT = 256
"""Images on which the accuracy is measured; none of them is trained on."""


@dataclass(frozen=True, eq=False)
class RuleNetwork:
    """A network that was trained on a rule.

    Attributes:
        model: in evaluation mode, for images of :func:`~faithmap.metrics.known_truth.rule_images`.
        rule: the rule.
        architecture: of the network.
        seed: of weights and training images.
        accuracy: on images that it was not trained on.

    >>> RuleNetwork(Classifier(nn.Flatten()), "count", "cnn", 0, 0.5).rule
    'count'
    """

    model: Classifier
    rule: RuleName
    architecture: Architecture
    seed: int
    accuracy: float


def train_on_rule(
    rule: RuleName,
    architecture: Architecture,
    *,
    seed: int = 0,
    steps: int | None = None,
    least_accuracy: float = 0.95,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> RuleNetwork:
    """Train a small network on a rule; some minutes on a processor.

    >>> network = train_on_rule("cancel", "cnn", steps=2, least_accuracy=0.0)
    >>> network.model.labels
    ('no circle, or a square', 'a circle and no square')

    Args:
        rule: one of ``RULES``.
        architecture: one of ``ARCHITECTURES``.
        seed: of weights and training images.
        steps: batches of 32 images; None for the recipe's number.
        least_accuracy: below which the network did not learn the rule.
        device: that it is trained on, and where it stays.
        progress: called with (steps done, number of steps).

    Raises:
        ValueError: for an unknown rule or architecture, or a network that did not learn the rule.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture is {architecture!r}; give one of {', '.join(ARCHITECTURES)}")
    held_out = rule_images(rule, HELD_OUT, derived(seed, "held out") % 2**62)
    recipe = ARCHITECTURES[architecture]
    steps = recipe.steps if steps is None else steps
    place = torch.device(device)
    with seeded(seed, place), torch.enable_grad():
        module = recipe.build(len(CLASSES[rule])).to(place)
        _train(module, rule, recipe.learning_rate, steps, seed, progress or _silent)
    model = Classifier(module, mean=(0.5,) * 3, std=(0.25,) * 3, labels=CLASSES[rule], name=f"{architecture} for {rule}")
    model = model.to(place).eval()
    with torch.no_grad():
        predicted = torch.cat([run_model(model, chunk.to(place)).argmax(dim=1).cpu() for chunk in held_out.images.split(BATCH)])
    accuracy = float((predicted == held_out.classes).double().mean())
    if accuracy < least_accuracy:
        raise ValueError(
            f"{architecture} did not learn {rule} in {steps} steps: its accuracy is {accuracy:.1%}, less than "
            f"{least_accuracy:.1%}; give more steps or another seed"
        )
    return RuleNetwork(model, rule, architecture, seed, accuracy)


class RuleShares(NamedTuple):
    """Result of :func:`rule_score`: one value per heatmap, in [0, 1], high if the map lies on the objects that matter.

    >>> RuleShares(torch.tensor([0.9]), torch.tensor([0.8]), torch.tensor([1.0])).top
    tensor([0.8000])

    Attributes:
        mass: share of the positive map on these objects.
        top: share of the highest part of the map, as large as the objects, on them.
        peak: whether the highest value is on them.
    """

    mass: Float[Tensor, " n"]
    top: Float[Tensor, " n"]
    peak: Float[Tensor, " n"]


def rule_score(heatmaps: Heatmaps, masks: Bool[Tensor, "n h w"]) -> RuleShares:
    """How much of each map lies on the objects that matter.

    >>> found = rule_score(torch.tensor([[[3.0, 1.0], [0.0, 0.0]]]), torch.tensor([[[True, False], [False, False]]]))
    >>> found.mass, found.top
    (tensor([0.7500]), tensor([1.]))

    Args:
        heatmaps: an Explanation, or a tensor whose corners are those of the image.
        masks: of the objects that matter, see :class:`~faithmap.metrics.known_truth.RuleImages`.

    Raises:
        ValueError: for masks of another number or size than the images, an empty mask, or maps that are not finite.
    """
    if not bool(masks.flatten(1).any(dim=1).all()):
        raise ValueError("masks has an image in which no object matters; give only images with such objects")
    overlap = overlap_with(heatmaps, masks)
    fraction = (overlap.inside.sum(dim=1) / overlap.area.sum()).expand(len(overlap.heat))
    return RuleShares(overlap.mass_share(), overlap.top_share(fraction), overlap.peak_share())


class TrainingRecipe(NamedTuple):
    """How a network is made and trained.

    Attributes:
        build: the untrained module for a number of classes.
        learning_rate: the highest; it falls to 0 along half a cosine.
        steps: batches.
    """

    build: Callable[[int], nn.Module]
    learning_rate: float
    steps: int


def _train(module: nn.Module, rule: RuleName, learning_rate: float, steps: int, seed: int, progress: Progress) -> None:
    device = next(module.parameters()).device
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps + 1, pct_start=0.1)
    module.train()
    for step in range(steps):
        batch = rule_images(rule, BATCH, derived(seed, step) % 2**62)
        loss = F.cross_entropy(module(((batch.images - 0.5) / 0.25).to(device)), batch.classes.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress(step + 1, steps)


def _stem(channels: int) -> nn.Module:
    """Two convolutions of stride 2 instead of patches of 4 x 4 pixels, with which small networks learn more slowly."""
    first = nn.Conv2d(3, channels // 2, 3, 2, 1), nn.BatchNorm2d(channels // 2), nn.ReLU()
    return nn.Sequential(*first, nn.Conv2d(channels // 2, channels, 3, 2, 1), nn.BatchNorm2d(channels))


def _cnn(classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for given, channels, stride in ((3, 24, 2), (24, 48, 2), (48, 64, 1), (64, 96, 2), (96, 96, 1)):
        layers += [nn.Conv2d(given, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, classes))


def _resnet(classes: int) -> nn.Module:
    from timm.models import resnet  # noqa: PLC0415 - seconds to import

    blocks: Any = resnet.BasicBlock
    return resnet.ResNet(blocks, (1, 1, 1, 1), num_classes=classes, channels=(16, 32, 64, 96), output_stride=8)


def _convnext(classes: int) -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt  # noqa: PLC0415 - seconds to import

    blocks = [CNBlockConfig(32, 64, 2), CNBlockConfig(64, None, 2)]
    network: Any = ConvNeXt(blocks, num_classes=classes, layer_scale=1.0)
    network.features[0] = _stem(32)
    return cast(nn.Module, network)


def _vit(classes: int) -> nn.Module:
    from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer  # noqa: PLC0415 - seconds to import

    stem = [ConvStemConfig(32, 3, 2), ConvStemConfig(64, 3, 3)]  # with a stem of convolutions a ViT learns in minutes
    network: nn.Module = VisionTransformer(SIZE, 6, 3, 4, 64, 128, num_classes=classes, conv_stem_configs=stem)
    return network


def _swin(classes: int) -> nn.Module:
    from torchvision.models.swin_transformer import SwinTransformer  # noqa: PLC0415 - seconds to import
    from torchvision.ops.misc import Permute  # noqa: PLC0415

    network: Any = SwinTransformer([4, 4], 32, [2, 2], [2, 4], [3, 3], stochastic_depth_prob=0.0, num_classes=classes)
    network.features[0] = nn.Sequential(_stem(32), Permute([0, 2, 3, 1]))
    return cast(nn.Module, network)


ARCHITECTURES: Mapping[Architecture, TrainingRecipe] = MappingProxyType(
    {
        "cnn": TrainingRecipe(_cnn, 5e-3, 500),
        "resnet": TrainingRecipe(_resnet, 5e-3, 600),
        "convnext": TrainingRecipe(_convnext, 2e-3, 1000),
        "vit": TrainingRecipe(_vit, 1e-3, 1500),
        "swin": TrainingRecipe(_swin, 1e-3, 1000),
    }
)
"""Recipes of the architectures: a plain convolutional network, ResNet, ConvNeXt, ViT and Swin.

The first was trained until it knew the rules ``count``, ``left_of`` and ``cancel``. The steps of the others are estimates: a
network that did not learn its rule is refused."""


def _silent(done: int, total: int) -> None:
    del done, total
