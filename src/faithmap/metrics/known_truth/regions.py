r"""Models that see only a region of the image, so that importance outside is known to be zero.

:DiFull: everything outside the region is replaced before the first layer. Nothing outside can change the score.
:DiPart: the model sees the whole image, but what follows its feature layer gets only the cells in the region. What lies further
    outside than the receptive field of these cells cannot change the score.
:weighted regions: the score is :math:`w_1 f(x_1) + w_2 f(x_2)`, with :math:`x_k` region k alone. If both regions show the same
    content, the true share of the first is :math:`w_1 / (w_1 + w_2)`.

The first two are of Rao, Böhle and Schiele 2022, "Towards Better Understanding Attribution Methods", who rebuild a network for
them; here they are wrappers around any model. Their score is the share of the absolute importance where nothing can matter:

.. math:: \sum_{c \notin R} a_c |h_c| / \sum_c a_c |h_c|

with :math:`a_c` the area of cell :math:`c`, and :math:`c \notin R` if the cell's part of the interpolated map does not reach
the region. For maps of pixels these are the pixels outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from faithmap.default_layer import Graph
from faithmap.explanation import interpolation_matrix
from faithmap.layers import LayerContext, target_layers
from faithmap.metrics.known_truth.overlap import Heatmaps, overlap_with, placed
from faithmap.model import Classifier, undisturbed
from faithmap.score import probabilities_of
from faithmap.warning_types import EmptyHeatmapWarning, warn

Box: TypeAlias = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, right and bottom excluded."""

Filling: TypeAlias = "float | Sequence[float] | Float[Tensor, 'c h w'] | None"
"""What hidden pixels become: a value, one for each channel, an image, or None for what the model normalises to 0."""


def region_of(box: Box, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """The mask of a box.

    >>> region_of((0, 0, 1, 2), (2, 2))
    tensor([[ True, False],
            [ True, False]])

    Args:
        box: (left, top, right, bottom) in pixels, right and bottom excluded.
        size: (height, width) of the image.

    Raises:
        ValueError: for a box that is empty or exceeds the image.
    """
    left, top, right, bottom = box
    if not (0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]):
        raise ValueError(f"box is {box} in an image of {size} pixels; give left < right and top < bottom inside the image")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def difull(model: nn.Module, region: Bool[Tensor, "h w"], *, filling: Filling = None) -> nn.Module:
    """A model of which only a region of the image is seen; the rest is replaced before the first layer.

    Methods that explain a layer work: they find the layers of the model as it is without the region.

    >>> model = difull(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.tensor([[True, False]]))
    >>> model(torch.tensor([[[[0.5, 1.0]]]]))
    tensor([[0.2500]])

    Args:
        model: a Classifier, or any module that takes images; it is not changed, and its weights are shared.
        region: True for the pixels that the model sees.
        filling: what the others become, in the units of the model's images: a value, one value for each channel, or an image
            (c, h, w); None for what the model normalises to 0.

    Returns:
        A Classifier for a Classifier, a module for a module.

    Raises:
        ValueError: for a region without pixels, or of all pixels.
    """
    _check_region(region)
    values = _as_tensor(filling).to(_device(model))
    if isinstance(model, Classifier):
        values = torch.zeros_like(values) if filling is None else (values - model.mean) / model.std
    return _as_given(model, _VisibleRegion(_inner(model), region.to(_device(model)), values))


