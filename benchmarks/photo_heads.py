"""A network on photographs that ends in fully connected layers as VGG does: a frozen feature map, and a head that is trained.

The head learns to imitate the probabilities that the feature map's own model gives to eight groups of classes, such as birds.
Those of any feature map are known, also of one with cells of two photographs, so that a few hundred crops are enough. The
network that is explained begins at the feature map: its images are feature maps, a baseline is the feature map of the blurred
photograph, and a pass takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

import faithmap as fm
from faithmap.baselines import make_baseline
from faithmap.methods.references import RandomBlurs, draw_references

PIXEL_STD = 0.25
"""Standard deviation of the pixels of photographs; feature maps get it, so that noise of a method stays in proportion."""

REFERENCES = 8

BIRDS = (*range(7, 25), *range(80, 101), *range(127, 147))
FISH = (*range(7), *range(389, 398))
INVERTEBRATES = (*range(69, 80), *range(107, 127), *range(300, 330))
MAMMALS = (*range(101, 107), *range(147, 151), *range(269, 300), *range(330, 389))
GROUPS = {
    "fish": FISH,
    "birds": BIRDS,
    "amphibians and reptiles": range(25, 69),
    "invertebrates": INVERTEBRATES,
    "dogs": range(151, 269),
    "other mammals": MAMMALS,
    "artefacts": range(398, 924),
    "food, scenes and plants": range(924, 1000),
}
"""Classes of ImageNet by group; few photographs are enough to learn groups."""


@dataclass(frozen=True)
class PhotoFeatures:
    """Feature maps of photographs, of their blurred copies, and of copies with random blurs, from which paths start."""

    images: Float[Tensor, "n k h w"]
    baselines: Float[Tensor, "n k h w"]
    references: Float[Tensor, "n m k h w"]

    def scaled(self, factor: float) -> PhotoFeatures:
        """All times a factor."""
        return PhotoFeatures(self.images * factor, self.baselines * factor, self.references * factor)


@dataclass(frozen=True)
class Backbone:
    """A model up to its last feature map, with the weights of what follows: average pooling and one linear layer.

    Attributes:
        model: with the modules ``global_pool`` and ``classifier``, such as efficientnet_lite0.
        scale: factor of the feature maps.
    """

    model: fm.Classifier
    scale: float = 1.0

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k r c"]:
        """The feature maps of images."""
        found: list[Tensor] = []
        pooling = self.model.module.get_submodule("global_pool")
        handle = pooling.register_forward_pre_hook(lambda _, inputs: found.append(*inputs))
        try:
            self.model(images.contiguous(memory_format=torch.channels_last))
        finally:
            handle.remove()
        return found[0].contiguous() * self.scale

    @torch.no_grad()
    def groups(self, features: Float[Tensor, "n k r c"]) -> Float[Tensor, "n groups"]:
        """The logits of the groups of classes for any feature map, of which the model's logits are known."""
        logits: Tensor = self.model.module.get_submodule("classifier")(features.mean(dim=(2, 3)) / self.scale)
        return torch.stack([logits[:, list(members)].logsumexp(dim=1) for members in GROUPS.values()], dim=1)

    def evidence(self, count: int) -> Float[Tensor, "channels k"]:
        """The weights of so many classes, the same number of each group, without what all classes have in common."""
        weight = self.model.module.get_parameter("classifier.weight").detach()
        each = count // len(GROUPS)
        chosen = [members[i * len(members) // each] for members in GROUPS.values() for i in range(each)]
        return (weight - weight.mean(dim=0))[chosen]

    def crops(self, files: Iterable[Path], count: int, generator: torch.Generator) -> Float[Tensor, "n k r c"]:
        """Feature maps of random crops of photographs, half of them mirrored."""
        found = []
        for file in files:
            photo = fm.read_image(file)
            side = min(photo.shape[-2:])
            parts = []
            for i in range(count):
                size = int(side * (0.5 + 0.5 * torch.rand((), generator=generator)))
                top, left = ((n - size) * torch.rand((), generator=generator) for n in photo.shape[-2:])
                part = photo[..., int(top) : int(top) + size, int(left) : int(left) + size]
                part = F.interpolate(part, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
                parts.append(part.flip(-1) if i % 2 else part)
            found.append(self(torch.cat(parts)))
        return torch.cat(found)

    def photographs(self, files: Iterable[Path], generator: torch.Generator) -> PhotoFeatures:
        """The feature maps of photographs and of what paths start from."""
        images, baselines, references = [], [], []
        for file in files:
            image = self.model.read(file)
            blurs = draw_references(RandomBlurs(), image, REFERENCES, generator)
            features = self(torch.cat([image, make_baseline("blur", image), blurs]))
            images.append(features[0])
            baselines.append(features[1])
            references.append(features[2:])
        return PhotoFeatures(torch.stack(images), torch.stack(baselines), torch.stack(references))


def make_network(backbone: Backbone) -> nn.Sequential:
    """What follows a feature map of 7 x 7 cells. Layer ``1``, which is explained, is the rectified evidence of 128 classes."""
    width, hidden = 128, 512
    evidence = backbone.evidence(width)
    first = nn.Conv2d(evidence.shape[1], width, 1, bias=False).requires_grad_(False)
    first.weight.copy_(evidence.view_as(first.weight) / evidence.norm(dim=1).mean())
    layers = [nn.Linear(width * 49, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(first, nn.ReLU(), nn.Flatten(), *layers, nn.Linear(hidden, len(GROUPS)))


def mixed(maps: Float[Tensor, "n k r c"], count: int, generator: torch.Generator) -> Float[Tensor, "m k r c"]:
    """Feature maps whose cells are from two of the given ones, each from one of the two at random; a third are unmixed."""
    first, second = (maps[torch.randint(len(maps), (count,), generator=generator)] for _ in range(2))
    share = torch.rand(count, 1, 1, 1, generator=generator)
    share[: count // 3] = 1
    return torch.where(torch.rand(count, 1, *maps.shape[-2:], generator=generator) < share, first, second)


def imitating(backbone: Backbone, maps: Float[Tensor, "n k r c"], steps: int, seed: int) -> nn.Sequential:
    """A network that is trained to give the model's probabilities of the groups."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = make_network(backbone)
    optimiser = torch.optim.AdamW(network[1:].parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    for _ in range(steps):
        batch = mixed(maps, 64, generator)
        wanted, given = backbone.groups(batch).log_softmax(dim=1), network(batch).log_softmax(dim=1)
        optimiser.zero_grad()
        F.kl_div(given, wanted, reduction="batchmean", log_target=True).backward()
        optimiser.step()
        schedule.step()
    return network.eval()
