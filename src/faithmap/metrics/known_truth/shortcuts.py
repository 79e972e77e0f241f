r"""Planted shortcuts: a head on frozen features decides by a mark that was planted into images. Does a map show the mark?

Each training image is used with and without the mark, so that only the mark tells the classes apart. The head is a detector at
every cell of a feature layer, and the logit of the mark is their smooth maximum,

.. math:: z(x) = \frac{a}{\beta} \log \sum_c \exp(\beta (w^T f_c(x) + b)) + d

with :math:`\beta = 4`. The detector is a logistic regression between the cells of the marks and all cells of the images without
marks, trained with all of them in each step, on features that are computed once. It is trained on one half of the images;
:math:`a` and :math:`d` are set on a sixth of them, so that both classes are equally many standard deviations from 0. The rest
is held out, to measure whether the head learned the rule. A second mark can be present in every image and mean nothing: a good
map does not show it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from faithmap.explanation import Explanation
from faithmap.layers import target_layers
from faithmap.metrics.known_truth.marks import MarkKind, place_mark, plant
from faithmap.metrics.known_truth.overlap import Heatmaps, overlap_with
from faithmap.metrics.known_truth.regions import Box
from faithmap.model import Classifier, undisturbed
from faithmap.probe import run_model
from faithmap.score import at_least_single
from faithmap.seeds import derived

DECAY = 1e-2
"""Weight of the squared weights in the detector's loss, on features of standard deviation 1."""

SHARPNESS = 4.0
"""The exponent of the smooth maximum over the cells."""

MAX_CELLS = 20_000
"""Cells without a mark that the detector is trained on, at most."""

PLACES = 100
"""Number of places that are drawn at most for a mark that may not touch another."""


@dataclass(frozen=True, eq=False)
class PlantedShortcut:
    """A model that decides by a mark, and images with the mark that it was not trained on and recognises.

    Attributes:
        model: returns logits of the classes "without" and "with" the mark.
        images: with the mark; explain class 1.
        masks: of the mark in each.
        unused_masks: of the other mark in each, which means nothing; None if there is none.
        accuracy_with: share of the held-out images with the mark that are classified right.
        accuracy_without: share of the held-out images without the mark that are classified right.

    >>> masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    >>> PlantedShortcut(Classifier(nn.Flatten()), torch.zeros(1, 3, 4, 4), masks, None, 1.0, 0.9).accuracy_without
    0.9
    """

    model: Classifier
    images: Float[Tensor, "m 3 h w"]
    masks: Bool[Tensor, "m h w"]
    unused_masks: Bool[Tensor, "m h w"] | None
    accuracy_with: float
    accuracy_without: float


