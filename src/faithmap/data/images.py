"""Image files from an untrusted source: find them, read their bytes, decode them as RGB values in [0, 1]."""

import os
import re
import stat
import string
import struct
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import ClassVar

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

from faithmap.errors import one_line
from faithmap.warning_types import python_filters, warn

MAX_IMAGE_BYTES = 64 * 2**20
"""Default limit for the size of an image file."""

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
_SAMPLES = Path(__file__).parent / "samples"


class FileError(ValueError):
    """A file is refused. The message is one line: the file, what is wrong with it, what to do.

    >>> raise FileError("labels.txt: is empty; give a file with labels")
    Traceback (most recent call last):
    faithmap.data.images.FileError: labels.txt: is empty; give a file with labels
    """

    kind: ClassVar[str] = "a"


class ImageError(FileError):
    """An image is refused. The message is one line: the file, what is wrong with it, what to do.

    >>> from faithmap.data import read_image
    >>> read_image(b"")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    faithmap.data.images.ImageError: image bytes: not an image that can be read (it is empty); give a JPEG, ...
    """

    kind = "an image"


class AnnotationError(FileError):
    """An annotation is refused. The message is one line: the file, what is wrong with it, what to do.

    >>> from faithmap.data import COCOInstances
    >>> COCOInstances("images", "missing.json")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    faithmap.data.images.AnnotationError: missing.json: cannot be read (No such file or directory); give the path of ...
    """

    kind = "an annotation"


def refusal(name: str, problem: object, remedy: str, refused: type[FileError] = ImageError) -> FileError:
    """The error to raise, with control characters escaped, because names and content of files are untrusted."""
    return refused(one_line(f"{name}: {problem}; {remedy}"))


def file_bytes(path: str | os.PathLike[str], max_bytes: int, refused: type[FileError] = ImageError) -> bytes:
    """The content of a regular file, whose size is checked before it is read.

    Raises:
        FileError: of the given class, if there is no such file, it is a folder, pipe or device, is too large or may not be
            read.
    """
    name = os.fspath(path)
    try:
        size = _regular_size(Path(path))
    except (OSError, ValueError) as error:
        raise _unreadable(name, error, refused) from error
    if size > max_bytes:
        raise too_many_bytes(name, size, max_bytes, refused)
    try:
        with Path(path).open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise _unreadable(name, error, refused) from error


def too_many_bytes(name: str, size: int, max_bytes: int, refused: type[FileError] = ImageError) -> FileError:
    """The error for a file that is too large."""
    return refusal(name, f"{size} bytes are more than max_bytes={max_bytes}", "give a smaller file", refused)


def image_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The image files of the paths, each once, in the given order.

    A file is returned whatever its suffix. A folder stands for the images in it and in its subfolders, sorted by path, without
    hidden files and folders, links to folders, and suffixes other than those of JPEG, PNG, WebP, GIF, BMP and TIFF. A link with
    such a suffix that leads nowhere is returned: reading it is an error that names it.

    >>> [path.name for path in image_files([sample_photo("coffee")])]
    ['coffee.jpg']

    Args:
        paths: paths of files and folders.

    Raises:
        ImageError: if a path does not exist, or a folder cannot be read or has no image.
    """
    found = (file for path in paths for file in _expand(Path(path)))
    return list({file.absolute(): file for file in found}.values())


def image_names(folder: Path) -> Iterator[str]:
    """The images in a folder and its subfolders, like :func:`image_files`, as relative paths with ``/``.

    The names are generated one by one, because all paths of a data set would take much memory. If ``folder`` is a file, its
    name is ``.``.

    Raises:
        ImageError: as :func:`image_files`.
    """
    try:
        folder.stat()
        names = _walk(folder) if folder.is_dir() else iter(["."])
        first = next(names, None)
        if first is not None:
            yield first
            yield from names
    except (OSError, ValueError) as error:
        raise _unreadable(os.fspath(folder), error, more=", or of a folder of images,") from error
    if first is None:
        remedy = f"give one with files in {' '.join(sorted(_SUFFIXES))}"
        raise refusal(os.fspath(folder), "a folder without images", remedy)


def sample_photo(name: str = "chelsea") -> Path:
    """The path of a photograph that is part of the library, free of copyright (``samples/CREDITS.md``).

    Args:
        name: chelsea, a cat, or coffee, a cup.

    >>> sample_photo("coffee").name
    'coffee.jpg'

    Raises:
        ValueError: if there is no photograph of that name.
    """
    photos = {path.stem: path for path in sorted(_SAMPLES.glob("*.jpg"))}
    if name not in photos:
        raise ValueError(f"no sample photo is called {name!r}; give one of {', '.join(photos)}")
    return photos[name]


def _regular_size(path: Path) -> int:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a pipe, socket or device")
    return status.st_size


def _unreadable(name: str, error: OSError | ValueError, refused: type[FileError] = ImageError, more: str = "") -> FileError:
    reason = getattr(error, "strerror", None) or error
    remedy = f"give the path of {refused.kind} file{more} that exists and may be read"
    return refusal(name, f"cannot be read ({reason})", remedy, refused)


def _expand(path: Path) -> list[Path]:
    return [path / name for name in image_names(path)]


def _walk(folder: Path) -> Iterator[str]:
    """Names sorted part by part, like paths; the names of folders that are not read yet end in ``/``."""
    waiting = [""]
    while waiting:
        name = waiting.pop()
        if name and not name.endswith("/"):
            yield name
            continue
        with os.scandir(folder / name) as entries:
            found = [name + child for entry in entries if (child := _image_or_folder(entry))]
        found.sort(key=lambda name: name.rstrip("/"), reverse=True)
        waiting += found


def _image_or_folder(entry: os.DirEntry[str]) -> str | None:
    """The name of an image or of a folder with ``/``; None for any other entry.

    A link with an image's name that leads nowhere, or to itself, is an image that cannot be read: its reader says so.
    """
    if entry.name.startswith("."):
        return None
    named = entry.name if entry.name.lower().endswith(tuple(_SUFFIXES)) else None
    if entry.is_symlink():
        try:
            return named if stat.S_ISREG(entry.stat().st_mode) else None
        except OSError:
            return named
    return f"{entry.name}/" if entry.is_dir() else named if entry.is_file() else None


# PIL.Image.open would apply its own pixel limit, which is global, and warn about it.
_READERS: dict[type[ImageFile], bytes] = {
    JpegImageFile: rb"\xff\xd8\xff",
    PngImageFile: rb"\x89PNG\r\n\x1a\n",
    WebPImageFile: rb"RIFF.{4}WEBP",
    GifImageFile: rb"GIF8[79]a",
    BmpImageFile: rb"BM",
    TiffImageFile: rb"II[*+]\0|MM\0[*+]",
}

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
        warn(one_line(f"{name}: has several frames, of which the first is read"), AnimationWarning)
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
    """Suppress the warning of PIL's own pixel limit, which its readers of GIF and TIFF check."""
    if not needed:
        yield
        return
    with python_filters():
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
