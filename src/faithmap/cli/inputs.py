"""Image files, from the arguments to what the model is shown."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from faithmap.cli.report import Failed
from faithmap.cli.results import Job, is_result
from faithmap.data import ImageError, image_files, read_image
from faithmap.data.files import file_bytes
from faithmap.model import Classifier

MAX_BYTES = 64 * 2**20
"""Of one file. It is kept in memory, encoded, until its pictures are drawn: a decoded one can be twenty times as large."""


@dataclass(frozen=True)
class Photo:
    """One image, read once.

    Attributes:
        job: its file, and where its result goes.
        data: the file's content.
        digest: its SHA-256.
        image: what the model is shown.
        size: (height, width) of the photograph.
        warnings: that came up on the way.
    """

    job: Job
    data: bytes
    digest: str
    image: Float[Tensor, "1 3 h w"]
    size: tuple[int, int]
    warnings: Sequence[str]

    @property
    def index(self) -> int:
        """Stands for the image where random numbers are drawn; follows from the content alone."""
        return int(self.digest[:16], 16)

    def decode(self) -> Float[Tensor, "1 3 H W"]:
        """The photograph, at its own size."""
        return _decode(self.job.file, self.data)[0]


def find_files(paths: Sequence[Path]) -> tuple[list[Path], list[Failed]]:
    """The image files that the arguments stand for, each once, and the arguments that stand for none.

    Pictures in result folders are passed over where a folder is searched: they are answers, not questions.
    """
    files: list[Path] = []
    failures = []
    for path in paths:
        try:
            found = image_files([path])
        except ImageError as error:
            failures.append(Failed(path, str(error)))
            continue
        if path.is_dir():
            results = {folder for folder in {file.parent for file in found} if is_result(folder)}
            found = [file for file in found if file.parent not in results]
            if not found:
                failures.append(Failed(path, f"{path}: holds no images but results of faithmap; give the photographs"))
        files += found
    return image_files(files), failures


def read_photo(job: Job, model: Classifier) -> Photo:
    """Read a file, and show it to the model.

    Raises:
        ImageError: for what is no image that can be read safely.
    """
    return photo_of(job, file_bytes(job.file, MAX_BYTES), model)


def photo_of(job: Job, data: bytes, model: Classifier) -> Photo:
    """The same for the content of a file that was read already; of ``job.file`` only the name is used.

    Raises:
        ImageError: for what is no image that can be read safely.
    """
    photo, cautions = _decode(job.file, data)
    digest = hashlib.sha256(data).hexdigest()
    return Photo(job, data, digest, model.preprocess(photo), (photo.shape[-2], photo.shape[-1]), cautions)


def _decode(file: Path, data: bytes) -> tuple[Float[Tensor, "1 3 H W"], list[str]]:
    """The photograph, and warnings about it; what is said of "image bytes" is said of the file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            photo = read_image(data, max_bytes=MAX_BYTES)
        except ImageError as error:
            raise ImageError(str(file) + str(error).removeprefix("image bytes")) from error
    return photo, [str(warning.message).removeprefix("image bytes: ") for warning in caught]
