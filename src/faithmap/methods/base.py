"""Explainer: settings in the constructor, data in the call.

What all explainers share: the images are checked, the target is resolved once on the clean images, the model is undisturbed
while it is asked and as it was afterwards, and what is known to make maps fail is said.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, NamedTuple, TypeAlias

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.baselines import Baseline
from faithmap.explanation import Explanation
from faithmap.methods.settings import OfRun, check_settings, complete_docstring
from faithmap.model import check_images, undisturbed
from faithmap.probe import clean_scores
from faithmap.score import Score, ScoreKind, Target
from faithmap.seeds import Generators, resolve_generators
from faithmap.warning_types import EmptyHeatmapWarning, LowConfidenceWarning

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the steps done and the steps there are, over all images."""

Clean: TypeAlias = "tuple[Float[Tensor, 'n classes'] | None, Score, Float[Tensor, ' n'], Any]"
"""Logits and scores of the clean images, the target made concrete, and what a method keeps of that pass."""

LOW_PROBABILITY = 0.01
"""Below this probability of the explained class the I-GOS paper reports failures."""


@dataclass
class Request:
    """What a method is asked, prepared by :class:`Explainer`; ``kept`` is what its pass over the clean images left for it."""

    images: Float[Tensor, "n c h w"]
    score: Score
    clean: Float[Tensor, " n"]
    baseline: Baseline | None
    generators: list[torch.Generator]
    progress: Progress
    kept: Any = None
    warnings: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.warnings = [[] for _ in self.images]

    def baseline_for(self, images: Tensor | slice, own: Baseline) -> Baseline:
        """The call's baseline, else the method's own; of a tensor with one for each image, those of these images."""
        given = own if self.baseline is None else self.baseline
        if isinstance(given, Tensor) and given.ndim == 4 and len(given) == len(self.images):
            return given[images]
        return given

    def warn(self, image: int, message: str, category: type[Warning]) -> None:
        """Warn the user about one image, and keep the words for its diagnostics."""
        self.warnings[image].append(message)
        warnings.warn(f"image {image}: {message}", category, stacklevel=6)


class Passes(NamedTuple):
    """Of the model, that an image takes; a backward pass is counted beside the forward pass that it follows."""

    forward: int
    backward: int


@dataclass
class RawHeatmap:
    """Heatmaps, plain data about how each came about, and where the cells stand if their corners are not the image's."""

    heatmap: Float[Tensor, "n r c"]
    diagnostics: list[dict[str, Any]]
    rows: Float[Tensor, " r"] | None = None
    columns: Float[Tensor, " c"] | None = None


