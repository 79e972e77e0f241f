"""Deletion and insertion, :mod:`faithmap.metrics.functional.deletion_insertion`, as torchmetrics classes."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics.base import ModelMetric, keywords_of
from faithmap.metrics.functional.deletion_insertion import deletion, deletion_insertion, insertion, most_least
from faithmap.score import Target

Maps = Explanation | Float[Tensor, "n r c"]


class _Game(ModelMetric):
    """Base of the games: settings as in :func:`faithmap.metrics.functional.deletion_insertion`."""

    known: ClassVar[frozenset[str]] = keywords_of(deletion_insertion)
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0


class Deletion(_Game):
    """Area under the deletion curve, in [0, 1]; low when the first cells are those that the score rests on."""

    higher_is_better: bool = False

    def measure(self, images: Float[Tensor, "n c h w"], heatmaps: Maps, target: Target) -> Float[Tensor, " n"]:
        """Each image's area."""
        return deletion(self.model, images, heatmaps, target, **self.settings).area


class Insertion(_Game):
    """Area under the insertion curve, in [0, 1]; high when the first cells alone bring the score back."""

    higher_is_better: bool = True

    def measure(self, images: Float[Tensor, "n c h w"], heatmaps: Maps, target: Target) -> Float[Tensor, " n"]:
        """Each image's area."""
        return insertion(self.model, images, heatmaps, target, **self.settings).area


class InsertionMinusDeletion(_Game):
    """The difference of both areas, in [-1, 1]: one number in which neither game can be won alone."""

    higher_is_better: bool = True
    plot_lower_bound: float = -1.0

    def measure(self, images: Float[Tensor, "n c h w"], heatmaps: Maps, target: Target) -> Float[Tensor, " n"]:
        """Each image's difference."""
        return deletion_insertion(self.model, images, heatmaps, target, **self.settings).difference


class MoRFMinusLeRF(_Game):
    """The area between deletion with the least and with the most relevant cells first, in [-1, 1]; 0 by chance."""

    higher_is_better: bool = True
    plot_lower_bound: float = -1.0

    def measure(self, images: Float[Tensor, "n c h w"], heatmaps: Maps, target: Target) -> Float[Tensor, " n"]:
        """Each image's area between the curves."""
        return most_least(self.model, images, heatmaps, target, **self.settings).difference
