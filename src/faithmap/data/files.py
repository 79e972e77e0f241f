"""Files: the bytes of one file, the image files of a folder, and the sample photographs of the library."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from faithmap.text import one_line

MAX_IMAGE_BYTES = 64 * 2**20
"""Default limit for the size of an image file."""

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
_SAMPLES = Path(__file__).parent / "samples"


class FileError(ValueError):
    """A file is refused. The message is one line: the file, what is wrong with it, what to do.

    >>> raise FileError("labels.txt: is empty; give a file with labels")
    Traceback (most recent call last):
    faithmap.data.files.FileError: labels.txt: is empty; give a file with labels
    """

    kind: ClassVar[str] = "a"


class ImageError(FileError):
    """An image is refused. The message is one line: the file, what is wrong with it, what to do.

    >>> from faithmap.data import read_image
    >>> read_image(b"")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    faithmap.data.files.ImageError: image bytes: not an image that can be read (it is empty); give a JPEG, ...
    """

    kind = "an image"


class AnnotationError(FileError):
    """An annotation is refused. The message is one line: the file, what is wrong with it, what to do.

    >>> from faithmap.data import COCOInstances
    >>> COCOInstances("images", "missing.json")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    faithmap.data.files.AnnotationError: missing.json: cannot be read (No such file or directory); give the path of ...
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
    hidden files and folders, links to folders, and suffixes other than those of JPEG, PNG, WebP, GIF, BMP and TIFF.

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
    """The name of an image or of a folder with ``/``; None for any other entry."""
    if entry.name.startswith("."):
        return None
    if entry.is_dir():
        return None if entry.is_symlink() else f"{entry.name}/"
    return entry.name if entry.name.lower().endswith(tuple(_SUFFIXES)) and entry.is_file() else None