@dataclass(eq=False)
class Explainer(ABC):
    """Base of all explainers.

    Args:
        model: a :class:`Classifier`, or any module that takes the images; then all units are the module's own.
        score: what is explained of the target class.
        chunk_size: images in one pass of the model at the most; no result depends on it beyond rounding.
        seed: of the run; each image gets its own from it and its index.
        autocast: a lower precision for the model's passes, such as ``torch.bfloat16``.
    """

    model: nn.Module
    _: KW_ONLY
    score: ScoreKind = "probability"
    chunk_size: Annotated[int, Ge(1), OfRun()] = 32
    seed: Annotated[int, OfRun()] = 0
    autocast: Annotated[torch.dtype | None, OfRun()] = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        complete_docstring(cls)

    def __call__(
        self,
        images: Float[Tensor, "n c h w"],
        target: Target = None,
        *,
        baseline: Baseline | None = None,
        generator: Generators = None,
        progress: Progress | None = None,
    ) -> Explanation:
        """Explain the model's score of each image.

        Args:
            images: in [0, 1] for a Classifier, on the model's device.
            target: the explained class: None for each image's predicted one, an index, one index per image, or a callable
                that turns the model's output into one number per image, such as those of :mod:`faithmap.targets`.
            baseline: a name, pixel value, tensor or callable, for methods that remove pixels; None for the method's own.
            generator: one for the run, or one per image (see :func:`faithmap.image_generators`); None for ``seed``.
            progress: called with (steps done, steps in all).

        Raises:
            ValueError: for images, targets or settings that do not fit; says what would.
            RuntimeError: inside ``torch.inference_mode``.
        """
        self.check(images)
        images = images.detach()
        with undisturbed(self.model):
            logits, score, clean, kept = self._clean(images, target)
            generators = resolve_generators(generator, self.seed, len(images), images.device)
            request = Request(images, score, clean, baseline, generators, progress or _silent, kept)
            warn_if_doubtful(request, logits)
            answer = self._explain(request)
        warn_if_empty(request, answer.heatmap)
        return Explanation(
            answer.heatmap,
            (images.shape[-2], images.shape[-1]),
            target=score.classes,
            score=clean,
            rows=answer.rows,
            columns=answer.columns,
            method=type(self).__name__,
            settings=self.settings,
            diagnostics=[{**d, "warnings": w} for d, w in zip(answer.diagnostics, request.warnings, strict=True)],
            function=score.function,
        )

    def check(self, images: Float[Tensor, "n c h w"]) -> None:
        """See whether the settings and the images go together, as every call does first; the model is not asked.

        Raises:
            ValueError: for images or settings that do not fit; says what would.
            ModuleNotFoundError: where the method is a library's that is not installed.
        """
        check_images(self.model, images)
        self._check((images.shape[-2], images.shape[-1]))

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes | None:
        """What an image of that size will about take; None where it is not known before. Asks the model once at the most."""
        del image
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data, without the model."""
        names = (f.name for f in fields(self) if f.name != "model" and not f.name.startswith("_"))
        return {name: _plain(getattr(self, name)) for name in names}

    def _check(self, size: tuple[int, int]) -> None:
        """Raise ValueError where a setting does not fit images of that size (height, width)."""
        del size
        check_settings(self)

    def _clean(self, images: Float[Tensor, "n c h w"], target: Target) -> Clean:
        """Logits and scores of the clean images, the target made concrete, and what else the method keeps of that pass."""
        return *clean_scores(self.model, images, target, self.score, self.chunk_size, self.autocast), None

    @abstractmethod
    def _explain(self, request: Request) -> RawHeatmap:
        """The method itself; runs in evaluation mode, with gradients enabled."""


def rows_and_columns(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """Of a number of cells for both sides, or of one for each."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def check_resolution(given: object, shape: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise ValueError for cells that do not fit an image of that size (height, width)."""
    if not all(1 <= cells <= pixels for cells, pixels in zip(shape, size, strict=True)):
        raise ValueError(f"resolution is {given}; give 1 to {size[0]} rows and 1 to {size[1]} columns")


def warn_if_doubtful(request: Request, logits: Float[Tensor, "n classes"] | None) -> None:
    """Say where the explained class is improbable, or not the predicted one."""
    if logits is None or request.score.classes is None:
        return
    probabilities = logits.float().softmax(dim=1)
    best, predicted = probabilities.max(dim=1)
    explained = probabilities.gather(1, request.score.classes.unsqueeze(1)).squeeze(1)
    doubtful = (explained < LOW_PROBABILITY) | (predicted != request.score.classes)
    for i in doubtful.nonzero().flatten().tolist():
        request.warn(
            i,
            f"the explained class {int(request.score.classes[i])} has probability {float(explained[i]):.4f}, "
            f"the model predicts class {int(predicted[i])} with {float(best[i]):.4f}; "
            "the map of an unlikely class can mislead: check its insertion",
            LowConfidenceWarning,
        )


def warn_if_empty(request: Request, heatmap: Float[Tensor, "n r c"]) -> None:
    """Say where a heatmap ranks nothing."""
    low, high = heatmap.flatten(1).aminmax(dim=1)
    for i in (~(high > low)).nonzero().flatten().tolist():
        kind = "holds NaN" if not bool(heatmap[i].isfinite().all()) else "has one value everywhere"
        request.warn(
            i, f"the heatmap {kind} and ranks no pixel; try another baseline, target or resolution", EmptyHeatmapWarning
        )


def _silent(done: int, total: int) -> None:
    del done, total


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    return str(value)