def plant_shortcut(
    images: Float[Tensor, "n 3 h w"],
    model: nn.Module | None = None,
    *,
    mark: MarkKind = "logo",
    size: float = 0.2,
    place: tuple[float, float] | None = None,
    unused: MarkKind | None = None,
    target_layer: str | nn.Module | None = None,
    least_accuracy: float = 0.9,
    seed: int = 0,
    chunk_size: int = 32,
) -> PlantedShortcut:
    """Train a head that decides whether a mark is in an image, on two thirds of the images, and keep the others.

    The features of the model are frozen, and the model is left unchanged; the planted model shares its weights.

    >>> torch.manual_seed(0)
    <torch...Generator object at ...>
    >>> network = nn.Sequential(nn.Conv2d(3, 24, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> shortcut = plant_shortcut(torch.rand(24, 3, 1, 1).expand(24, 3, 32, 32), network, size=0.3)
    >>> shortcut.accuracy_with, shortcut.accuracy_without, tuple(shortcut.masks.shape)
    (1.0, 1.0, (8, 32, 32))

    Args:
        images: without marks, in [0, 1], of the size that the model takes; at least 12, better 60.
        model: a Classifier, or a module that takes images in [0, 1]; None for the embedded efficientnet_lite0.
        mark: that decides.
        size: of the marks, as a share of the image's shorter side; a ruler has half of it.
        place: of the mark, two numbers in [0, 1] from top to bottom and from left to right; None draws a place for each image.
        unused: another mark, present in every image with and without the first, never in the same place.
        target_layer: the feature layer, a module or its name; None for the last layer with more cells than the one that
            Grad-CAM explains, if there is one. A small mark is hard to recognise in few cells.
        least_accuracy: below which the head did not learn the rule.
        seed: of the places.
        chunk_size: maximum number of images in one pass.

    Raises:
        ValueError: for fewer than 12 images, an unknown mark, two equal marks or no room for both, or a head that did not learn
            the rule, by its accuracy on images that it was not trained on.
    """
    if len(images) < 12:
        raise ValueError(f"images has {len(images)} entries; give at least 12, of which a third is held out")
    if unused == mark:
        raise ValueError(f"mark and unused are both {mark!r}; give two different marks")
    model = _embedded() if model is None else model
    boxes = _boxes(images, (mark, unused), size, place, seed)
    unused_masks: Tensor | None = None
    if unused is not None:
        images, unused_masks = plant(images, unused, [pair[1] for pair in boxes])
    marked, masks = plant(images, mark, [pair[0] for pair in boxes])
    layer = FeatureLayer.of(model, target_layer, images[:1])
    features = [layer.values(model, each, chunk_size) for each in (images, marked)]
    trained, calibrated, held_out = _split(len(images), images.device)
    head = _trained_head(features[0][trained], features[1][trained], layer.cells_in(masks[trained]))
    head.calibrate(*(each[calibrated] for each in features))
    with torch.no_grad():
        correct = [(head(each[held_out]).argmax(dim=1) == i) for i, each in enumerate(features)]
    without, with_mark = (float(each.double().mean()) for each in correct)
    if min(without, with_mark) < least_accuracy:
        raise ValueError(
            f"the head did not learn the rule: on held-out images it is right for {with_mark:.0%} with the {mark} and "
            f"{without:.0%} without, less than {least_accuracy:.0%}; give a larger size, more images or another mark"
        )
    recognised = held_out[correct[1]]
    return PlantedShortcut(
        _planted(model, layer, head, mark),
        marked[recognised],
        masks[recognised],
        None if unused_masks is None else unused_masks[recognised],
        with_mark,
        without,
    )


class ShortcutScore(NamedTuple):
    """Result of :func:`shortcut_score`: one value per heatmap. For an unused mark, ``found`` and ``share`` are to be low.

    >>> ShortcutScore(torch.tensor([1.0]), torch.tensor([0.8]), torch.tensor([0.0])).share
    tensor([0.8000])

    Attributes:
        found: 1 if the mark is among the top 5 % of the map, else 0.
        share: of the positive map in the mark.
        rank: share of the image's area that is ranked above the mark's highest cell; 0 is best.
    """

    found: Float[Tensor, " n"]
    share: Float[Tensor, " n"]
    rank: Float[Tensor, " n"]


def shortcut_score(heatmaps: Heatmaps, masks: Bool[Tensor, "n h w"], *, fraction: float = 0.05) -> ShortcutScore:
    """Whether, and how clearly, each map shows its mark.

    The mark's cells are those that lie in the mark at least half as much as the one that does so most. The part of a cell that
    counts is relative to the mark, if the mark is smaller than the cell.

    >>> heatmap, mask = torch.zeros(1, 5, 5), torch.zeros(1, 5, 5, dtype=torch.bool)
    >>> heatmap[0, 0, :2], mask[0, 0, 0] = torch.tensor([3.0, 1.0]), True
    >>> score = shortcut_score(heatmap, mask)
    >>> score.found, score.share, score.rank
    (tensor([1.]), tensor([0.7500]), tensor([0.]))

    Args:
        heatmaps: of images with marks; an Explanation, or a tensor whose corners are those of the image.
        masks: of the mark in each image.
        fraction: of the area, the top of the map.

    Raises:
        ValueError: for masks of another number or size than the images, an empty mask, or maps that are not finite.
    """
    if not bool(masks.flatten(1).any(dim=1).all()):
        raise ValueError("masks has an image without a mark; give only images with marks")
    overlap = overlap_with(heatmaps, masks)
    rank = overlap.rank()
    return ShortcutScore((rank < fraction).to(overlap.dtype), overlap.mass_share(), rank.to(overlap.dtype))


