"""Model parameter randomisation, :mod:`faithmap.metrics.functional.randomisation`, as a torchmetrics class."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from faithmap.metrics.base import HeatmapMetric
from faithmap.metrics.functional.randomisation import ModelExplainer, randomisation
from faithmap.metrics.functional.reinitialise import Draw
from faithmap.score import Target
from faithmap.seeds import image_generators


class ModelRandomisation(HeatmapMetric):
    """Rank correlation, in [-1, 1], of each map with that of the model when its weights are random.

    Near 0 when the method depends on what the model has learned; 1 when it does not depend on it at all. It costs two
    explanations an image. A method of this library draws for each image what it draws for it in any batch.

    Args:
        explainer: any callable ``explainer(images, target)`` with a ``.model``. It is no part of the metric.
        layers: what becomes random, from the output down, in stages of which the last counts; None makes the whole model random
            at once.
        draw: as in :func:`faithmap.metrics.functional.randomisation`.
        absolute: likewise.
        seed: likewise.
        chunk_size: likewise.
        settings: torchmetrics' own.
    """

    higher_is_better: bool = False
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0

    def __init__(
        self,
        explainer: ModelExplainer,
        *,
        layers: Sequence[str | nn.Module] | None = None,
        draw: Draw = "initialiser",
        absolute: bool = False,
        seed: int = 0,
        chunk_size: int = 32,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.__dict__["explainer"] = explainer  # past nn.Module's bookkeeping, which would make a module a part
        self.__dict__["settings"] = {
            "layers": layers,
            "draw": draw,
            "absolute": absolute,
            "seed": seed,
            "chunk_size": chunk_size,
        }

    def update(self, images: Float[Tensor, "n c h w"], target: Target = None) -> None:
        """Explain some more images, with the trained and with the random model."""
        explainer, settings, generators = self.__dict__["explainer"], dict(self.__dict__["settings"]), None
        if "generator" in inspect.signature(explainer).parameters:
            seen = self._count()
            generators = image_generators(getattr(explainer, "seed", 0), range(seen, seen + len(images)), images.device)
        settings["layers"] = settings["layers"] or [explainer.model]
        checked = randomisation(explainer, images, target, generator=generators, **settings)
        self.values.append(checked.spearman[:, -1])
