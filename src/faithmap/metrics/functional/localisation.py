r"""Localisation: does the heatmap lie on the object of the explained class?

With :math:`h` the heatmap on the original image and :math:`B` the pixels of the class's boxes or masks:

:pointing game (Zhang et al. 2016): a hit if the highest pixel :math:`p = \arg\max h` is less than 15 pixels from the object,
    :math:`\min_{b \in B} \lVert p - b \rVert_2 < 15`, or on it. The accuracy is the mean over classes of
    hits / (hits + misses).
:energy-based pointing game (Wang et al. 2020, Score-CAM; also called relevance mass):
    :math:`\sum_{p \in B} h^+_p / \sum_p h^+_p`, with :math:`h^+ = \max(h, 0)`.
:relevance rank (Arras et al. 2022): the share of the :math:`|B|` highest pixels that lies in :math:`B`.

All three are measured on the original image, which is the annotated one (:mod:`faithmap.metrics.functional.annotated_regions`).
Its pixels outside the model's window have no value: they are never the highest, have no energy, and in the relevance rank
neither they nor the object's pixels among them count. Localisation is not faithfulness: if a model uses the surroundings of an
object, a faithful heatmap does not lie on the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics.functional.annotated_regions import AnnotatedRegions, Objects, Size, annotated_regions
from faithmap.model import Geometry
from faithmap.score import at_least_single
from faithmap.warning_types import EmptyHeatmapWarning, renamed_parameters, warn

Label = TypeVar("Label", int, str)

ROUNDING = 1e-9
"""Pixels whose relative difference is smaller than this are equal: interpolation of equal cells has rounding errors."""


@renamed_parameters(photos="image_sizes")
def pointing_distance(
    heatmaps: Explanation | Float[Tensor, "n r c"],
    objects: Objects,
    *,
    image_sizes: Sequence[Size] | None = None,
    geometry: Geometry | None = None,
) -> Float[Tensor, " n"]:
    """Distance of the heatmap's highest pixel to the nearest pixel of the object, in pixels of the original image; 0 inside.

    Of equal pixels the first in reading order is the highest. For a constant map the distance is infinite, with an
    `EmptyHeatmapWarning`.

    >>> heatmap = torch.zeros(1, 40, 40)
    >>> heatmap[0, 5, 5] = 1.0
    >>> pointing_distance(heatmap, torch.tensor([[20, 0, 30, 10]]))
    tensor([15.])

    Args:
        heatmaps: of the model's inputs. The corners of a tensor are aligned with the corners of the input.
        objects: the boxes of each image's explained class, (k, 4) as (left, top, right, bottom) in pixels of the original
            image, right and bottom excluded, or its masks (k, H, W), boolean; k may be left out if there is one. A tensor for
            all images is accepted, too: (n, 4), (n, k, 4), (n, H, W) or (n, k, H, W).
        image_sizes: (height, width) of each original image. Not needed for masks, which have that size, nor if the original
            image itself was explained.
        geometry: ``model.geometry`` if the model's inputs were resized and cropped from the original images; None if the
            heatmap covers the whole original image.

    Raises:
        ValueError: for inputs that do not fit each other, are not finite or are empty.
    """
    regions = annotated_regions(heatmaps, objects, image_sizes, geometry)
    distances = _in_image_order([(group.index, _distances(group)) for group in regions], heatmaps)
    _warn_if_any(int(distances.isinf().sum()), "constant: they have no highest pixel, and count as misses")
    return distances


@renamed_parameters(photos="image_sizes")
def pointing_game(
    heatmaps: Explanation | Float[Tensor, "n r c"],
    objects: Objects,
    *,
    tolerance: float = 15.0,
    image_sizes: Sequence[Size] | None = None,
    geometry: Geometry | None = None,
) -> Bool[Tensor, " n"]:
    """Whether each heatmap points at its object.

    >>> heatmap = torch.zeros(1, 40, 40)
    >>> heatmap[0, 5, 5] = 1.0
    >>> box = torch.tensor([[20, 0, 30, 10]])
    >>> pointing_game(heatmap, box, tolerance=15), pointing_game(heatmap, box, tolerance=15.5)
    (tensor([False]), tensor([True]))

    Args:
        heatmaps: of the model's inputs. The corners of a tensor are aligned with the corners of the input.
        objects: the boxes of each image's explained class, (k, 4) as (left, top, right, bottom) in pixels of the original
            image, right and bottom excluded, or its masks (k, H, W), boolean; k may be left out if there is one. A tensor for
            all images is accepted, too: (n, 4), (n, k, 4), (n, H, W) or (n, k, H, W).
        tolerance: in pixels of the original image, at least 0; a hit is nearer than that, or inside. 0 counts only hits inside,
            as I-GOS (2020) does.
        image_sizes: (height, width) of each original image. Not needed for masks, which have that size, nor if the original
            image itself was explained.
        geometry: ``model.geometry`` if the model's inputs were resized and cropped from the original images; None if the
            heatmap covers the whole original image.

    Raises:
        ValueError: for inputs that do not fit each other, are not finite or are empty, or a negative tolerance.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance}; give 0 pixels or more")
    distances = pointing_distance(heatmaps, objects, image_sizes=image_sizes, geometry=geometry)
    return (distances < tolerance) | (distances == 0)


