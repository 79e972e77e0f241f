"""Where images lie: the bytes of one file, the image files of a folder, the photographs that come with the library."""

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
    """A file is refused. The message is one line: which file, what is wrong with it, what to do."""

    kind: ClassVar[str] = "a"


class ImageError(FileError):
    """An image is refused. The message is one line: which file, what is wrong with it, what to do."""

    kind = "an image"


class AnnotationError(FileError):
    """An annotation is refused. The message is one line: which file, what is wrong with it, what to do."""

    kind = "an annotation"


def refusal(name: str, problem: object, remedy: str, refused: type[FileError] = ImageError) -> FileError:
    """The error to raise, its control characters escaped: a file's name and content are its author's, not ours."""
    return refused(one_line(f"{name}: {problem}; {remedy}"))


def file_bytes(path: str | os.PathLike[str], max_bytes: int, refused: type[FileError] = ImageError) -> bytes:
    """The content of a regular file, whose size is checked before anything is read.

    Raises:
        FileError: of the kind given, if there is no such file, it is a folder, pipe or device, is too large or may not be
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
    """The refusal of a file for its size."""
    return refusal(name, f"{size} bytes are more than max_bytes={max_bytes}", "give a smaller file", refused)


def image_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The image files that the paths stand for, each once, in the order given.

    A file is taken as it is, whatever its suffix. A folder stands for the images in it and in its subfolders, sorted by
    path. Passed over are hidden files and folders, links to folders, and suffixes other than those of JPEG, PNG, WebP,
    GIF, BMP and TIFF.

    Raises:
        ImageError: if a path does not exist, or a folder cannot be read or holds no image.
    """
    found = (file for path in paths for file in _expand(Path(path)))
    return list({file.absolute(): file for file in found}.values())


def image_names(folder: Path) -> Iterator[str]:
    """The images in a folder and its subfolders, as :func:`image_files` finds them; paths relative to it, with ``/``.

    They come one by one, and the names of few folders are held at a time: a data set's paths would take much memory. A file
    in the folder's place is ``.``.

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
    """A photograph that comes with the library, free of copyright (``samples/CREDITS.md``).

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
    """Sorted part by part, as paths are; folders end in ``/`` until it is their turn."""
    waiting = [""]
    while waiting:
        here = waiting.pop()
        if here and not here.endswith("/"):
            yield here
            continue
        with os.scandir(folder / here) as entries:
            found = [here + name for entry in entries if (name := _wanted(entry))]
        found.sort(key=lambda name: name.rstrip("/"), reverse=True)
        waiting += found


def _wanted(entry: os.DirEntry[str]) -> str | None:
    """The name of an image or folder that is to be looked at."""
    if entry.name.startswith("."):
        return None
    if entry.is_dir():
        return None if entry.is_symlink() else f"{entry.name}/"
    return entry.name if entry.name.lower().endswith(tuple(_SUFFIXES)) and entry.is_file() else None