@dataclass(frozen=True, eq=False)
class FeatureLayer:
    """The layer whose cells the head gets.

    Attributes:
        module: the layer.
        part: index of the features among the tensors of its output.
        reshape: from the features to (n, k, r, c).
        centres: of the rows and columns of cells, in pixels.
    """

    module: nn.Module
    part: int
    reshape: Callable[[Tensor], Tensor]
    centres: tuple[Float[Tensor, " r"], Float[Tensor, " c"]]

    @classmethod
    def of(cls, model: nn.Module, target_layer: str | nn.Module | None, image: Float[Tensor, "1 3 h w"]) -> FeatureLayer:
        """Find the layer: the given one, or the finer of the default layers of two resolutions."""
        with undisturbed(model):
            context = target_layers(model, target_layer, None, image, 2)
        name = list(context.layers)[-1]
        return cls(context.layers[name], context.parts[name], context.reshape[name], context.centres[name])

    def observe(self, model: nn.Module, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k r c"]:
        """The features of one pass; the hook gets what the network continues with."""
        kept: list[Any] = []
        hook = self.module.register_forward_hook(lambda *call: kept.append(call[-1]))
        try:
            run_model(model, images)
        finally:
            hook.remove()
        return self.reshape(tree_leaves(kept[0])[self.part])

    def values(self, model: nn.Module, images: Float[Tensor, "n 3 h w"], chunk_size: int) -> Float[Tensor, "n k r c"]:
        """The features of all images, without gradients."""
        with undisturbed(model), torch.no_grad():
            return torch.cat([at_least_single(self.observe(model, chunk)) for chunk in images.split(chunk_size)])

    def cells_in(self, masks: Bool[Tensor, "n h w"]) -> Bool[Tensor, "n r c"]:
        """The cells of each mark."""
        rows, columns = self.centres
        empty = torch.zeros(len(masks), len(rows), len(columns), device=masks.device)
        explanation = Explanation(empty, (masks.shape[1], masks.shape[2]), rows=rows, columns=columns)
        return overlap_with(explanation, masks).of_region().view(empty.shape)


class _MarkHead(nn.Module):
    """Two logits from the smooth maximum of a detector over the cells."""

    weight: Tensor

    def __init__(self, weight: Float[Tensor, " k"], bias: float) -> None:
        super().__init__()
        self.bias, self.scale, self.shift = bias, 1.0, 0.0
        self.register_buffer("weight", weight)

    def forward(self, cells: Float[Tensor, "n k r c"]) -> Float[Tensor, "n 2"]:
        logit = self.scale * self.smooth_maximum(cells) + self.shift
        return torch.stack([-logit, logit], dim=1) / 2

    def smooth_maximum(self, cells: Float[Tensor, "n k r c"]) -> Float[Tensor, " n"]:
        """Of the detector over the cells."""
        detected = self.bias + torch.einsum("nkrc,k->nrc", at_least_single(cells), self.weight).flatten(1)
        return (SHARPNESS * detected).logsumexp(dim=1) / SHARPNESS

    def calibrate(self, without: Float[Tensor, "n k r c"], with_mark: Float[Tensor, "n k r c"]) -> None:
        """Set the logit to 0 equally many standard deviations from both means, and the difference of the means to 8."""
        (low, high), (below, above) = (
            [float(statistic(self.smooth_maximum(each))) for each in (without, with_mark)]
            for statistic in (torch.mean, torch.std)
        )
        self.scale = 8 / max(high - low, 1e-6)
        self.shift = -self.scale * (low * above + high * below) / max(below + above, 1e-6)


class _PlantedModel(nn.Module):
    """The frozen model up to its feature layer, and the head."""

    def __init__(self, module: nn.Module, layer: FeatureLayer, head: _MarkHead) -> None:
        super().__init__()
        self.module, self.layer, self.head = module, layer, head

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2"]:
        logits: Tensor = self.head(self.layer.observe(self.module, images))
        return logits


def _embedded() -> Classifier:
    from faithmap.zoo import load  # noqa: PLC0415 - only this default needs a model of the zoo

    return load("efficientnet_lite0")


def _split(count: int, device: torch.device) -> list[Int[Tensor, " m"]]:
    """The images to train on, to calibrate with, and the held-out ones; of neighbours, which are often alike, some of each."""
    turn = torch.arange(count, device=device) % 6
    return [mask.nonzero().flatten() for mask in (turn % 2 == 0, turn == 1, (turn == 3) | (turn == 5))]


def _trained_head(
    without: Float[Tensor, "n k r c"], with_mark: Float[Tensor, "n k r c"], of_mark: Bool[Tensor, "n r c"]
) -> _MarkHead:
    """Logistic regression on standardised features by LBFGS, in double precision; without random numbers."""
    plain = without.movedim(1, -1).flatten(0, -2)
    plain = plain[:: -(-len(plain) // MAX_CELLS)].double()
    marks = with_mark.movedim(1, -1)[of_mark].double()
    mean, std = plain.mean(dim=0), plain.std(dim=0)
    std = std.clamp(min=float(std.mean()) + 1e-8)  # a channel that is almost never active would get a huge weight
    plain, marks = (plain - mean) / std, (marks - mean) / std
    weight = torch.zeros_like(mean, requires_grad=True)
    bias = mean.new_zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        errors = F.softplus(-(marks @ weight + bias)).mean() + F.softplus(plain @ weight + bias).mean()
        value: Tensor = errors + DECAY * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    direction = (weight / std).detach()
    return _MarkHead(direction.to(without), float((bias - direction @ mean).detach()))


def _planted(model: nn.Module, layer: FeatureLayer, head: _MarkHead, mark: str) -> Classifier:
    """The planted model as a Classifier with the preprocessing of the given one."""
    labels = (f"without {mark}", f"with {mark}")
    given = model if isinstance(model, Classifier) else Classifier(model)
    planted = Classifier(
        _PlantedModel(given.module, layer, head),
        mean=given.mean.flatten().tolist(),
        std=given.std.flatten().tolist(),
        labels=labels,
        geometry=given.geometry,
        name=f"{given.name} with a planted {mark}",
    ).to(given.device)
    planted.training = planted.module.training = model.training  # train() would also change the modules of the model
    return planted


def _boxes(
    images: Float[Tensor, "n 3 h w"],
    marks: tuple[MarkKind, MarkKind | None],
    size: float,
    place: tuple[float, float] | None,
    seed: int,
) -> list[list[Box]]:
    """For each image the box of the mark and that of the unused one, which do not touch."""
    image_size = (images.shape[-2], images.shape[-1])
    kinds = [mark for mark in marks if mark is not None]
    boxes = []
    for i in range(len(images)):
        generator = torch.Generator().manual_seed(derived(seed, i))
        for _ in range(PLACES):
            drawn = torch.rand(len(kinds), 2, generator=generator).tolist()
            if place is not None:
                drawn[0] = list(place)
            found = [
                place_mark(kind, size / 2 if kind == "ruler" else size, image_size, down, along)
                for kind, (down, along) in zip(kinds, drawn, strict=True)
            ]
            if len(found) == 1 or _apart(*found):
                boxes.append(found)
                break
        else:
            raise ValueError(f"size is {size}: there is no room for both marks; give a smaller one")
    return boxes


def _apart(first: Box, second: Box) -> bool:
    """Whether two boxes do not touch."""
    return first[2] < second[0] or second[2] < first[0] or first[3] < second[1] or second[3] < first[1]