def pointing_accuracy(hits: Bool[Tensor, " n"] | Float[Tensor, " n"], classes: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean over classes of hits / (hits + misses): every class has the same weight, whatever its number of images.

    Args:
        hits: of each image, as :func:`pointing_game` returns them.
        classes: class of each image.

    >>> pointing_accuracy(torch.tensor([True, True, True, False]), torch.tensor([7, 7, 7, 2]))
    tensor(0.5000)

    Raises:
        ValueError: for no hits, or another number of classes than hits.
    """
    if hits.shape != classes.shape or hits.ndim != 1 or len(hits) == 0:
        raise ValueError(
            f"{tuple(hits.shape)} hits for {tuple(classes.shape)} classes; give one class per hit, and at least one"
        )
    _, members, counts = classes.unique(return_inverse=True, return_counts=True)
    values = at_least_single(hits)
    return torch.zeros_like(counts, dtype=values.dtype).index_add(0, members, values).div(counts).mean()


@renamed_parameters(photos="image_sizes")
def energy_pointing_game(
    heatmaps: Explanation | Float[Tensor, "n r c"],
    objects: Objects,
    *,
    image_sizes: Sequence[Size] | None = None,
    geometry: Geometry | None = None,
) -> Float[Tensor, " n"]:
    """Share of the heatmap's positive mass that lies on the object, in [0, 1].

    A constant map scores the object's share of the model's window. A map without positive values scores 0, with an
    `EmptyHeatmapWarning`.

    >>> energy_pointing_game(torch.ones(1, 10, 10), torch.tensor([[0, 0, 5, 5]]))
    tensor([0.2500])

    Args:
        heatmaps: of the model's inputs. The corners of a tensor are aligned with the corners of the input.
        objects: the boxes of each image's explained class, (k, 4) as (left, top, right, bottom) in pixels of the original
            image, right and bottom excluded, or its masks (k, H, W), boolean; k may be left out if there is one. A tensor for
            all images is accepted, too: (n, 4), (n, k, 4), (n, H, W) or (n, k, H, W).
        image_sizes: (height, width) of each original image. Not needed for masks, which have that size, nor if the original
            image itself was explained.
        geometry: ``model.geometry`` if the model's inputs were resized and cropped from the original images; None if the
            heatmap covers the whole original image.

    Raises:
        ValueError: for inputs that do not fit each other, are not finite or are empty.
    """
    shares, empty = [], torch.zeros((), dtype=torch.long)
    for group in annotated_regions(heatmaps, objects, image_sizes, geometry):
        mass = group.heat.clamp(min=0)
        whole = mass.sum(dim=(1, 2))
        inside = (mass * group.inside).sum(dim=(1, 2))
        shares.append((group.index, torch.where(whole > 0, inside / whole, 0)))
        empty = empty.to(whole.device) + (whole <= 0).sum()
    _warn_if_any(int(empty), "without positive values: they score 0")
    return _in_image_order(shares, heatmaps)


@renamed_parameters(photos="image_sizes")
def relevance_rank(
    heatmaps: Explanation | Float[Tensor, "n r c"],
    objects: Objects,
    *,
    image_sizes: Sequence[Size] | None = None,
    geometry: Geometry | None = None,
) -> Float[Tensor, " n"]:
    """Share of the highest pixels, as many as the object has, that lie in the object; in [0, 1].

    If equal pixels lie on both sides of the threshold, the value is the mean over all their orders. A constant map therefore
    scores the object's share of the model's window, the expectation for a random map. Negative values are ranked like others.
    The value is 0 if no pixel of the object lies in the window.

    >>> relevance_rank(torch.tensor([[[4.0, 3.0], [2.0, 1.0]]]), torch.tensor([[0, 0, 1, 2]]))
    tensor([0.5000])

    Args:
        heatmaps: of the model's inputs. The corners of a tensor are aligned with the corners of the input.
        objects: the boxes of each image's explained class, (k, 4) as (left, top, right, bottom) in pixels of the original
            image, right and bottom excluded, or its masks (k, H, W), boolean; k may be left out if there is one. A tensor for
            all images is accepted, too: (n, 4), (n, k, 4), (n, H, W) or (n, k, H, W).
        image_sizes: (height, width) of each original image. Not needed for masks, which have that size, nor if the original
            image itself was explained.
        geometry: ``model.geometry`` if the model's inputs were resized and cropped from the original images; None if the
            heatmap covers the whole original image.

    Raises:
        ValueError: for inputs that do not fit each other, are not finite or are empty.
    """
    regions = annotated_regions(heatmaps, objects, image_sizes, geometry)
    return _in_image_order([(group.index, _top_shares(group)) for group in regions], heatmaps)


def difficult_subset(boxes: Float[Tensor, "k 4"], labels: Sequence[Label], size: Size) -> dict[Label, bool]:
    """For each class in an image, whether image and class belong to the difficult subset (Zhang et al. 2016).

    They do if the areas of the class's boxes add up to less than a quarter of the image, and the image has another class. The
    intersection of two boxes counts twice.

    Args:
        boxes: of all objects in the image, as (left, top, right, bottom).
        labels: the class of each.
        size: (height, width) of the image.

    >>> difficult_subset(torch.tensor([[0, 0, 20, 20], [0, 0, 60, 60]]), ["dog", "cat"], (100, 100))
    {'dog': True, 'cat': False}

    Raises:
        ValueError: for another number of labels than boxes.
    """
    if boxes.ndim != 2 or boxes.shape != (len(labels), 4):
        raise ValueError(f"boxes have shape {tuple(boxes.shape)} for {len(labels)} labels; give (k, 4), one label per box")
    sides = (boxes[:, 2:] - boxes[:, :2]).double()
    areas = dict.fromkeys(labels, 0.0)
    for label, area in zip(labels, sides.prod(dim=1).tolist(), strict=True):
        areas[label] += area
    return {label: len(areas) > 1 and area < size[0] * size[1] / 4 for label, area in areas.items()}


def _distances(group: AnnotatedRegions) -> Float[Tensor, " m"]:
    """Distance of the first of the highest pixels to the object; infinite for a constant map."""
    flat = group.heat.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    rounding = ROUNDING * torch.maximum(low.abs(), high.abs())
    places = torch.arange(flat.shape[1], device=flat.device)
    highest = torch.where(flat >= high - rounding, places, flat.shape[1]).amin(dim=1).view(-1, 1)
    width = group.heat.shape[-1]
    row, column = highest // width + group.corner[0], highest % width + group.corner[1]
    down = (torch.arange(group.objects.shape[-2], device=flat.device) - row).square().unsqueeze(-1)
    across = (torch.arange(group.objects.shape[-1], device=flat.device) - column).square().unsqueeze(-2)
    squares = torch.where(group.objects, down + across, torch.iinfo(torch.long).max).flatten(1).amin(dim=1)
    return squares.double().sqrt().masked_fill((high - low <= rounding).squeeze(1), torch.inf)


def _top_shares(group: AnnotatedRegions) -> Float[Tensor, " m"]:
    flat, inside = group.heat.flatten(1), group.inside.flatten(1)
    count = inside.sum(dim=1, keepdim=True)  # pixels of the object, and number of top pixels
    threshold = flat.sort(dim=1, descending=True).values.gather(1, (count - 1).clamp(min=0))
    rounding = ROUNDING * flat.abs().amax(dim=1, keepdim=True)
    above, equal = flat > threshold + rounding, (flat - threshold).abs() <= rounding
    share = (count - above.sum(dim=1, keepdim=True)).double() / equal.sum(dim=1, keepdim=True)
    shared = (inside & above).sum(dim=1, keepdim=True) + share * (inside & equal).sum(dim=1, keepdim=True)
    return torch.where(count > 0, shared / count, 0).squeeze(1)


def _in_image_order(
    groups: Sequence[tuple[Int[Tensor, " m"], Float[Tensor, " m"]]], heatmaps: Explanation | Float[Tensor, "n r c"]
) -> Float[Tensor, " n"]:
    """The values of all groups, in the order of the images; in double precision only if the heatmaps are."""
    maps = heatmaps.heatmap if isinstance(heatmaps, Explanation) else heatmaps
    index, values = (torch.cat(parts) for parts in zip(*groups, strict=True))
    ordered = torch.empty_like(values).scatter_(0, index, values)
    return ordered if maps.dtype == torch.float64 else ordered.float()


def _warn_if_any(count: int, description: str) -> None:
    if count:
        warn(f"{count} of the heatmaps are {description}", EmptyHeatmapWarning)
