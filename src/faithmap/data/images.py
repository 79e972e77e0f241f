"""Read an image file that nobody has vouched for."""

import os
import re
import string
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from jaxtyping import Float
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from faithmap.data.files import MAX_IMAGE_BYTES, file_bytes, refusal, too_many_bytes
from faithmap.data.pixels import is_turned, to_tensor
from faithmap.text import one_line

# PIL.Image.open would hold every file to its own pixel limit, which is one for the whole program, and warn about it.
_READERS: dict[type[ImageFile], bytes] = {
    JpegImageFile: rb"\xff\xd8\xff",
    PngImageFile: rb"\x89PNG\r\n\x1a\n",
    WebPImageFile: rb"RIFF.{4}WEBP",
    GifImageFile: rb"GIF8[79]a",
    BmpImageFile: rb"BM",
    TiffImageFile: rb"II[*+]\0|MM\0[*+]",
}
_warning_filters = threading.Lock()


class AnimationWarning(UserWarning):
    """A file holds several frames or pages, and only the first was read."""


def read_image(
    source: str | os.PathLike[str] | bytes,
    *,
    max_bytes: int = MAX_IMAGE_BYTES,
    max_pixels: int = 100_000_000,
) -> Float[Tensor, "1 3 h w"]:
    """Read one JPEG, PNG, WebP, GIF, BMP or TIFF file, recognised by its content, as RGB in [0, 1].

    The image is turned upright (EXIF; metadata that cannot be understood is ignored), composed on white where it is
    transparent, and converted to RGB without regard to colour profiles. Of an animation or a multi-page file the first
    frame is read, with an `AnimationWarning`. Grey samples of 12 and 16 bits keep their precision; PIL reduces 16-bit
    colour to its upper 8 bits. Floating-point samples must lie in [0, 1]; signed and 32-bit integers are refused, for
    nothing says which value is white. Damage is refused as far as the decoder notices it: wrong bytes in the middle of
    a JPEG scan may pass.

    PIL's global settings are not touched, and two of them still count: TIFF and WebP files (and a GIF whose first frame
    overflows its screen) of more than ``2 * PIL.Image.MAX_IMAGE_PIXELS`` pixels are refused even where `max_pixels` is
    larger, and a program that sets ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` gets truncated images.

    Args:
        source: a path, or the content of a file.
        max_bytes: the size of the file that is read at most.
        max_pixels: how many pixels the header may announce; nothing is decoded if there are more.

    Raises:
        ImageError: if the file cannot be read, is none of the formats, damaged or too large.
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
        pixels = to_tensor(image)
    if animated:
        warnings.warn(one_line(f"{name}: has several frames, of which the first is read"), AnimationWarning, stacklevel=2)
    return pixels


def image_size(path: str | os.PathLike[str], *, max_bytes: int = MAX_IMAGE_BYTES) -> tuple[int, int]:
    """(height, width) that `read_image` would give a file, by its header; nothing is decoded.

    Raises:
        ImageError: if the file cannot be read, or its header is none of the formats' or damaged.
    """
    data = file_bytes(path, max_bytes)
    name = os.fspath(path)
    reader = _reader(name, data)
    with _decoding(name, reader):
        image, _ = _open(reader, data)
        width, height = image.size
    return (width, height) if is_turned(image) else (height, width)


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
    """Parse the header; also say whether more frames follow, as a GIF can tell only before it is decoded."""
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
    """Silence the warning of PIL's own pixel limit, which the readers of GIF and TIFF consult behind our back.

    Filters of warnings belong to the whole process: the lock keeps threads of ours from restoring each other's.
    """
    if not needed:
        yield
        return
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@contextmanager
def _decoding(name: str, reader: type[ImageFile]) -> Iterator[None]:
    """Turn whatever a decoder raises over hostile bytes into a refusal."""
    try:
        yield
    except Exception as error:
        reason = str(error)[:200] or type(error).__name__
        problem = f"a {reader.format} file that cannot be decoded ({reason})"
        raise refusal(name, problem, "give an intact copy, or save it again as an 8-bit PNG or JPEG") from error
