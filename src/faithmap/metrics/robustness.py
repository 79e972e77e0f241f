"""Infidelity and sensitivity, :mod:`faithmap.metrics.functional.infidelity` and ``sensitivity``, as torchmetrics classes."""

from __future__ import annotations

from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics.base import HeatmapMetric, ModelMetric, keywords_of
from faithmap.metrics.functional.infidelity import infidelity
from faithmap.metrics.functional.sensitivity import Explains, SensitivityResult, sensitivity
from faithmap.score import Target
from faithmap.seeds import image_generators


class Infidelity(ModelMetric):
    """Mean squared error of what the heatmap foretells; 0 is perfect. Settings as in the function, but for ``generator``."""

    known: ClassVar[frozenset[str]] = keywords_of(infidelity) - {"generator"}
    higher_is_better: bool = False
    plot_lower_bound: float = 0.0

    def measure(
        self, images: Float[Tensor, "n c h w"], heatmaps: Explanation | Float[Tensor, "n r c"], target: Target
    ) -> Float[Tensor, " n"]:
        """Each image's infidelity."""
        generator = self.generators(len(images), images.device)
        return infidelity(self.model, images, heatmaps, target, generator=generator, **self.settings).value


class _Sensitivity(HeatmapMetric):
    """Base of both sensitivities.

    Args:
        explainer: makes the maps that are compared. It is no part of the metric: ``to``, ``train`` and ``state_dict`` leave
            it alone.
        radius: of the ball that images are disturbed in, in pixel units.
        draws: disturbed versions of each image.
        limits: the range of images; None for other units than [0, 1].
        seed: of the run; an image's draws do not depend on how the images are batched.
        chunk_size: images in one call of the explainer at the most.
        settings: torchmetrics' own.
    """

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0
    explainer: Explains

    def __init__(
        self,
        explainer: Explains,
        *,
        radius: float = 0.02,
        draws: int = 10,
        limits: tuple[float, float] | None = (0.0, 1.0),
        seed: int = 0,
        chunk_size: int = 32,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.__dict__["explainer"] = explainer  # past nn.Module's bookkeeping, which would make it a part
        self.seed = seed
        self.settings: dict[str, Any] = {"radius": radius, "draws": draws, "limits": limits, "chunk_size": chunk_size}

    def measured(self, images: Float[Tensor, "n c h w"], target: Target) -> SensitivityResult:
        """Of the next images, counted from the first that this metric saw."""
        seen = self._count()
        generator = image_generators(self.seed, range(seen, seen + len(images)), images.device)
        return sensitivity(self.explainer, images, target, generator=generator, **self.settings)


class MaxSensitivity(_Sensitivity):
    """The largest relative change of the map under disturbances that nobody sees; 0 is a map that never moves."""

    def update(self, images: Float[Tensor, "n c h w"], target: Target = None) -> None:
        """Explain and disturb some more images; heatmaps are not asked for, since the metric makes its own."""
        self.values.append(self.measured(images, target).maximum)


class MeanSensitivity(_Sensitivity):
    """The mean relative change of the map under disturbances that nobody sees; 0 is a map that never moves."""

    def update(self, images: Float[Tensor, "n c h w"], target: Target = None) -> None:
        """Explain and disturb some more images; heatmaps are not asked for, since the metric makes its own."""
        self.values.append(self.measured(images, target).mean)
