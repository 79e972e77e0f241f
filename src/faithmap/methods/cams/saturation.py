r"""Saturation: where along the path from a baseline to the image the score stops changing (Buono 2024, Figure 2).

At :math:`z(a) = b + a (x - b)` it measures the score :math:`y(z)`, the cosine between the layer's activations :math:`A(z)` and
:math:`A(x)`, and the norm of :math:`\partial y / \partial A`. Where the score no longer changes the gradient is small, and the
gradient at :math:`a = 1` says little about why the score rose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.baselines import Baseline, make_baseline, with_zero
from faithmap.explanation import Explanation
from faithmap.layers import ReshapeTransform, target_layers
from faithmap.model import check_images, normalised_zero, undisturbed, working_images
from faithmap.probe import LayerProbe
from faithmap.score import ScoreKind, Target


@dataclass(frozen=True, eq=False)
class Saturation:
    """Measurements along the paths of n images.

    Attributes:
        positions: positions a on the path, from 0 to 1.
        score: score at each position.
        similarity: cosine between the activations and those of the image itself, in [-1, 1].
        gradient_norm: Euclidean norm over all channels and cells.
        target_layer: name of the layer.

    >>> path = torch.tensor([[0.0, 0.9, 1.0]])
    >>> Saturation(torch.linspace(0, 1, 3), score=path, similarity=path, gradient_norm=path, target_layer="layer4").share(0.2)
    tensor([0.5000])
    """

    positions: Float[Tensor, " p"]
    score: Float[Tensor, "n p"]
    similarity: Float[Tensor, "n p"]
    gradient_norm: Float[Tensor, "n p"]
    target_layer: str

    def share(self, tolerance: float = 0.05) -> Float[Tensor, " n"]:
        """The share of the path, up to the image, on which the score stays within a tolerance of the image's score.

        Args:
            tolerance: as a share of the change of the score from the baseline to the image.

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
    """Measure the saturation along the path from each image's baseline to the image.

    Args:
        model: a Classifier, or any module that takes the images.
        images: in [0, 1] for a Classifier, on the model's device.
        target: the class: None for each image's predicted one, an index, one index per image, or a callable.
        target_layer: one layer, a module or its dotted name; None for the last with a spatial output.
        reshape_transform: from the layer's output to (n, k, h, w); None recognises common shapes.
        baseline: the start of the paths; a name, pixel value, tensor or callable.
        positions: number of positions, evenly spaced with both ends, at least 2.
        score: the explained score of the class: its logit or its probability.
        chunk_size: maximum number of images in one pass.
        autocast: a lower precision for the passes, such as ``torch.bfloat16``; None for the model's own.

    Raises:
        ValueError: for images, targets, layers or baselines that do not fit, or fewer than two positions.

    >>> model = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> saturation(model, image, baseline="black", positions=3, score="logit").score
    tensor([[0.0000, 0.2000, 0.4000]])
    """
    check_images(model, images)
    if positions < 2 or isinstance(target_layer, (list, tuple)):
        raise ValueError("give at least 2 positions, and a single target_layer")
    images = working_images(model, images)
    with undisturbed(model):
        context = target_layers(model, target_layer, reshape_transform, images[:1])
        probe = context.probe(model, images, score, chunk_size=chunk_size, autocast=autocast)
        _, _, clean = probe.clean(target, score, gradient=False)
        start = with_zero(baseline, normalised_zero(model))
        (name, activation), at = next(iter(clean.activation.items())), torch.linspace(0, 1, positions).to(images)
        paths = [_measured(probe, i, start, activation[i], at) for i, start in enumerate(make_baseline(start, images).split(1))]
    values, similarity, norm = (torch.stack(rows) for rows in zip(*paths, strict=True))
    return Saturation(at, values, similarity, norm, name)


def _measured(
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
        results = probe.observe(z, torch.full((len(z),), image, device=z.device))
        (at_z,), (gradient,) = results.activation.values(), results.gradient.values()
        cosine = F.cosine_similarity(at_z.flatten(1), activation.flatten().unsqueeze(0))
        parts.append((results.score, cosine, gradient.flatten(1).norm(dim=1)))
    score_, cosine_, norm = (torch.cat(values) for values in zip(*parts, strict=True))
    return score_, cosine_, norm


def top_features(
    model: nn.Module, images: Float[Tensor, "n c h w"], explanation: Explanation, count: int = 4, *, chunk_size: int = 32
) -> Explanation:
    """The mean feature map of a class activation map's most important channels, as an explanation to be evaluated.

    Negative values of a feature map are set to 0, and it is divided by its largest value.

    Args:
        model: the explained model.
        images: the explained images.
        explanation: the explanation of a class activation map, which names its ``top_channels``, at one layer.
        count: number of channels, from 1 to 10.
        chunk_size: maximum number of images in one pass.

    Raises:
        ValueError: for another method's explanation, several layers, or more channels than are named.

    >>> from faithmap.methods.cams import GradCAM
    >>> model = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> top_features(model, image, GradCAM(model)(image), count=1).heatmap
    tensor([[[0.0000, 0.5000],
             [1.0000, 0.5000]]])
    """
    named = [diagnostics.get("top_channels", {}) for diagnostics in explanation.diagnostics]
    if not named or any(len(layers) != 1 for layers in named):
        raise ValueError(
            f"{explanation.method} names no top channels of one layer; give the explanation of a class activation map"
        )
    ((layer, first),) = named[0].items()
    if not 1 <= count <= len(first):
        raise ValueError(f"count is {count}; give 1 to {len(first)} channels")
    images = working_images(model, images)
    with undisturbed(model):
        probe = target_layers(model, layer, None, images[:1]).probe(model, images, "logit", chunk_size=chunk_size)
        _, _, clean = probe.clean(explanation.explained, "logit", gradient=False)
    channels = torch.tensor([layers[layer][:count] for layers in named], device=images.device)
    rows = torch.arange(len(images), device=images.device).unsqueeze(1)
    features = clean.activation[layer][rows, channels].relu()
    largest = features.amax(dim=(2, 3), keepdim=True)
    heatmap = (features / largest).where(largest > 0, 0).mean(dim=1)
    method, title = (f"top {count} of {name}" for name in (explanation.method, explanation.title))
    return replace(explanation, heatmap=heatmap, score=None, method=method, title=title, settings={}, diagnostics=())
