"""From a decoded PIL image to RGB values in [0, 1]."""

import struct

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base
from PIL.Image import Transpose
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})
_DEEP_GREY = frozenset({"F", "I", "I;16", "I;16B"})


def to_tensor(image: Image.Image) -> Float[Tensor, "1 3 h w"]:
    """Upright, on white and in RGB, in memory of its own.

    Raises:
        ValueError: if nothing says which sample is white.
    """
    image = _upright(image)
    values = _deep_grey(image) if image.mode in _DEEP_GREY else _colour(image)
    return torch.from_numpy(values).expand(1, 3, *values.shape[-2:]).contiguous()


def is_turned(image: Image.Image) -> bool:
    """Whether width and height are still to change places for the image to be upright; PIL has done that for a TIFF."""
    return _orientation(image) in _SIDEWAYS and not isinstance(image, TiffImageFile)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation, which PIL has applied already if the file is a TIFF."""
    orientation = _orientation(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(Base.Orientation)
    except (KeyError, OSError, SyntaxError, TypeError, ValueError, struct.error):
        return None


def _colour(image: Image.Image) -> NDArray[np.float32]:
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    if image.mode != "RGB":
        image = image.convert("RGB")
    planes = np.asarray(image).transpose(2, 0, 1)
    values: NDArray[np.float32] = np.divide(planes, 255, dtype=np.float32, order="C")
    return values


def _deep_grey(image: Image.Image) -> NDArray[np.float32]:
    if image.mode == "I":
        raise ValueError("signed or 32-bit integer samples")
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    (bits,) = tags.get(Base.BitsPerSample, (16,))
    samples = np.asarray(image)
    white = 1 if image.mode == "F" else 2**bits - 1
    values: NDArray[np.float32] = np.divide(samples, white, dtype=np.float32)
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError("samples outside [0, 1]")
    if tags.get(Base.PhotometricInterpretation) == 0:
        values = 1 - values
    if "transparency" in image.info:
        values[samples == image.info["transparency"]] = 1
    return values
