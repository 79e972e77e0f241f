"""Heatmaps that show which pixels an image model's decision rests on, with the evidence that they do.

>>> import faithmap
>>> faithmap.IGOS.__name__
'IGOS'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from faithmap._version import __version__
from faithmap.baselines import BASELINES, Blur, Constant, Mean, MedianBlur, Noise
from faithmap.cautions import BaselineWarning, EmptyHeatmapWarning, FaithmapWarning, LowConfidenceWarning
from faithmap.explanation import Explanation
from faithmap.geometry import Geometry
from faithmap.methods import IGOS, Explainer, LineSearch, Mask
from faithmap.metrics import Curve, DeletionInsertion, Protocol, deletion_insertion
from faithmap.model import Classifier
from faithmap.seeds import image_generators

if TYPE_CHECKING:
    from faithmap.data import ImageError, image_files, read_image, sample_photo
    from faithmap.viz import show
    from faithmap.zoo import ModelError, load

_LATER = {
    "ImageError": "faithmap.data",
    "image_files": "faithmap.data",
    "read_image": "faithmap.data",
    "sample_photo": "faithmap.data",
    "ModelError": "faithmap.zoo",
    "load": "faithmap.zoo",
    "show": "faithmap.viz",
}

__all__ = [
    "BASELINES",
    "IGOS",
    "BaselineWarning",
    "Blur",
    "Classifier",
    "Constant",
    "Curve",
    "DeletionInsertion",
    "EmptyHeatmapWarning",
    "Explainer",
    "Explanation",
    "FaithmapWarning",
    "Geometry",
    "ImageError",
    "LineSearch",
    "LowConfidenceWarning",
    "Mask",
    "Mean",
    "MedianBlur",
    "ModelError",
    "Noise",
    "Protocol",
    "__version__",
    "deletion_insertion",
    "image_files",
    "image_generators",
    "load",
    "read_image",
    "sample_photo",
    "show",
]


def __getattr__(name: str) -> Any:
    """What needs more than torch is imported when it is first used."""
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'faithmap' has no attribute {name!r}")
