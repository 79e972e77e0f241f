"""Study: one model, settings, the explainer that they stand for, and images that are studied one batch after another.

An image file is read once (:class:`InputImage`), from the paths that a user gives to the tensor that the model receives.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.data import ImageError, image_files, read_image, sample_photo
from faithmap.data.images import MAX_IMAGE_BYTES, file_bytes, refusal
from faithmap.errors import UserError, memory_errors, user_errors
from faithmap.explanation import Explanation
from faithmap.methods import Explainer
from faithmap.methods.base import Progress
from faithmap.methods.registry import METHODS, PRESET, assigned, explainer_from
from faithmap.methods.settings import SettingError, find_setting, has_any_resolution
from faithmap.model import Classifier
from faithmap.probe import class_probabilities
from faithmap.seeds import image_generators
from faithmap.studies.result_folder import (
    ImageJob,
    ProgressDisplay,
    StudyDone,
    StudyFailed,
    StudyOutcome,
    StudyProgress,
    check_folders,
    is_result,
    new_result,
    output_folder,
    plan_jobs,
    progress_part,
    write_record,
)
from faithmap.studies.result_record import (
    ImageFileRecord,
    ImageSource,
    ModelRecord,
    SeedRecord,
    StudyRecord,
    dependency_versions,
)
from faithmap.studies.settings import ExplainSettings, StudySettings, TrainMaskerSettings
from faithmap.warning_types import recorded, suppressed
from faithmap.zoo import load

EXPLAIN_SHARE = 0.85
"""Share of the progress that explaining takes; deletion and insertion take the rest."""


class StudyResult(Protocol):
    """The result of a study for one image."""

    @property
    def image(self) -> InputImage:
        """The image."""


SettingsT = TypeVar("SettingsT", bound=StudySettings)
ResultT = TypeVar("ResultT", bound=StudyResult)


@dataclass
class Study(ABC, Generic[SettingsT, ResultT]):
    """A study of images: :meth:`analyse` computes a result, :meth:`write` saves its record and its files.

    Attributes:
        settings: as the user gave them.
        model: loaded once.
        target: index of the class to explain; None for the class that the model predicts for each image.
    """

    settings: SettingsT
    model: Classifier
    target: int | None

    @classmethod
    def open(cls, settings: SettingsT) -> Self:
        """Load the model and prepare the study.

        Raises:
            UserError: for a model, weights, device, class, method or setting that does not exist.
        """
        model = load_model(settings)
        return cls.for_model(settings, model, find_class(settings, model))

    @classmethod
    @abstractmethod
    def for_model(cls, settings: SettingsT, model: Classifier, target: int | None) -> Self:
        """Prepare the study for a model that is already loaded.

        Raises:
            UserError: for a method or setting that does not exist.
        """

    @abstractmethod
    def analyse(self, image: InputImage, progress: StudyProgress) -> ResultT:
        """Compute the result of one image.

        Raises:
            ValueError: if a setting does not fit the image.
        """

    @abstractmethod
    def record(self, result: ResultT) -> StudyRecord:
        """The content of result.json."""

    @abstractmethod
    def write_files(self, result: ResultT, folder: Path) -> None:
        """Write all files except result.json."""

    @property
    def batch_size(self) -> int:
        """Number of images that are processed together."""
        return 1

    def process(self, jobs: Sequence[ImageJob], progress: StudyProgress) -> list[StudyOutcome]:
        """Read a batch of images, analyse them and write their results.

        Raises:
            UserError: if memory runs out, or a result cannot be written.
        """
        return [self._process_one(job, progress_part(progress, number)) for number, job in enumerate(jobs)]

    def _process_one(self, job: ImageJob, progress: StudyProgress) -> StudyOutcome:
        try:
            with memory_errors("--chunk", self.settings.chunk):
                result = self.analyse(read_input(job, self.model), progress)
        except ImageError as error:
            return StudyFailed(job.file, str(error))
        except (ValueError, ModuleNotFoundError) as error:
            return StudyFailed(job.file, f"{job.file}: {error}")
        return self.write(result)

    def write(self, result: ResultT) -> StudyDone:
        """Write the result folder of one image.

        Raises:
            UserError: if it cannot be written.
        """
        record, folder = self.record(result), result.image.job.folder
        with new_result(folder, overwrite=self.settings.overwrite) as partial:
            self.write_files(result, partial)
            write_record(partial, record.document())
        return StudyDone(folder, record)

    def explain(
        self, explainer: Explainer, images: Sequence[InputImage], target: int | None, progress: Progress
    ) -> Explanation:
        """Explain images of one size. Warnings are not raised; they are part of the explanation's diagnostics."""
        generators = image_generators(self.settings.seed, [image.index for image in images], self.model.device)
        batch = torch.cat([image.image for image in images])
        with suppressed():
            return explainer(batch, target, generator=generators, progress=progress)

    def random_map(self, image: InputImage, resolution: tuple[int, int], target: int) -> Explanation:
        """A map of random numbers that no explainer has used: the control of deletion and insertion."""
        (generator,) = image_generators(self.settings.seed, [~image.index])
        noise = torch.rand(1, *resolution, generator=generator).to(image.image)
        return Explanation.from_array(noise, image.input_size, target=target, method="random")

    def probabilities(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """The probabilities of all classes, on the CPU. Warnings are not raised; an explanation of the model has them, too."""
        with suppressed():
            return class_probabilities(self.model, images, self.settings.chunk).cpu()


@dataclass
class MethodProgress:
    """The progress callback of an explainer, reported as a part of a study's progress.

    Attributes:
        progress: of the study.
        activity: what is computed now.
        image: what is explained.
        target: index of the class.
        start: progress at which the method begins.
        share: progress that the method takes.
        unfinished: the map so far, where the method offers one.
    """

    progress: StudyProgress
    activity: str
    image: InputImage
    target: int | None
    start: float = 0.0
    share: float = 1.0
    unfinished: Explanation | None = field(default=None, init=False)
    _done: float = field(default=0.0, init=False)

    def __call__(self, done: int, total: int) -> None:
        """Report the number of finished steps."""
        self._done = self.start + self.share * done / max(1, total)
        self.progress(self._done, self.activity, self.unfinished)

    def maps(self, image: int, heatmap: Float[Tensor, "1 r c"]) -> None:
        """Report the map so far."""
        del image
        self.unfinished = Explanation.from_array(heatmap.detach().cpu(), self.image.input_size, target=self.target)
        self.progress(self._done, self.activity, self.unfinished)


def explained_class(explanation: Explanation) -> int:
    """Index of the class that an explanation of one image explains."""
    if explanation.target is None:
        raise ValueError("the explanation is of a callable target; a study explains a class")
    return int(explanation.target[0])


def load_model(settings: StudySettings | TrainMaskerSettings) -> Classifier:
    """Load the model that the settings name.

    Raises:
        UserError: for a model, weights or device that does not exist.
    """
    with user_errors():
        return load(settings.model, weights=settings.weights, device=settings.device, outputs=settings.outputs)


def find_class(settings: StudySettings, model: Classifier) -> int | None:
    """The index of the class that the settings name; None for the predicted class.

    Raises:
        UserError: for a class that does not exist.
    """
    with user_errors():
        return None if settings.target is None else model.find(settings.target)


def run_study(
    open_study: Callable[[SettingsT], Study[Any, Any]],
    paths: Sequence[Path],
    settings: SettingsT,
    display: ProgressDisplay,
) -> Generator[StudyOutcome, None, None]:
    """Study the images that the paths stand for, and write their results; one outcome after another.

    Args:
        open_study: loads the model and prepares the study; called after everything else has been checked.
        paths: image files and folders; none stand for the sample photograph.
        settings: of the study.
        display: displays progress.

    Raises:
        UserError: if no image can be studied; before any computation where possible.
    """
    files, failures = find_files(paths or [sample_photo()])
    jobs = plan_jobs(files, settings.out)
    check_folders([job.folder for job in jobs], overwrite=settings.overwrite)
    yield from failures
    if not jobs:
        return
    with output_folder(settings.out):
        study = open_study(settings)
        for start in range(0, len(jobs), study.batch_size):
            with display(len(jobs)) as progress:
                outcomes = study.process(jobs[start : start + study.batch_size], progress_part(progress, start))
            yield from outcomes


_SHORT = {
    "resolution": ("resolution",),
    "target_layer": ("target_layer",),
    "iterations": ("iterations",),
    "samples": ("samples", "masks"),
    "masker": ("masker",),
    "baseline": ("baseline", "references"),
    "score": ("score",),
}
"""Settings that have an option of their own, and their names in the methods."""


def has_resolution(name: str) -> bool:
    """Whether a method's map can have any resolution."""
    return has_any_resolution(METHODS[name].explainer)


def make_explainer(model: Classifier, settings: ExplainSettings) -> Explainer:
    """The method with the given settings; all others are the method's defaults.

    Raises:
        UserError: for a setting that the method does not have, or that is missing.
        SettingError: a ValueError, for a value that the method does not accept.
    """
    method = settings.method
    options, given = _options(settings), _assigned(settings.set, [method])[method]
    if settings.preset is not None:
        options[PRESET] = settings.preset
    if twice := options.keys() & given.keys():
        raise UserError(f"{min(twice)} is given twice, by an option of its own and by --set; give it once")
    return _explainer(model, settings, {**options, **given})


def make_explainers(
    model: Classifier, settings: Mapping[str, ExplainSettings], shared: Sequence[str] = ()
) -> dict[str, Explainer]:
    """Several methods, by the keys of their settings.

    Args:
        model: the explained model.
        settings: of each method; its own ``set`` goes before its other settings.
        shared: texts as in ``set``, of every method that has such a setting; they go before the options, and after ``set``.

    Raises:
        UserError: for a setting that a method does not have, or that is missing.
        SettingError: a ValueError, for a shared setting that no method has, or a value that a method does not accept.
    """
    of_all = _assigned(shared, [one.method for one in settings.values()])
    made = {}
    for key, one in settings.items():
        own = _assigned(one.set, [one.method])[one.method]
        made[key] = _explainer(model, one, {**_options(one), **of_all[one.method], **own})
    return made


def _options(settings: ExplainSettings) -> dict[str, Any]:
    """The settings that have an option of their own, in plain form, by the method's full names."""
    given = {option: getattr(settings, option) for option in _SHORT}
    return {_name_in(settings.method, option): _plain(option, value) for option, value in given.items() if value is not None}


def _assigned(texts: Sequence[str], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings of ``set`` in plain form, by method and by the method's full names."""
    given = assigned(texts, methods)
    return {method: {_full_name(method, name): value for name, value in of.items()} for method, of in given.items()}


def _explainer(model: Classifier, settings: ExplainSettings, given: Mapping[str, Any]) -> Explainer:
    return explainer_from(settings.method, model, {**given, "chunk_size": settings.chunk, "seed": settings.seed})


def options_of(method: str) -> frozenset[str]:
    """The settings of a method that have an option of their own."""
    return frozenset(option for option in _SHORT if any(_has(method, name) for name in _SHORT[option]))


def _name_in(method: str, option: str) -> str:
    """The method's name for a setting that has an option of its own."""
    for name in _SHORT[option]:
        if _has(method, name):
            return _full_name(method, name)
    raise UserError(f"--{option.replace('_', '-')} is no setting of {method}; leave it out")


def _has(method: str, name: str) -> bool:
    try:
        find_setting(METHODS[method].explainer, name)
    except SettingError:
        return False
    return True


def _full_name(method: str, name: str) -> str:
    """``gradient.samples`` for ``samples`` of a class activation map."""
    if name == PRESET:
        return name
    return ".".join(setting.name for setting in find_setting(METHODS[method].explainer, name, method))


def _plain(option: str, value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if option == "target_layer" else value


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
    warnings: tuple[str, ...]

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

    def with_warnings(self, messages: Sequence[str]) -> InputImage:
        """The same image with more warnings about it, each once."""
        plain = (message.removeprefix("image 0: ") for message in messages)
        return replace(self, warnings=tuple(dict.fromkeys((*self.warnings, *plain))))

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
    return list({file.absolute(): file for file in files}.values()), failures


def read_input(job: ImageJob, model: Classifier) -> InputImage:
    """Read a file, and preprocess the image for the model.

    Raises:
        ImageError: for a file that is not an image, or cannot be read safely.
    """
    return input_from_bytes(job, file_bytes(job.file, MAX_IMAGE_BYTES), model)


def input_from_bytes(job: ImageJob, data: bytes, model: Classifier) -> InputImage:
    """The same for the content of a file; ``job.file`` gives only the name.

    Raises:
        ImageError: for content that is not an image, has a single pixel, or cannot be read safely.
    """
    original, warned = _decode(job.file, data)
    if original[0, 0].numel() == 1:
        raise refusal(str(job.file), "a single pixel, of which no part can be more important", "give a larger image")
    digest = hashlib.sha256(data).hexdigest()
    return InputImage(job, data, digest, model.preprocess(original), (original.shape[-2], original.shape[-1]), tuple(warned))


def _decode(file: Path, data: bytes) -> tuple[Float[Tensor, "1 3 H W"], list[str]]:
    """The image and the warnings about it. Messages name the file in place of "image bytes"."""
    with recorded() as messages:
        try:
            image = read_image(data, max_bytes=MAX_IMAGE_BYTES)
        except ImageError as error:
            raise ImageError(str(file) + str(error).removeprefix("image bytes")) from error
    return image, [message.removeprefix("image bytes: ") for message in messages]
