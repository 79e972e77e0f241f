"""The public names, and the module of each: the package imports a name when it is first used."""

from ._version import (
    __version__ as __version__,
)
from .baselines import (
    BASELINES as BASELINES,
    Blur as Blur,
    Constant as Constant,
    Mean as Mean,
    MedianBlur as MedianBlur,
    Noise as Noise,
    Shuffled as Shuffled,
)
from .data import (
    ImageError as ImageError,
    image_files as image_files,
    read_image as read_image,
    sample_photo as sample_photo,
)
from .explanation import (
    Explanation as Explanation,
)
from .methods import (
    IGOS as IGOS,
    Explainer as Explainer,
    LineSearch as LineSearch,
    Mask as Mask,
)
from .methods.base import (
    Passes as Passes,
    RawHeatmap as RawHeatmap,
    Request as Request,
)
from .methods.cams import (
    CAM as CAM,
    AblationCAM as AblationCAM,
    Distribution as Distribution,
    EigenCAM as EigenCAM,
    Estimator as Estimator,
    EvenBlurs as EvenBlurs,
    Expected as Expected,
    ExpectedFusedCAM as ExpectedFusedCAM,
    ExpectedGradCAM as ExpectedGradCAM,
    FusedCAM as FusedCAM,
    GradCAM as GradCAM,
    GradCAMPlusPlus as GradCAMPlusPlus,
    HiResCAM as HiResCAM,
    ImageSet as ImageSet,
    Integrated as Integrated,
    IntegratedGradCAM as IntegratedGradCAM,
    LayerCAM as LayerCAM,
    LayerExplainer as LayerExplainer,
    Mixture as Mixture,
    Plain as Plain,
    RandomBlurs as RandomBlurs,
    RandomConstants as RandomConstants,
    RandomNoise as RandomNoise,
    ScoreCAM as ScoreCAM,
    Smooth as Smooth,
    SmoothGradCAM as SmoothGradCAM,
    SmoothGradCAMPlusPlus as SmoothGradCAMPlusPlus,
    TokenGrid as TokenGrid,
    XGradCAM as XGradCAM,
    channels_first as channels_first,
)
from .methods.captum_methods import (
    LIME as LIME,
    LRP as LRP,
    DeconvNet as DeconvNet,
    DeepLIFT as DeepLIFT,
    GradientSHAP as GradientSHAP,
    GuidedBackprop as GuidedBackprop,
    KernelSHAP as KernelSHAP,
)
from .methods.controls import (
    CentredGaussian as CentredGaussian,
    Edges as Edges,
    RandomMap as RandomMap,
)
from .methods.gradients import (
    ContrastiveExcitationBackprop as ContrastiveExcitationBackprop,
    ExcitationBackprop as ExcitationBackprop,
    ExpectedGradients as ExpectedGradients,
    Gradient as Gradient,
    GradientExplainer as GradientExplainer,
    GradientTimesInput as GradientTimesInput,
    ImageChunk as ImageChunk,
    IntegratedGradients as IntegratedGradients,
    SmoothGrad as SmoothGrad,
    VarGrad as VarGrad,
)
from .methods.masks import (
    RISE as RISE,
    ExtremalPerturbation as ExtremalPerturbation,
    FixedStep as FixedStep,
    IGOSPlus as IGOSPlus,
    IGOSPlusPlus as IGOSPlusPlus,
    LearnedMask as LearnedMask,
    Masker as Masker,
    MaskOptimiser as MaskOptimiser,
    Nesterov as Nesterov,
    Objective as Objective,
    Occlusion as Occlusion,
    Regulariser as Regulariser,
    StepResult as StepResult,
    StepRule as StepRule,
    Trace as Trace,
)
from .methods.masks.rank_descent import (
    RankDescent as RankDescent,
)
from .methods.sampling import (
    Samples as Samples,
)
from .metrics import (
    Curve as Curve,
    DeletionInsertion as DeletionInsertion,
    JuryResult as JuryResult,
    Protocol as Protocol,
    Verdict as Verdict,
    deletion_insertion as deletion_insertion,
    evidence as evidence,
)
from .model import (
    Classifier as Classifier,
    Geometry as Geometry,
)
from .score import (
    ImageTarget as ImageTarget,
)
from .seeds import (
    image_generators as image_generators,
)
from .targets import (
    BinaryTarget as BinaryTarget,
    DetectionTarget as DetectionTarget,
    MultiLabelTarget as MultiLabelTarget,
    RegressionTarget as RegressionTarget,
    SegmentationTarget as SegmentationTarget,
)
from .viz import (
    show as show,
)
from .warning_types import (
    BaselineWarning as BaselineWarning,
    CompletenessWarning as CompletenessWarning,
    EmptyHeatmapWarning as EmptyHeatmapWarning,
    FaithmapWarning as FaithmapWarning,
    LowConfidenceWarning as LowConfidenceWarning,
    OutputsWarning as OutputsWarning,
    TargetLayerWarning as TargetLayerWarning,
)
from .zoo import (
    ModelError as ModelError,
    load as load,
)