def dipart(
    model: nn.Module,
    region: Bool[Tensor, "h w"],
    image: Float[Tensor, "1 c h w"],
    *,
    target_layer: str | nn.Module | None = None,
) -> nn.Module:
    """A model whose layers behind a feature layer get only the cells in a region; the other cells become the mean of these.

    A global average pooling thus becomes the mean over the region. The weights are shared, and the model is not changed.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> left, image = region_of((0, 0, 8, 16), (16, 16)), torch.rand(1, 1, 16, 16)
    >>> torch.allclose(dipart(network, left, image, target_layer="1")(image), network(image[..., :8]))
    True

    Args:
        model: a Classifier, or any module that takes images.
        region: True for the pixels whose cells the head gets; a cell belongs to the pixel at its centre.
        image: any image of the size that is explained; the layer is found with it.
        target_layer: the feature layer, a module or its name; None for the layer that Grad-CAM explains. All paths through the
            model have to pass it.

    Returns:
        A Classifier for a Classifier, a module for a module.

    Raises:
        ValueError: for a region without pixels or of all pixels, a layer that does not exist or that other paths lead around,
            or a layer with no cell in the region.
    """
    _check_region(region)
    _check_size(image, region)
    with undisturbed(model):
        context = target_layers(model, target_layer, None, image[:1])
        graph = Graph(model, image[:1])
    (name, layer), *others = context.layers.items()
    if others:
        raise ValueError(f"target_layer has {1 + len(others)} layers; give one")
    if graph.edges.get((layer, context.parts[name])) not in graph.passed:
        raise ValueError(
            f"other paths lead around the layer {name!r}, so that cells outside the region matter; give a target_layer that "
            "all paths pass, such as the block around it"
        )
    rows, columns = (
        centres.round().long().clamp(0, side - 1).to(region.device)
        for centres, side in zip(context.centres[name], region.shape, strict=True)
    )
    inside = region[rows][:, columns]
    if not bool(inside.any()):
        raise ValueError(f"no cell of the layer {name!r} has its centre in the region; give a larger region")
    return _as_given(model, _HeadRegion(_inner(model), region.to(_device(model)), context, inside.to(_device(model))))


def weighted_regions(
    model: nn.Module, boxes: tuple[Box, Box], weights: tuple[float, float], *, filling: Filling = None
) -> nn.Module:
    """A model whose probabilities are the weighted mean of those that it gives for two boxes of the image, each alone.

    The content of each box is put at the place of the first, so that only the weights distinguish the boxes. Probabilities are
    combined, not logits, so that the score is exactly a sum. The model runs twice in a pass: methods that explain a layer
    refuse it.

    >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> model = weighted_regions(network, ((0, 0, 1, 1), (1, 0, 2, 1)), (3, 1))
    >>> model(torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]]]))  # the left pixel is red
    tensor([[0.4222, 0.2889, 0.2889]])

    Args:
        model: a Classifier, or a module that takes images of three channels and returns logits.
        boxes: two boxes of one size, (left, top, right, bottom) in pixels, which do not overlap.
        weights: of the boxes, above 0; they are divided by their sum.
        filling: what the rest of the image becomes, see :func:`difull`.

    Returns:
        A Classifier that returns probabilities.

    Raises:
        ValueError: for boxes that overlap or have different sizes, or weights that are not above 0.
    """
    (left, top, right, bottom), (left2, top2, right2, bottom2) = boxes
    if (right - left, bottom - top) != (right2 - left2, bottom2 - top2):
        raise ValueError(f"boxes are {boxes[0]} and {boxes[1]}; give two of one size")
    if max(left, left2) < min(right, right2) and max(top, top2) < min(bottom, bottom2):
        raise ValueError(f"boxes {boxes[0]} and {boxes[1]} overlap; give two apart")
    if not (len(weights) == 2 and min(weights) > 0):
        raise ValueError(f"weights are {weights}; give two above 0")
    shares = weights[0] / sum(weights), weights[1] / sum(weights)
    classifier = model if isinstance(model, Classifier) else Classifier(model)
    values = classifier.mean if filling is None else _as_tensor(filling).to(classifier.device)
    module = _WeightedRegions(classifier, boxes, shares, values)
    channels = len(classifier.mean)
    outer = Classifier(
        module,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        labels=classifier.labels,
        geometry=classifier.geometry,
        name=classifier.name,
        outputs="probabilities",
    ).to(classifier.device)
    outer.training = module.training = model.training
    return outer


def repeated_content(
    images: Float[Tensor, "n c h w"], boxes: Sequence[Box], *, filling: Filling = 0.5
) -> Float[Tensor, "n c h w"]:
    """The same image, resized, in every box; the input for :func:`weighted_regions`.

    >>> repeated_content(torch.ones(1, 1, 2, 4), [(0, 0, 1, 1), (2, 0, 3, 1)])[0, 0]
    tensor([[1.0000, 0.5000, 1.0000, 0.5000],
            [0.5000, 0.5000, 0.5000, 0.5000]])

    Args:
        images: what each box shows.
        boxes: (left, top, right, bottom) in pixels.
        filling: the pixels outside all boxes.

    Raises:
        ValueError: for a box that is empty or exceeds the image.
    """
    size = (images.shape[-2], images.shape[-1])
    composed = _filled(_as_tensor(filling), images).clone()
    for box in boxes:
        region_of(box, size)
        left, top, right, bottom = box
        shrunk = nn.functional.interpolate(images, (bottom - top, right - left), mode="bilinear", antialias=True)
        composed[..., top:bottom, left:right] = shrunk.clamp(images.min(), images.max())
    return composed


