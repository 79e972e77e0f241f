r"""Localisation: does the heatmap lie where the object of the explained class is?

With :math:`h` the heatmap on the photograph and :math:`B` the pixels of the class's boxes or masks:

:pointing game (Zhang et al. 2016): a hit if the highest pixel :math:`p = \arg\max h` is nearer than 15 pixels to the object,
    :math:`\min_{b \in B} \lVert p - b \rVert_2 < 15`, or on it. The accuracy is the mean over classes of
    hits / (hits + misses).
:energy-based pointing game (Wang et al. 2020, Score-CAM; also called relevance mass):
    :math:`\sum_{p \in B} h^+_p / \sum_p h^+_p`, with :math:`h^+ = \max(h, 0)`.
:relevance rank (Arras et al. 2022): the share of the :math:`|B|` highest pixels that lies in :math:`B`.

All three are measured on the original photograph, as it was annotated. Its pixels outside the model's window have no value:
they are never the highest, hold no energy, and in the relevance rank neither they nor the object's part there count.
Localisation is not faithfulness: a model may rest on what is around an object, and a true heatmap then misses.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.geometry import Geometry
from faithmap.metrics.functional.photographs import Objects, Photographs, Size, photographs
from faithmap.score import at_least_single
from faithmap.warning_types import EmptyHeatmapWarning

Label = TypeVar("Label", int, str)

ROUNDING = 1e-9
"""Pixels that differ by less than this part of the largest are equal: interpolation of equal cells rounds."""


def pointing_distance(
    heatmaps: Explanation | Float[Tensor, "n r c"],
    objects: Objects,
    *,
    photos: Sequence[Size] | None = None,
    geometry: Geometry | None = None,
) -> Float[Tensor, " n"]:
    """How far the heatmap's highest pixel is from the nearest pixel of the object, in pixels of the photograph; 0 inside.

    Of equal pixels the first in reading order is the highest. A constant map points nowhere: infinity, with an
    `EmptyHeatmapWarning`. Arguments and errors as for :func:`pointing_game`.
    """
    found = [(part.index, _distance(part)) for part in photographs(heatmaps, objects, photos, geometry)]
    distances = _in_order(found, heatmaps)
    _warn_of(int(distances.isinf().sum()), "constant: they point nowhere, and miss")
    return distances


def pointing_game(
    heatmaps: Explanation | Float[Tensor, "n r c"],
    objects: Objects,
    *,
    tolerance: float = 15.0,
    photos: Sequence[Size] | None = None,
    geometry: Geometry | None = None,
) -> Bool[Tensor, " n"]:
    """Whether each heatmap points at its object.

    Args:
        heatmaps: of what the model saw of the photographs. Where they come as a tensor, their corners are aligned with its.
        objects: of each image the explained class's boxes (k, 4) as (left, top, right, bottom) in pixels of the photograph,
            right and bottom excluded, or its masks (k, H, W), boolean. Without the k, there is one. A tensor of all images'
            will do: (n, 4), (n, k, 4), (n, H, W) or (n, k, H, W).
        tolerance: in pixels of the photograph; a hit is nearer than that, or inside. 0 asks for inside, as I-GOS (2020) does.
        photos: (height, width) of each original photograph. Not needed for masks, which are of that size, nor where the
            photograph itself was explained.
        geometry: ``model.geometry``, where the model saw a resized and cropped photograph. None takes the heatmap for one of
            all of the photograph.

    Raises:
        ValueError: for what does not fit together, is not finite or empty, or a negative tolerance.

    >>> heatmap = torch.zeros(1, 40, 40)
    >>> heatmap[0, 5, 5] = 1.0
    >>> box = torch.tensor([[20, 0, 30, 10]])
    >>> pointing_game(heatmap, box, tolerance=15), pointing_game(heatmap, box, tolerance=15.5)
    (tensor([False]), tensor([True]))
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance}; give 0 pixels or more")
    distances = pointing_distance(heatmaps, objects, photos=photos, geometry=geometry)
    return (distances < tolerance) | (distances == 0)


