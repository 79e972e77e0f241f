"""Where images lie: the bytes of one file, the image files of a folder, the photographs that come with the library."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from faithmap.text import one_line

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


def _unreadable(name: str, error: OSError | ValueError, refused: type[FileError] = ImageError) -> FileError:
    reason = getattr(error, "strerror", None) or error
    remedy = f"give the path of {refused.kind} file that exists and may be read"
    return refusal(name, f"cannot be read ({reason})", remedy, refused)


def _expand(path: Path) -> list[Path]:
    try:
        path.stat()
        files = sorted(_walk(path)) if path.is_dir() else [path]
    except (OSError, ValueError) as error:
        raise _unreadable(os.fspath(path), error) from error
    if not files:
        remedy = f"give one with files in {' '.join(sorted(_SUFFIXES))}"
        raise refusal(os.fspath(path), "a folder without images", remedy)
    return files


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = (Path(parent, name) for name in names if not name.startswith("."))
        yield from (file for file in files if file.suffix.lower() in _SUFFIXES and file.is_file())


def _raise(error: OSError) -> None:
    raise error
