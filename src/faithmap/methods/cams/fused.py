r"""Fused CAM: the maps of several resolutions, each cell weighted by its own gradient, averaged into one.

.. math:: L = relu\Bigl(\frac{1}{|S|} \sum_{l \in S} \frac{up(L_l)}{\max |L_l|}\Bigr), \qquad
          L_l = \sum_k g^k_l A^k_l, \quad g_l = \frac{\partial p}{\partial A_l}

with S the last layer and the last ones of the next finer resolutions, p the probability, and up the interpolation to the cells
of the finest. The frame is faithmap's own: the layers and the weights of each cell (those of HiResCAM, Draelos and Carin 2020)
make maps finer than the last layer's; the probability has a large gradient where the score changes. Any weighting and any
estimator of the gradient fits. ``benchmarks/tune_expected.py`` chose the frame, and docs/cams.md says what each part adds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Ge

from faithmap.capture import Placement
from faithmap.methods.cams.cam import CAM
from faithmap.methods.cams.estimators import Estimator, Expected
from faithmap.methods.cams.weightings import Weighting, WeightingName
from faithmap.score import ScoreKind


@dataclass(eq=False)
class FusedCAM(CAM):
    """Fused CAM with the plain gradient: one forward and one backward pass.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> FusedCAM(model, score="logit")(image).heatmap
    tensor([[[0.0000, 0.1000],
             [0.2000, 0.1000]]])
    """

    title: ClassVar[str] = "Fused CAM"
    score: ScoreKind = "probability"
    scales: Annotated[int, Ge(1)] = 3
    placement: Placement = "tiles"
    weighting: WeightingName | Weighting = "hires_cam"


@dataclass(eq=False)
class ExpectedFusedCAM(FusedCAM):
    """Fused CAM with gradients expected over paths from many references, those of `ExpectedGradCAM`.

    The expected gradient takes the place of g; it is not multiplied by differences from the references.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> ExpectedFusedCAM(model, score="logit")(image).heatmap
    tensor([[[0.0000, 0.1000],
             [0.2000, 0.1000]]])
    """

    title: ClassVar[str] = "Expected Fused CAM"
    gradient: Estimator = field(default_factory=Expected)
