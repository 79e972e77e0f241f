"""Targets beyond the classes of a single-label classifier: what is explained of other models, one number an image.

Settings are given once for all images, or one for each. What depends on the model's answer to the clean image, such as the
region that it predicts, is asked for once, by ``predicted``, and stays what it was while parts of the image are taken away. A
target stands where a class would: ``RISE(model)(images, target)``.
"""

from faithmap.score import ImageTarget
from faithmap.targets.detection import DetectionTarget
from faithmap.targets.numbers import BinaryTarget, MultiLabelTarget, RegressionTarget
from faithmap.targets.segmentation import SegmentationTarget

__all__ = ["BinaryTarget", "DetectionTarget", "ImageTarget", "MultiLabelTarget", "RegressionTarget", "SegmentationTarget"]
