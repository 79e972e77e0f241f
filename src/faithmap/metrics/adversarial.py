"""The adversarial check, :mod:`faithmap.metrics.functional.adversarial`, as a torchmetrics class."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from faithmap.metrics.base import OF_TORCHMETRICS, HeatmapMetric, keywords_of
from faithmap.metrics.functional.adversarial import Explains, adversarial_check
from faithmap.score import Target
from faithmap.seeds import image_generators

KNOWN = keywords_of(adversarial_check) - {"generator"}


class AdversarialDifference(HeatmapMetric):
    """The part of an adversarial image that has to be inserted, minus that of the clean one, in [-1, 1].

    High where the class that an image really shows rests on few of its cells, and the class that it was led to on no part.
    Images whose attack failed, and maps that rank nothing, have no value: ``per_image`` is of the others, and ``judged`` says
    which those are. Two explainers of one model share the attacks.

    Args:
        explainer: with the model that is attacked. Neither is a part of the metric.
        settings: those of :func:`faithmap.metrics.functional.adversarial_check`, by keyword; and torchmetrics' own.

    Raises:
        TypeError: for a setting that neither of the two has.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0
    judged: list[Tensor]

    def __init__(self, explainer: Explains, **settings: Any) -> None:
        unknown = settings.keys() - KNOWN - OF_TORCHMETRICS
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no setting {min(unknown)!r}; its settings are {', '.join(sorted(KNOWN))}"
            )
        super().__init__(**{name: value for name, value in settings.items() if name not in KNOWN})
        self.__dict__["explainer"] = explainer  # past nn.Module's bookkeeping, which would make it a part
        self.settings = {name: value for name, value in settings.items() if name in KNOWN}
        self.add_state("judged", default=[], dist_reduce_fx="cat")

    def update(self, images: Float[Tensor, "n c h w"], target: Target = None) -> None:
        """Attack and explain some more images; arguments as those of the function."""
        seen = self._count()
        generators = image_generators(self.settings.get("seed", 0), range(seen, seen + len(images)), images.device)
        check = adversarial_check(self.__dict__["explainer"], images, target, generator=generators, **self.settings)
        self.judged.append(check.judged)
        self.values.append(check.difference[check.judged])

    def _count(self) -> int:
        return self._before + sum(map(len, self.judged))
