r"""Saturation: how much of the path from a baseline to the image no longer moves the score (Buono 2024, Figure 2).

At :math:`z(a) = b + a (x - b)` are measured the score :math:`y(z)`, the cosine between the layer's activations :math:`A(z)` and
:math:`A(x)`, and the norm of :math:`\partial y / \partial A` there. Where the score has arrived the gradient is small, and a
method that looks at :math:`a = 1` alone sees little of what made the score rise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.baselines import Baseline, make_baseline
from faithmap.explanation import Explanation
from faithmap.layers import ReshapeTransform, target_layers
from faithmap.model import check_images, undisturbed
from faithmap.probe import LayerProbe
from faithmap.score import ScoreKind, Target


@dataclass(frozen=True, eq=False)
class Saturation:
    """What was measured along the paths of n images.

    Attributes:
        positions: a, from 0 to 1.
        score: at each position.
        similarity: cosine to the activations of the image itself, in [-1, 1].
        gradient_norm: Euclidean, over all channels and cells.
        target_layer: whose activations they are.
    """

    positions: Float[Tensor, " p"]
    score: Float[Tensor, "n p"]
    similarity: Float[Tensor, "n p"]
    gradient_norm: Float[Tensor, "n p"]
    target_layer: str

    def share(self, tolerance: float = 0.05) -> Float[Tensor, " n"]:
        """The part of the path, up to the image, on which the score stays within a tolerance of where it ends.

        Args:
            tolerance: as a part of the change from the baseline to the image.

        >>> path = torch.tensor([[0.0, 0.5, 0.97, 1.0, 1.0]])
        >>> Saturation(torch.linspace(0, 1, 5), path, path, path, "layer4").share()
        tensor([0.5000])
        """
        change = (self.score[:, -1:] - self.score[:, :1]).abs()
        near = (self.score - self.score[:, -1:]).abs() <= tolerance * change
        staying = near.flip(1).long().cumprod(dim=1).sum(dim=1)
        return 1 - self.positions[len(self.positions) - staying]


def saturation(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    target: Target = None,
    *,
    target_layer: nn.Module | str | None = None,
    reshape_transform: ReshapeTransform | None = None,
    baseline: Baseline = "blur",
    positions: int = 51,
    score: ScoreKind = "probability",
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
) -> Saturation:
    """Walk from each image's baseline to the image.

    Args:
        model: as for explainers.
        images: likewise.
        target: likewise.
        target_layer: one layer; None for the last with a spatial output.
        reshape_transform: as for class activation maps.
        baseline: where the paths begin.
        positions: evenly spaced, both ends in.
        score: what is measured of the class.
        chunk_size: images in one pass at the most.
        autocast: a lower precision for the passes.

    Raises:
        ValueError: for images, targets, layers or baselines that do not fit, or fewer than two positions.
    """
    check_images(model, images)
    if positions < 2 or isinstance(target_layer, (list, tuple)):
        raise ValueError("give at least 2 positions, and a single target_layer")
    images = images.detach()
    with undisturbed(model):
        context = target_layers(model, target_layer, reshape_transform, images[:1])
        probe = context.probe(model, images, score, chunk_size=chunk_size, autocast=autocast)
        _, _, clean = probe.clean(target, score, gradient=False)
        (name, activation), at = next(iter(clean.activation.items())), torch.linspace(0, 1, positions).to(images)
        walks = [_walk(probe, i, start, activation[i], at) for i, start in enumerate(make_baseline(baseline, images).split(1))]
    values, similarity, norm = (torch.stack(rows) for rows in zip(*walks, strict=True))
    return Saturation(at, values, similarity, norm, name)


def _walk(
    probe: LayerProbe,
    image: int,
    start: Float[Tensor, "1 c h w"],
    activation: Float[Tensor, "k h w"],
    at: Float[Tensor, " p"],
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Score, similarity and gradient norm at each position of one image's path."""
    parts = []
    for positions in at.split(probe.chunk_size):
        z = torch.lerp(start, probe.images[image : image + 1], positions.view(-1, 1, 1, 1))
        answer = probe.observe(z, torch.full((len(z),), image, device=z.device))
        (here,), (gradient,) = answer.activation.values(), answer.gradient.values()
        cosine = F.cosine_similarity(here.flatten(1), activation.flatten().unsqueeze(0))
        parts.append((answer.score, cosine, gradient.flatten(1).norm(dim=1)))
    score_, cosine_, norm = (torch.cat(values) for values in zip(*parts, strict=True))
    return score_, cosine_, norm


def top_features(
    model: nn.Module, images: Float[Tensor, "n c h w"], why: Explanation, count: int = 4, *, chunk_size: int = 32
) -> Explanation:
    """What a class activation map's most important channels show, as a map of its own, whose insertion tells their worth.

    Each feature map is divided by its largest value, what is negative in it left out, and the mean is taken.

    Args:
        model: as it was explained.
        images: as they were explained.
        why: of a method that names its ``top_channels``, at one layer.
        count: channels, up to ten.
        chunk_size: images in one pass at the most.

    Raises:
        ValueError: for another method's explanation, several layers, or more channels than are named.
    """
    named = [diagnostics.get("top_channels", {}) for diagnostics in why.diagnostics]
    if not named or any(len(layers) != 1 for layers in named):
        raise ValueError(f"{why.method} names no top channels of one layer; give the explanation of a class activation map")
    ((layer, first),) = named[0].items()
    if not 1 <= count <= len(first):
        raise ValueError(f"count is {count}; give 1 to {len(first)} channels")
    with undisturbed(model):
        probe = target_layers(model, layer, None, images[:1]).probe(model, images.detach(), "logit", chunk_size=chunk_size)
        _, _, clean = probe.clean(why.explained, "logit", gradient=False)
    channels = torch.tensor([layers[layer][:count] for layers in named], device=images.device)
    rows = torch.arange(len(images), device=images.device).unsqueeze(1)
    features = clean.activation[layer][rows, channels].relu()
    largest = features.amax(dim=(2, 3), keepdim=True)
    heatmap = (features / largest).where(largest > 0, 0).mean(dim=1)
    method = f"top {count} of {why.method}"
    return replace(why, heatmap=heatmap, score=None, method=method, settings={}, diagnostics=())