def leakage(heatmaps: Heatmaps, regions: Bool[Tensor, "n h w"] | Bool[Tensor, "h w"]) -> Float[Tensor, " n"]:
    """Share of the absolute importance in cells that do not reach the region, in [0, 1]; 0 is right.

    A map without any importance has leakage 0, with an `EmptyHeatmapWarning`.

    >>> leakage(torch.tensor([[[3.0, -1.0]]]), torch.tensor([[True, False]]))
    tensor([0.2500])

    Args:
        heatmaps: of a model of :func:`difull` or :func:`dipart`; an Explanation, or a tensor whose corners are those of the
            image.
        regions: what the model sees; one mask for all images, or one for each.

    Raises:
        ValueError: for regions of another number or size than the images, or maps that are not finite.
    """
    masks = regions.unsqueeze(0) if regions.ndim == 2 else regions
    overlap = overlap_with(heatmaps, masks)
    explanation = placed(heatmaps, (masks.shape[1], masks.shape[2]))
    rows, columns = (
        interpolation_matrix(centres, torch.arange(length, device=centres.device, dtype=centres.dtype))
        for centres, length in zip(explanation.centres, explanation.image_size, strict=True)
    )
    reaches = (rows.mT @ masks.to(rows) @ columns).expand(len(explanation), -1, -1).flatten(1) > 0
    importance = overlap.heat.abs() * overlap.area
    return _share(importance.masked_fill(reaches, 0).sum(dim=1), importance.sum(dim=1)).to(overlap.dtype)


def region_share(heatmaps: Heatmaps, boxes: tuple[Box, Box], image_size: tuple[int, int] | None = None) -> Float[Tensor, " n"]:
    """Share of the first box in the absolute importance of both; for :func:`weighted_regions` the truth is its weight.

    >>> region_share(torch.tensor([[[3.0, 0.0, 1.0]]]), ((0, 0, 1, 1), (2, 0, 3, 1)))
    tensor([0.7500])

    Args:
        heatmaps: an Explanation, or a tensor whose corners are those of the image.
        boxes: (left, top, right, bottom) in pixels.
        image_size: (height, width) of the images, for a tensor; None if each cell of the map is one pixel.

    Raises:
        ValueError: for a box that is empty or exceeds the image, or maps that are not finite.
    """
    explanation = placed(heatmaps, image_size)
    masks = (region_of(box, explanation.image_size).unsqueeze(0).to(explanation.heatmap.device) for box in boxes)
    parts = [overlap_with(explanation, mask) for mask in masks]
    first, second = ((part.heat.abs() * part.inside).sum(dim=1) for part in parts)
    return _share(first, first + second).to(parts[0].dtype)


