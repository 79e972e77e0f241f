"""The adversarial check (:mod:`faithmap.metrics.functional.adversarial`) as a torchmetrics class."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.baselines import Baseline
from faithmap.metrics.base import HeatmapMetric, MetricSettings
from faithmap.metrics.functional.adversarial import PAPER_RADIUS, AttackableExplainer, adversarial_check
from faithmap.metrics.functional.curves import Progress, Protocol, ProtocolName
from faithmap.score import Target


class AdversarialDifference(HeatmapMetric):
    r"""Fraction of an adversarial image that has to be inserted, minus that of the clean image, in [-1, 1].

    High if the class of the clean image depends on few of its cells, and the class of the adversarial image on no part of it.
    Images whose attack failed, and constant maps, have no value: ``per_image`` contains the others, and ``valid`` states which
    those are.

    >>> from faithmap import Gradient
    >>> from torch import nn
    >>> metric = AdversarialDifference(Gradient(nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))), radius=0.5)
    >>> metric.update(torch.rand(2, 3, 4, 4))
    >>> int(torch.cat(metric.valid).sum()) == len(metric.per_image())
    True

    Args:
        explainer: with a ``model``, which is attacked; neither is a submodule of the metric.
        radius: :math:`\epsilon` of the attack, the largest change of a pixel, in [0, 1] pixel units.
        steps: of the attack, at least 1.
        decay: of the attack's momentum, at least 0.
        step_size: of the attack, in [0, 1] pixel units; None for radius / steps.
        targeted: whether the attack moves towards the target instead of away from it.
        early_stop: leave an image unchanged after its prediction satisfies the goal.
        share: of the full image's score that the insertion has to reach, in (0, 1].
        protocol: of insertion.
        insertion_steps: parts into which the ranking is divided; None for the protocol's steps.
        baseline: of insertion; None for the protocol's baseline.
        seed: of the run; the random numbers of an image do not depend on the batches.
        chunk_size: maximum number of images per pass of attack and insertion.
        autocast: a lower precision for these passes; None for full precision.
        progress: called with (thousandths done, 1000) of each update.
        metric_settings: of torchmetrics, see :class:`~faithmap.metrics.base.MetricSettings`.

    Raises:
        TypeError: for an unknown setting.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0
    explainer: AttackableExplainer
    valid: list[Tensor]

    def __init__(
        self,
        explainer: AttackableExplainer,
        *,
        radius: float = PAPER_RADIUS,
        steps: int = 10,
        decay: float = 1.0,
        step_size: float | None = None,
        targeted: bool = False,
        early_stop: bool = False,
        share: float = 0.5,
        protocol: ProtocolName | Protocol = "igos",
        insertion_steps: int | None = None,
        baseline: Baseline | None = None,
        seed: int = 0,
        chunk_size: int = 32,
        autocast: torch.dtype | None = None,
        progress: Progress | None = None,
        **metric_settings: Unpack[MetricSettings],
    ) -> None:
        super().__init__(**metric_settings)
        self.__dict__["explainer"] = explainer  # nn.Module would register a module as a submodule
        self.seed = seed
        self._check = partial(
            adversarial_check,
            radius=radius,
            steps=steps,
            decay=decay,
            step_size=step_size,
            targeted=targeted,
            early_stop=early_stop,
            share=share,
            protocol=protocol,
            insertion_steps=insertion_steps,
            baseline=baseline,
            chunk_size=chunk_size,
            autocast=autocast,
            progress=progress,
        )
        self.add_state("valid", default=[], dist_reduce_fx="cat")

    def update(self, images: Float[Tensor, "n c h w"], target: Target = None) -> None:
        """Attack and explain more images.

        Args:
            images: in [0, 1].
            target: the class to move away from, None for the predicted class; if ``targeted``, the class to move towards.
        """
        generators = self._next_generators(self.seed, len(images), images.device)
        check = self._check(self.explainer, images, target, generator=generators)
        self.valid.append(check.valid)
        self.values.append(check.difference[check.valid])

    def _image_count(self) -> int:
        return self._images_before_forward + sum(map(len, self.valid))
