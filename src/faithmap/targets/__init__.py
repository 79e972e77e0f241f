"""Targets for models other than single-label classifiers: each defines the score, one number per image.

A setting is one value for all images, or one per image. ``predicted`` computes settings from the model's output for the clean
images, such as the predicted region; they stay the same when parts of the image are removed. A target is passed in place of a
class: ``RISE(model)(images, target)``.
"""

from faithmap.score import ImageTarget
from faithmap.targets.detection import DetectionTarget
from faithmap.targets.numbers import BinaryTarget, MultiLabelTarget, RegressionTarget
from faithmap.targets.segmentation import SegmentationTarget

__all__ = ["BinaryTarget", "DetectionTarget", "ImageTarget", "MultiLabelTarget", "RegressionTarget", "SegmentationTarget"]