def _share(part: Float[Tensor, " n"], whole: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    if bool((whole <= 0).any()):
        warn(f"{int((whole <= 0).sum())} of the heatmaps have no importance where it is measured", EmptyHeatmapWarning)
    return torch.where(whole > 0, part / whole, 0)


class _VisibleRegion(nn.Module):
    """The DiFull wrapper; its images are those of the inner module."""

    region: Tensor
    filling: Tensor

    def __init__(self, module: nn.Module, region: Bool[Tensor, "h w"], filling: Tensor) -> None:
        super().__init__()
        self.module, self.restricts = module, True
        self.register_buffer("region", region, persistent=False)
        self.register_buffer("filling", filling, persistent=False)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Any:
        if self.restricts:
            _check_size(images, self.region)
            images = torch.where(self.region, images, _filled(self.filling, images))
        return self.module(images)


class _HeadRegion(nn.Module):
    """The DiPart wrapper: a hook on the feature layer in each pass, called after those of a method that observes the layer."""

    region: Tensor
    inside: Tensor

    def __init__(
        self, module: nn.Module, region: Bool[Tensor, "h w"], context: LayerContext, inside: Bool[Tensor, "r c"]
    ) -> None:
        super().__init__()
        self.module, self.restricts, self.context = module, True, context
        self.register_buffer("region", region, persistent=False)
        self.register_buffer("inside", inside, persistent=False)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Any:
        if not self.restricts:
            return self.module(images)
        _check_size(images, self.region)
        (layer,) = self.context.layers.values()
        hook = layer.register_forward_hook(self._gate)
        try:
            return self.module(images)
        finally:
            hook.remove()

    def _gate(self, layer: nn.Module, given: Any, output: Any) -> Any:
        """Replace the cells outside by the mean of those inside; other tokens and tensors stay."""
        del layer, given
        leaves, structure = tree_flatten(output)
        ((name, part),) = self.context.parts.items()
        activation, reshape = leaves[part], self.context.reshape[name]
        cells = reshape(activation)
        mean = (cells * self.inside).sum(dim=(-2, -1), keepdim=True) / self.inside.sum()
        numbers = torch.arange(activation[0].numel(), device=activation.device, dtype=torch.float64)
        places = reshape(numbers.view(1, *activation.shape[1:])).flatten().long().expand(len(activation), -1)
        gated = torch.where(self.inside, cells, mean).flatten(1)
        leaves[part] = activation.flatten(1).scatter(1, places, gated).view(activation.shape)
        return tree_unflatten(leaves, structure)


class _WeightedRegions(nn.Module):
    """The weighted mean of the probabilities for two boxes."""

    filling: Tensor

    def __init__(self, module: Classifier, boxes: tuple[Box, Box], weights: tuple[float, float], filling: Tensor) -> None:
        super().__init__()
        self.module, self.boxes, self.weights = module, boxes, weights
        self.register_buffer("filling", filling, persistent=False)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        left, top, right, bottom = self.boxes[0]
        canvas = _filled(self.filling, images)
        parts = []
        for box, weight in zip(self.boxes, self.weights, strict=True):
            region_of(box, (images.shape[-2], images.shape[-1]))
            alone = canvas.clone()
            alone[..., top:bottom, left:right] = images[..., box[1] : box[3], box[0] : box[2]]
            parts.append(weight * probabilities_of(self.module(alone), self.module.outputs or "logits"))
        return parts[0] + parts[1]


def _as_given(model: nn.Module, module: nn.Module) -> nn.Module:
    """The wrapper of the inner module in a Classifier like the given one, or alone."""
    module.training = model.training  # train() would also change the modules of the model
    if not isinstance(model, Classifier):
        return module
    outer = Classifier(
        module,
        mean=model.mean.flatten().tolist(),
        std=model.std.flatten().tolist(),
        labels=model.labels,
        geometry=model.geometry,
        name=model.name,
        whole_output=model.whole_output,
        outputs=model.outputs,
    ).to(model.device)
    outer.training = model.training
    return outer


def _inner(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, Classifier) else model


def _device(model: nn.Module) -> torch.device:
    return next(chain(model.parameters(), model.buffers()), torch.empty(0)).device


def _check_region(region: Bool[Tensor, "h w"]) -> None:
    if region.ndim != 2 or region.dtype != torch.bool:
        raise ValueError(f"region has shape {tuple(region.shape)} and dtype {region.dtype}; give truth values (h, w)")
    if not bool(region.any()) or bool(region.all()):
        raise ValueError(f"region has {int(region.sum())} of {region.numel()} pixels; give a part of the image")


def _check_size(images: Float[Tensor, "n c h w"], region: Bool[Tensor, "h w"]) -> None:
    if images.shape[-2:] != region.shape:
        raise ValueError(f"images have {tuple(images.shape[-2:])} pixels, the region {tuple(region.shape)}; give equal sizes")


def _as_tensor(filling: Filling) -> Tensor:
    """The filling as a tensor that can be expanded to images."""
    values = torch.as_tensor(0.0 if filling is None else filling)
    if values.ndim not in (0, 1, 3):
        raise ValueError(f"filling has shape {tuple(values.shape)}; give a value, one for each channel, or an image (c, h, w)")
    return values.view(-1, 1, 1) if values.ndim == 1 else values


def _filled(filling: Tensor, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    try:
        return filling.to(images).expand_as(images)
    except RuntimeError as error:
        raise ValueError(
            f"filling has shape {tuple(filling.shape)} for images of shape {tuple(images.shape[1:])}; give one that fits"
        ) from error
