"""The named methods: points of the grid of weightings and gradient estimators."""

from __future__ import annotations

from dataclasses import dataclass, field

from faithmap.methods.cams.base import CAM
from faithmap.methods.cams.estimators import Estimator, Expected, Integrated, Smooth
from faithmap.methods.cams.weightings import Weighting, WeightingName
from faithmap.methods.placement import Placement
from faithmap.score import ScoreKind


@dataclass(eq=False)
class GradCAM(CAM):
    """Grad-CAM (Selvaraju et al., ICCV 2017)."""


@dataclass(eq=False)
class GradCAMPlusPlus(CAM):
    """Grad-CAM++ (Chattopadhay et al., WACV 2018)."""

    weighting: WeightingName | Weighting = "grad_cam_plus_plus"


@dataclass(eq=False)
class XGradCAM(CAM):
    """XGrad-CAM (Fu et al., BMVC 2020)."""

    weighting: WeightingName | Weighting = "xgrad_cam"


@dataclass(eq=False)
class LayerCAM(CAM):
    """LayerCAM (Jiang et al., IEEE TIP 2021)."""

    weighting: WeightingName | Weighting = "layer_cam"


@dataclass(eq=False)
class HiResCAM(CAM):
    """HiResCAM (Draelos and Carin 2020)."""

    weighting: WeightingName | Weighting = "hires_cam"


@dataclass(eq=False)
class SmoothGradCAM(CAM):
    """Grad-CAM with the gradients of noisy copies averaged."""

    gradient: Estimator = field(default_factory=Smooth)


@dataclass(eq=False)
class SmoothGradCAMPlusPlus(CAM):
    """Smooth Grad-CAM++ (Omeiza et al. 2019)."""

    weighting: WeightingName | Weighting = "grad_cam_plus_plus"
    gradient: Estimator = field(default_factory=Smooth)


@dataclass(eq=False)
class IntegratedGradCAM(CAM):
    """Integrated Grad-CAM (Sattarzadeh et al., ICASSP 2021)."""

    gradient: Estimator = field(default_factory=Integrated)


@dataclass(eq=False)
class ExpectedGradCAM(CAM):
    """Expected Grad-CAM (Buono et al. 2024), in our reading: see :class:`Expected`.

    Its defaults were chosen on photographs by ``benchmarks/tune_expected.py``: the last layers of three resolutions rather than
    the last layer alone, where most networks' gradients are the same whatever the estimator; cell by cell; the probability,
    whose gradient is large where the path decides; and cells on equal parts of the image.
    """

    score: ScoreKind = "probability"
    scales: int = 3
    placement: Placement = "tiles"
    weighting: WeightingName | Weighting = "hires_cam"
    gradient: Estimator = field(default_factory=Expected)
