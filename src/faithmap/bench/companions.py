"""Other images of the data set, which the measures with a known truth need beside the explained one.

They are chosen when a run is planned, spread evenly over the data set, so that a unit's result depends only on its plan. A
worker reads and classifies them once for each model. An image that cannot be read is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.bench.dataset import DatasetItem, DatasetSource, load_image
from faithmap.methods.base import Explainer
from faithmap.metrics.functional import GridPointing, ShortcutScore, grid_pointing_game, shortcut_score
from faithmap.metrics.known_truth import PlantedShortcut, place_mark, plant, plant_shortcut
from faithmap.metrics.known_truth.grid_pointing import compose_grid
from faithmap.metrics.known_truth.marks import MarkKind
from faithmap.model import Classifier
from faithmap.probe import class_probabilities
from faithmap.warning_types import suppressed

COMPANIONS = 60
"""Images at most."""


class Companion(NamedTuple):
    """An image of the data set.

    Attributes:
        image: the model's input.
        sha256: of the file.
        predicted: class of the model.
        probability: of this class.
    """

    image: Float[Tensor, "1 3 h w"]
    sha256: str
    predicted: int
    probability: float


def companion_items(items: Sequence[DatasetItem]) -> tuple[DatasetItem, ...]:
    """The items of the companions: all of a small data set, else some of each part of it.

    >>> [item.number for item in companion_items([DatasetItem(n, "", 0) for n in range(120)])][:3]
    [0, 2, 4]
    """
    count = min(COMPANIONS, len(items))
    return tuple(items[i * len(items) // count] for i in range(count))


@dataclass(frozen=True, eq=False)
class Companions:
    """Companions for one model, the most confident first, and the heads that were trained on them."""

    images: Sequence[Companion] = ()
    heads: dict[tuple[str, float], PlantedShortcut | None] = field(default_factory=dict)

    @classmethod
    def read(cls, items: Sequence[DatasetItem], source: DatasetSource, model: Classifier) -> Companions:
        """Read and classify the images; those that fail are left out."""
        found = []
        for item in items:
            loaded = load_image(item, source, model, boxes=False)
            if loaded.image is None or loaded.sha256 is None:
                continue
            try:
                with suppressed():  # the rows of the explanations have the warnings
                    probability, predicted = class_probabilities(model, loaded.image)[0].max(dim=0)
            except (ValueError, TypeError, RuntimeError):  # the row of this image has the error
                continue
            found.append(Companion(loaded.image, loaded.sha256, int(predicted), float(probability)))
        return cls(sorted(found, key=lambda companion: (-companion.probability, companion.sha256)))

    def beside(self, sha256: str | None, target: int, least_probability: float, count: int) -> list[Companion]:
        """The most confident companions of other classes than the target, each of another; none if there are too few."""
        chosen: dict[int, Companion] = {}
        for companion in self.images:
            fits = companion.probability >= least_probability and companion.sha256 != sha256
            if fits and companion.predicted != target and len(chosen) < count:
                chosen.setdefault(companion.predicted, companion)
        return list(chosen.values()) if len(chosen) == count else []

    def head(self, model: Classifier, mark: MarkKind, size: float, shape: torch.Size) -> PlantedShortcut | None:
        """The head that decides by a mark; None if it did not learn to, or there are too few companions of this shape."""
        if (mark, size) not in self.heads:
            images = [companion.image for companion in self.images if companion.image.shape[1:] == shape[1:]]
            try:
                planted = plant_shortcut(torch.cat(images), model, mark=mark, size=size) if len(images) >= 12 else None
            except ValueError:
                planted = None
            self.heads[mark, size] = planted
        return self.heads[mark, size]


def grid_pointing(
    explainer: Explainer,
    mosaics: Sequence[tuple[Float[Tensor, "1 c h w"], Sequence[Companion]]],
    places: Sequence[int],
    targets: Sequence[int],
    generators: Sequence[torch.Generator],
) -> GridPointing:
    """The grid pointing game of images, each in a mosaic with its three companions."""
    composed = []
    for (image, companions), place in zip(mosaics, places, strict=True):
        cells = [companion.image for companion in companions]
        cells.insert(place, image)
        composed.append(compose_grid(cells, (image.shape[-2], image.shape[-1])))
    with suppressed():
        explanation = explainer(torch.cat(composed), list(targets), generator=list(generators))
    return grid_pointing_game(explanation, list(places))


def mark_shown(
    explainer: Explainer,
    shortcut: PlantedShortcut,
    images: Float[Tensor, "n 3 h w"],
    mark: MarkKind,
    size: float,
    generators: Sequence[torch.Generator],
) -> tuple[ShortcutScore, list[bool]]:
    """The scores of images with a planted mark, and whether the head recognises the mark in each."""
    image_size = (images.shape[-2], images.shape[-1])
    width = size / 2 if mark == "ruler" else size
    drawn = [torch.rand(2, generator=generator, device=generator.device).tolist() for generator in generators]
    marked, masks = plant(images, mark, [place_mark(mark, width, image_size, *place) for place in drawn])
    with suppressed():
        recognised = class_probabilities(shortcut.model, marked).argmax(dim=1) == 1
        explanation = replace(explainer, model=shortcut.model)(marked, 1, generator=list(generators))
    return shortcut_score(explanation, masks), recognised.tolist()
