"""ROAD, :mod:`faithmap.metrics.functional.road`, as a torchmetrics class."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics.base import ModelMetric, keywords_of
from faithmap.metrics.functional.road import road
from faithmap.score import Target


class ROAD(ModelMetric):
    """LeRF minus MoRF under imputation, in [-1, 1]; 0 by chance. Settings as in :func:`faithmap.metrics.functional.road`.

    The noise of an image depends on the seed and on how many images came before it, not on how they were batched.
    """

    known: ClassVar[frozenset[str]] = keywords_of(road) - {"generator"}
    higher_is_better: bool = True
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0

    def measure(
        self, images: Float[Tensor, "n c h w"], heatmaps: Explanation | Float[Tensor, "n r c"], target: Target
    ) -> Float[Tensor, " n"]:
        """Each image's difference."""
        generators = self.generators(len(images), images.device)
        return road(self.model, images, heatmaps, target, generator=generators, **self.settings).difference
