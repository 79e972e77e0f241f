"""Read an image file from an untrusted source as RGB values in [0, 1]."""

import os
import re
import string
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Transpose
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from faithmap.data.files import MAX_IMAGE_BYTES, file_bytes, refusal, too_many_bytes
from faithmap.text import one_line

# PIL.Image.open would apply its own pixel limit, which is global, and warn about it.
_READERS: dict[type[ImageFile], bytes] = {
    JpegImageFile: rb"\xff\xd8\xff",
    PngImageFile: rb"\x89PNG\r\n\x1a\n",
    WebPImageFile: rb"RIFF.{4}WEBP",
    GifImageFile: rb"GIF8[79]a",
    BmpImageFile: rb"BM",
    TiffImageFile: rb"II[*+]\0|MM\0[*+]",
}
_warning_filters = threading.Lock()

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


class AnimationWarning(UserWarning):
    """A file has several frames or pages, of which only the first was read.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", AnimationWarning)  # refuse animations
    """


def read_image(
    source: str | os.PathLike[str] | bytes,
    *,
    max_bytes: int = MAX_IMAGE_BYTES,
    max_pixels: int = 100_000_000,
) -> Float[Tensor, "1 3 h w"]:
    """Read one JPEG, PNG, WebP, GIF, BMP or TIFF file, recognised by its content, as RGB in [0, 1].

    The image is rotated upright (EXIF; invalid metadata is ignored), composed on white if it is transparent, and converted to
    RGB; colour profiles are ignored. Of an animation or a multi-page file the first frame is read, with an `AnimationWarning`.
    Grey samples of 12 and 16 bits keep their precision; PIL reduces 16-bit colour to its upper 8 bits. Floating-point samples
    must lie in [0, 1]; signed and 32-bit integers are refused, because the file does not state which value is white. Damage is
    refused if the decoder notices it: wrong bytes in the middle of a JPEG scan may pass.

    PIL's global settings are not changed, and two of them apply: TIFF and WebP files (and a GIF whose first frame exceeds its
    screen) of more than ``2 * PIL.Image.MAX_IMAGE_PIXELS`` pixels are refused even if `max_pixels` is larger, and a program
    that sets ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` gets truncated images.

    >>> from faithmap.data import sample_photo
    >>> tuple(read_image(sample_photo("chelsea")).shape)
    (1, 3, 300, 451)

    Args:
        source: a path, or the content of a file.
        max_bytes: maximum size of the file.
        max_pixels: maximum number of pixels in the header; a larger image is not decoded.

    Raises:
        ImageError: if the file cannot be read, has another format, is damaged or too large.
    """
    name = "image bytes" if isinstance(source, bytes) else os.fspath(source)
    data = source if isinstance(source, bytes) else file_bytes(source, max_bytes)
    if len(data) > max_bytes:
        raise too_many_bytes(name, len(data), max_bytes)
    reader = _reader(name, data)
    with _decoding(name, reader):
        image, animated = _open(reader, data)
    width, height = image.size
    if width * height > max_pixels:
        problem = f"{width} x {height} pixels are more than max_pixels={max_pixels}"
        raise refusal(name, problem, "give a smaller image")
    with _decoding(name, reader):
        _load(image)
        pixels = _to_tensor(image)
    if animated:
        warnings.warn(one_line(f"{name}: has several frames, of which the first is read"), AnimationWarning, stacklevel=2)
    return pixels


def image_size(path: str | os.PathLike[str], *, max_bytes: int = MAX_IMAGE_BYTES) -> tuple[int, int]:
    """(height, width) of the image that `read_image` would return, from the header; the image is not decoded.

    >>> from faithmap.data import sample_photo
    >>> image_size(sample_photo("chelsea"))
    (300, 451)

    Args:
        path: path of the file.
        max_bytes: maximum size of the file.

    Raises:
        ImageError: if the file cannot be read, has another format, or its header is damaged.
    """
    data = file_bytes(path, max_bytes)
    name = os.fspath(path)
    reader = _reader(name, data)
    with _decoding(name, reader):
        image, _ = _open(reader, data)
        width, height = image.size
    return (width, height) if _is_rotated(image) else (height, width)


def _reader(name: str, data: bytes) -> type[ImageFile]:
    for reader, signature in _READERS.items():
        if re.match(signature, data, re.DOTALL):
            return reader
    problem = f"not an image that can be read ({_beginning(data)})"
    raise refusal(name, problem, "give a JPEG, PNG, WebP, GIF, BMP or TIFF file")


def _beginning(data: bytes) -> str:
    if not data:
        return "it is empty"
    is_text = not data[:64].translate(None, delete=string.printable.encode())
    return "starts like text" if is_text else f"starts with {data[:12]!r}"


def _open(reader: type[ImageFile], data: bytes) -> tuple[ImageFile, bool]:
    """Parse the header; also return whether there are more frames, which a GIF reports only before it is decoded."""
    with _bomb_warnings_off(reader is GifImageFile):
        image = reader(BytesIO(data))
        return image, getattr(image, "is_animated", False)


def _load(image: ImageFile) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    is_large = limit is not None and image.width * image.height > limit
    with _bomb_warnings_off(is_large and isinstance(image, TiffImageFile)):
        image.load()


@contextmanager
def _bomb_warnings_off(needed: bool) -> Iterator[None]:
    """Suppress the warning of PIL's own pixel limit, which its readers of GIF and TIFF check.

    Warning filters are global: the lock prevents threads of this module from restoring each other's.
    """
    if not needed:
        yield
        return
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@contextmanager
def _decoding(name: str, reader: type[ImageFile]) -> Iterator[None]:
    """Turn any exception of a decoder into an ImageError."""
    try:
        yield
    except Exception as error:
        reason = str(error)[:200] or type(error).__name__
        problem = f"a {reader.format} file that cannot be decoded ({reason})"
        raise refusal(name, problem, "give an intact copy, or save it again as an 8-bit PNG or JPEG") from error


def _to_tensor(image: Image.Image) -> Float[Tensor, "1 3 h w"]:
    """The image upright, on white and in RGB, in new memory; ValueError if the white value is unknown."""
    image = _upright(image)
    values = _deep_grey(image) if image.mode in _DEEP_GREY else _colour(image)
    return torch.from_numpy(values).expand(1, 3, *values.shape[-2:]).contiguous()


def _is_rotated(image: Image.Image) -> bool:
    """Whether the upright image has width and height exchanged; PIL has already rotated a TIFF."""
    return _orientation(image) in _SIDEWAYS and not isinstance(image, TiffImageFile)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation, which PIL has already applied to a TIFF."""
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