def pointing_accuracy(hits: Bool[Tensor, " n"] | Float[Tensor, " n"], classes: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean over classes of hits / (hits + misses): every class counts alike, however many images it has.

    >>> pointing_accuracy(torch.tensor([True, True, True, False]), torch.tensor([7, 7, 7, 2]))
    tensor(0.5000)
    """
    if hits.shape != classes.shape or hits.ndim != 1 or len(hits) == 0:
        raise ValueError(f"{tuple(hits.shape)} hits for {tuple(classes.shape)} classes; give one class a hit, and at least one")
    _, members, counts = classes.unique(return_inverse=True, return_counts=True)
    values = at_least_single(hits)
    return torch.zeros_like(counts, dtype=values.dtype).index_add(0, members, values).div(counts).mean()


def energy_pointing_game(
    heatmaps: Explanation | Float[Tensor, "n r c"],
    objects: Objects,
    *,
    photos: Sequence[Size] | None = None,
    geometry: Geometry | None = None,
) -> Float[Tensor, " n"]:
    """Positive mass on the object / positive mass, in [0, 1]; arguments and errors as for :func:`pointing_game`.

    A constant map scores the object's share of what the model saw. A map without positive mass puts none on the object: 0,
    with an `EmptyHeatmapWarning`.

    >>> energy_pointing_game(torch.ones(1, 10, 10), torch.tensor([[0, 0, 5, 5]]))
    tensor([0.2500])
    """
    found, empty = [], torch.zeros((), dtype=torch.long)
    for part in photographs(heatmaps, objects, photos, geometry):
        mass = part.heat.clamp(min=0)
        whole = mass.sum(dim=(1, 2))
        inside = (mass * part.inside).sum(dim=(1, 2))
        found.append((part.index, torch.where(whole > 0, inside / whole, 0)))
        empty = empty.to(whole.device) + (whole <= 0).sum()
    _warn_of(int(empty), "without positive values: they score 0")
    return _in_order(found, heatmaps)


def relevance_rank(
    heatmaps: Explanation | Float[Tensor, "n r c"],
    objects: Objects,
    *,
    photos: Sequence[Size] | None = None,
    geometry: Geometry | None = None,
) -> Float[Tensor, " n"]:
    """Share of the top pixels, as many as the object has, that lie in it; in [0, 1], arguments as for :func:`pointing_game`.

    Where equal pixels stand on both sides of the cut, the value is the mean over all their orders. A constant map therefore
    scores the object's share of what the model saw, which is chance. Negative values are ranked like others. 0 where the
    model saw nothing of the object.

    >>> relevance_rank(torch.tensor([[[4.0, 3.0], [2.0, 1.0]]]), torch.tensor([[0, 0, 1, 2]]))
    tensor([0.5000])
    """
    return _in_order([(part.index, _rank(part)) for part in photographs(heatmaps, objects, photos, geometry)], heatmaps)


def difficult_subset(boxes: Float[Tensor, "k 4"], labels: Sequence[Label], size: Size) -> dict[Label, bool]:
    """For each class in an image, whether image and class belong to the difficult subset (Zhang et al. 2016).

    They do if the boxes of the class have less than a quarter of the image's area together, and another class distracts.
    Areas are added up; what two boxes share counts twice.

    Args:
        boxes: of all objects in the image, as (left, top, right, bottom).
        labels: the class of each.
        size: (height, width) of the image.

    >>> difficult_subset(torch.tensor([[0, 0, 20, 20], [0, 0, 60, 60]]), ["dog", "cat"], (100, 100))
    {'dog': True, 'cat': False}
    """
    if boxes.ndim != 2 or boxes.shape != (len(labels), 4):
        raise ValueError(f"boxes have shape {tuple(boxes.shape)} for {len(labels)} labels; give (k, 4), one label a box")
    sides = (boxes[:, 2:] - boxes[:, :2]).double()
    areas = dict.fromkeys(labels, 0.0)
    for label, area in zip(labels, sides.prod(dim=1).tolist(), strict=True):
        areas[label] += area
    return {label: len(areas) > 1 and area < size[0] * size[1] / 4 for label, area in areas.items()}


def _distance(part: Photographs) -> Float[Tensor, " m"]:
    """From the first of the highest pixels; infinite for a constant map."""
    flat = part.heat.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    rounding = ROUNDING * torch.maximum(low.abs(), high.abs())
    places = torch.arange(flat.shape[1], device=flat.device)
    highest = torch.where(flat >= high - rounding, places, flat.shape[1]).amin(dim=1).view(-1, 1)
    width = part.heat.shape[-1]
    row, column = highest // width + part.corner[0], highest % width + part.corner[1]
    down = (torch.arange(part.objects.shape[-2], device=flat.device) - row).square().unsqueeze(-1)
    across = (torch.arange(part.objects.shape[-1], device=flat.device) - column).square().unsqueeze(-2)
    squares = torch.where(part.objects, down + across, torch.iinfo(torch.long).max).flatten(1).amin(dim=1)
    return squares.double().sqrt().masked_fill((high - low <= rounding).squeeze(1), torch.inf)


def _rank(part: Photographs) -> Float[Tensor, " m"]:
    flat, inside = part.heat.flatten(1), part.inside.flatten(1)
    count = inside.sum(dim=1, keepdim=True)  # of the object's pixels, and so of the top ones
    cut = flat.sort(dim=1, descending=True).values.gather(1, (count - 1).clamp(min=0))
    rounding = ROUNDING * flat.abs().amax(dim=1, keepdim=True)
    above, level = flat > cut + rounding, (flat - cut).abs() <= rounding
    taken = (count - above.sum(dim=1, keepdim=True)).double() / level.sum(dim=1, keepdim=True)
    shared = (inside & above).sum(dim=1, keepdim=True) + taken * (inside & level).sum(dim=1, keepdim=True)
    return torch.where(count > 0, shared / count, 0).squeeze(1)


def _in_order(
    found: Sequence[tuple[Int[Tensor, " m"], Float[Tensor, " m"]]], heatmaps: Explanation | Float[Tensor, "n r c"]
) -> Float[Tensor, " n"]:
    """The values of all groups, in the order of the images, as precise as the heatmaps or in single precision."""
    maps = heatmaps.heatmap if isinstance(heatmaps, Explanation) else heatmaps
    index, values = (torch.cat(parts) for parts in zip(*found, strict=True))
    ordered = torch.empty_like(values).scatter_(0, index, values)
    return ordered if maps.dtype == torch.float64 else ordered.float()


def _warn_of(count: int, what: str) -> None:
    if count:
        warnings.warn(f"{count} of the heatmaps are {what}", EmptyHeatmapWarning, stacklevel=3)
