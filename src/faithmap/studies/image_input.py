"""Image files, from the paths that a user gives to the tensor that the model receives."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from faithmap.data import ImageError, image_files, read_image
from faithmap.data.files import MAX_IMAGE_BYTES, file_bytes
from faithmap.model import Classifier
from faithmap.studies.outcome import StudyFailed
from faithmap.studies.result_folder import ImageJob, is_result
from faithmap.studies.result_record import ImageFileRecord, ImageSource, ModelRecord, SeedRecord, dependency_versions


@dataclass(frozen=True)
class InputImage:
    """One image file, read once.

    Attributes:
        job: the file, and the folder for its result.
        data: the content of the file. It is kept encoded until pictures are drawn: decoded, it can be twenty times as large.
        digest: SHA-256 of the content.
        image: what the model receives.
        size: (height, width) of the image in the file.
        warnings: warnings that were raised while it was read.
    """

    job: ImageJob
    data: bytes
    digest: str
    image: Float[Tensor, "1 3 h w"]
    size: tuple[int, int]
    warnings: Sequence[str]

    @property
    def index(self) -> int:
        """The image's index for random numbers; depends only on the content of the file."""
        return int(self.digest[:16], 16)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of what the model receives."""
        return (self.image.shape[-2], self.image.shape[-1])

    def source(self, model: Classifier, seed: int) -> ImageSource:
        """What a record says of this image, of the model and of the seeds."""
        file = ImageFileRecord(str(self.job.file), self.digest, len(self.data), self.size)
        return ImageSource(dependency_versions(), file, ModelRecord.of(model, self.input_size), SeedRecord(seed, self.index))

    def original(self) -> Float[Tensor, "1 3 H W"]:
        """The image at its own size, decoded again."""
        return _decode(self.job.file, self.data)[0]


def find_files(paths: Sequence[Path]) -> tuple[list[Path], list[StudyFailed]]:
    """The image files that the paths stand for, each once, and a failure for every path that stands for none.

    A folder is searched, without the result folders in it.
    """
    files: list[Path] = []
    failures = []
    for path in paths:
        try:
            found = image_files([path])
        except ImageError as error:
            failures.append(StudyFailed(path, str(error)))
            continue
        if path.is_dir():
            results = {folder for folder in {file.parent for file in found} if is_result(folder)}
            found = [file for file in found if file.parent not in results]
            if not found:
                failures.append(StudyFailed(path, f"{path}: contains no images except faithmap's results; give the images"))
        files += found
    return image_files(files), failures


def read_input(job: ImageJob, model: Classifier) -> InputImage:
    """Read a file, and preprocess the image for the model.

    Raises:
        ImageError: for a file that is not an image, or cannot be read safely.
    """
    return input_from_bytes(job, file_bytes(job.file, MAX_IMAGE_BYTES), model)


def input_from_bytes(job: ImageJob, data: bytes, model: Classifier) -> InputImage:
    """The same for the content of a file; ``job.file`` gives only the name.

    Raises:
        ImageError: for content that is not an image, or cannot be read safely.
    """
    original, warned = _decode(job.file, data)
    digest = hashlib.sha256(data).hexdigest()
    return InputImage(job, data, digest, model.preprocess(original), (original.shape[-2], original.shape[-1]), warned)


def _decode(file: Path, data: bytes) -> tuple[Float[Tensor, "1 3 H W"], list[str]]:
    """The image and the warnings about it. Messages name the file in place of "image bytes"."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            image = read_image(data, max_bytes=MAX_IMAGE_BYTES)
        except ImageError as error:
            raise ImageError(str(file) + str(error).removeprefix("image bytes")) from error
    return image, [str(warning.message).removeprefix("image bytes: ") for warning in caught]
