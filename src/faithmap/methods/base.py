"""Explainer: the base of all methods. Settings are given to the constructor, images to the call.

Every explainer checks settings and images, resolves the target on the unchanged images, runs the model in evaluation mode
and leaves it unchanged, and warns about known causes of bad maps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import torch
from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.baselines import BASELINES, Baseline, Constant, family_of, with_zero
from faithmap.explanation import Explanation
from faithmap.methods.settings import OfRun, check_settings, complete_docstring
from faithmap.model import Classifier, check_images, normalised_zero, undisturbed, working_images
from faithmap.probe import InputProbe, clean_scores, recognised_baselines
from faithmap.score import Score, ScoreKind, Target, probabilities_of, uninformed_probability
from faithmap.seeds import Generators, resolve_generators
from faithmap.warning_types import BaselineWarning, EmptyHeatmapWarning, LowConfidenceWarning, noted, warn

OwnT = TypeVar("OwnT")

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of steps done and the total number of steps, over all images."""

Clean: TypeAlias = "tuple[Float[Tensor, 'n classes'] | None, Score, Float[Tensor, ' n'], Any]"
"""Logits of the clean images (None for a callable target), the resolved target, its scores, and the values that a method keeps
of that pass."""

LOW_PROBABILITY = 0.01
"""Below this probability of the explained class the I-GOS paper reports failures."""


@dataclass
class Request:
    """The images and everything else that a call of :class:`Explainer` prepares for its method.

    Attributes:
        images: the explained images.
        score: the score of the resolved target.
        clean: the scores of the clean images.
        baseline: the baseline given to the call, or None.
        generators: one random generator for each image.
        progress: called with the number of steps done and the total.
        kept: values that the method's own pass over the clean images kept.
        warnings: messages for each image's diagnostics.
        advice_passes: forward passes of each image that only serve its warnings, apart from the method's.
        zero: the baseline that "zero" stands for.
        probability: of the explained class in each image; None for a callable target, and where it is not defined.
        uninformed: probability of a class if the model knows nothing: one over the number of classes of a softmax, else 0.

    A call of an explainer makes it. Made by hand, for one image:

    >>> score = Score("logit", classes=torch.tensor([1]))
    >>> request = Request(torch.zeros(1, 3, 2, 2), score, torch.ones(1), None, [torch.Generator()], lambda done, total: None)
    >>> request.baseline_for(slice(0, 1), own="blur")
    'blur'
    """

    images: Float[Tensor, "n c h w"]
    score: Score
    clean: Float[Tensor, " n"]
    baseline: Baseline | None
    generators: list[torch.Generator]
    progress: Progress
    kept: Any = None
    uninformed: float = 0.0
    probability: Float[Tensor, " n"] | None = None
    zero: Constant = field(default_factory=lambda: Constant(0.0))
    warnings: list[list[str]] = field(init=False)
    advice_passes: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.warnings = [[] for _ in self.images]
        self.advice_passes = [0] * len(self.images)

    def baseline_for(self, images: Tensor | slice, own: Baseline) -> Baseline:
        """The baseline given to the call, else the method's; of a tensor with one baseline per image, those of these images.

        "zero" is the pixel value that is 0 in the model's normalised space.

        Args:
            images: indices of the images, or a slice.
            own: the method's setting.
        """
        given = own if self.baseline is None else self.baseline
        if isinstance(given, Tensor) and given.ndim == 4 and len(given) == len(self.images):
            return given[images]
        return with_zero(given, self.zero)

    def references_for(self, image: int, own: OwnT) -> OwnT | Baseline:
        """The baseline given to the call for one image, else the method's own references, which all its images share.

        Args:
            image: index of the image.
            own: the method's setting.
        """
        if self.baseline is None:
            return with_zero(own, self.zero)
        return self.baseline_for(slice(image, image + 1), self.baseline)

    def as_probability(self, scores: Float[Tensor, " m"]) -> Float[Tensor, " m"] | None:
        """The scores, if they are probabilities of the explained class; else None.

        Args:
            scores: of any images.
        """
        return scores if self.score.is_class_probability else None

    def warn_of_all(self, message: str, category: type[Warning]) -> None:
        """Warn the user once about all images, and record the message in the diagnostics of each.

        Args:
            message: about the model or the method.
            category: class of the warning.
        """
        for messages in self.warnings:
            messages.append(message)
        warn(message, category)

    def warn(self, image: int, message: str, category: type[Warning]) -> None:
        """Warn the user about one image, and record the message in its diagnostics.

        Args:
            image: index of the image.
            message: without the index.
            category: class of the warning.
        """
        self.warnings[image].append(message)
        warn(f"image {image}: {message}", category)


class Passes(NamedTuple):
    """Passes of the model for one image; the forward pass that belongs to a backward pass is counted as well.

    Attributes:
        forward: number of forward passes.
        backward: number of backward passes.

    >>> Passes(forward=25, backward=24)
    Passes(forward=25, backward=24)
    """

    forward: int
    backward: int


@dataclass
class RawHeatmap:
    """The result of a method.

    Attributes:
        heatmap: one map for each image.
        diagnostics: plain data for each image, among them ``forward_passes`` and ``backward_passes``, which include the pass
            that finds the target.
        rows: pixel row of each row of cells; None if the corners of the map are those of the image.
        columns: pixel column of each column of cells.

    >>> RawHeatmap(torch.ones(1, 2, 2), [{"forward_passes": 1, "backward_passes": 0}]).heatmap.shape
    torch.Size([1, 2, 2])
    """

    heatmap: Float[Tensor, "n r c"]
    diagnostics: list[dict[str, Any]]
    rows: Float[Tensor, " r"] | None = None
    columns: Float[Tensor, " c"] | None = None


@dataclass(eq=False)
class Explainer(ABC):
    """Base of all explainers. A subclass is a dataclass with its settings as fields, and defines ``_explain``.

    Args:
        model: a :class:`Classifier`, or any module that takes images; pixel values then have the units of the module's inputs.
        score: the explained score of the target class: its softmax probability or its logit. For a callable target, its value.
        chunk_size: maximum number of images in one pass of the model. Results do not depend on it beyond rounding.
        seed: seed of the run; each image has a generator of its own, from this seed and its index.
        autocast: lower precision for the passes of the model, such as ``torch.bfloat16``; None for the model's own.

    >>> class Brightness(Explainer):
    ...     def _explain(self, request):
    ...         passes = {"forward_passes": 1, "backward_passes": 0}
    ...         return RawHeatmap(request.images.mean(dim=1), [passes for _ in request.images])
    >>> explanation = Brightness(nn.Flatten())(torch.tensor([[[[0.2, 0.8]]]]))
    >>> explanation.heatmap, explanation.method
    (tensor([[[0.2000, 0.8000]]]), 'Brightness')
    """

    title: ClassVar[str]
    """The name of the method on figures, on the page and in reports; the name of the class if a subclass sets none."""

    reads_removals: ClassVar[bool] = False
    """Whether scores of images whose parts were replaced by ``baseline`` decide the map."""

    model: nn.Module
    _: KW_ONLY
    score: ScoreKind = "probability"
    chunk_size: Annotated[int, Ge(1), OfRun()] = 32
    seed: Annotated[int, OfRun()] = 0
    autocast: Annotated[torch.dtype | None, OfRun()] = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "title" not in vars(cls):
            cls.title = cls.__name__
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
            images: (n, channels, height, width), in [0, 1] for a Classifier, on the model's device.
            target: the explained class: None for each image's predicted class, an index, one index per image, or a callable
                that computes one number per image from the model's output, such as those of :mod:`faithmap.targets`.
            baseline: a name, pixel value, tensor or callable, for methods that remove pixels; None for the method's setting.
            generator: one for the run, or one per image (see :func:`faithmap.image_generators`); None for ``seed``.
            progress: called with the number of steps done and the total number of steps.

        Raises:
            ValueError: for invalid images, targets or settings; the message states what is expected.
        """
        self.check(images)
        images = working_images(self.model, images)
        with undisturbed(self.model):
            with noted() as of_model:
                logits, score, clean, kept = self._clean(images, target)
            generators = resolve_generators(generator, self.seed, len(images), images.device)
            uninformed = uninformed_probability(score, logits)
            probability = class_probability(score, logits)
            request = Request(images, score, clean, baseline, generators, progress or _silent, kept, uninformed, probability)
            request.zero = normalised_zero(self.model)
            request.warnings = [list(of_model) for _ in images]
            warn_if_improbable(self.model, request, logits)
            result, settings = self._explain(request), self.settings
        warn_if_empty(request, result.heatmap)
        return Explanation(
            result.heatmap,
            (images.shape[-2], images.shape[-1]),
            target=score.classes,
            score=clean,
            rows=result.rows,
            columns=result.columns,
            method=type(self).__name__,
            title=self.title,
            optimises=self.optimises(baseline),
            settings=settings | ({} if score.outputs == "logits" else {"score": score.kind, "outputs": score.outputs}),
            diagnostics=_diagnostics(result, request),
            function=score.function,
        )

    def check(self, images: Float[Tensor, "n c h w"]) -> None:
        """Check settings and images, as every call does first; the model is not run.

        Args:
            images: (n, channels, height, width), on the model's device.

        Raises:
            ValueError: for invalid images or settings; the message states what is expected.
            ModuleNotFoundError: if the method needs a library that is not installed.
        """
        check_images(self.model, images)
        self._check((images.shape[-2], images.shape[-1]))

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes | None:
        """Estimated passes for an image of that size; None if unknown. Runs the model at most once.

        Args:
            image: an image of the size that is to be explained.
        """
        del image
        return None

    def optimises(self, baseline: Baseline | None = None) -> tuple[str, ...]:
        """Kinds of removal whose scores decide the map: a deletion or insertion test of that kind is no evidence for it.

        Args:
            baseline: the one given to the call; None for the method's setting.
        """
        given: Baseline = getattr(self, "baseline", "blur") if baseline is None else baseline
        return (family_of(given),) if self.reads_removals else ()

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data, without the model."""
        names = (f.name for f in fields(self) if f.name != "model" and not f.name.startswith("_"))
        return {name: _plain(getattr(self, name)) for name in names}

    def _check(self, size: tuple[int, int]) -> None:
        """Raise ValueError if a setting does not fit images of that size (height, width)."""
        del size
        check_settings(self)

    def _clean(self, images: Float[Tensor, "n c h w"], target: Target) -> Clean:
        """The pass over the clean images, which resolves the target."""
        return *clean_scores(self.model, images, target, self.score, self.chunk_size, self.autocast), None

    @abstractmethod
    def _explain(self, request: Request) -> RawHeatmap:
        """Compute the heatmaps; the model is in evaluation mode, and gradients are enabled."""


def rows_and_columns(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of a resolution that is one number for both, or two numbers.

    >>> rows_and_columns(28), rows_and_columns((14, 20))
    ((28, 28), (14, 20))
    """
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def check_resolution(given: object, shape: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise ValueError if there are more cells than pixels on a side of an image of that size (height, width)."""
    if not all(1 <= cells <= pixels for cells, pixels in zip(shape, size, strict=True)):
        raise ValueError(f"resolution is {given}; give 1 to {size[0]} rows and 1 to {size[1]} columns")


def warn_if_improbable(model: nn.Module, request: Request, logits: Float[Tensor, "n classes"] | None) -> None:
    """Warn if the explained class is improbable, or is not the predicted class."""
    if logits is None or request.score.classes is None:
        return
    probabilities = probabilities_of(logits, request.score.outputs)
    best, predicted = probabilities.max(dim=1)
    explained = probabilities.gather(1, request.score.classes.unsqueeze(1)).squeeze(1)
    other = (predicted != request.score.classes) & (request.score.outputs != "sigmoid")  # of several labels, any can be true
    for i in ((explained < LOW_PROBABILITY) | other).nonzero().flatten().tolist():
        name, best_name = class_name(model, int(request.score.classes[i])), class_name(model, int(predicted[i]))
        request.warn(
            i,
            f"the explained class {name} has probability {float(explained[i]):.4f}, the model predicts {best_name} with "
            f"{float(best[i]):.4f}; the map of an improbable class can mislead: check its insertion curve",
            LowConfidenceWarning,
        )


def class_name(model: nn.Module, index: int) -> str:
    """The name of a class in a message, with its index; the index alone if the model has no names."""
    labels = model.labels if isinstance(model, Classifier) and model.labels is not None else ()
    return f"{labels[index]!r} ({index})" if index < len(labels) else str(index)


def warn_if_recognised(
    explainer: Explainer,
    request: Request,
    index: Int[Tensor, " m"],
    baselines: Float[Tensor, "m c h w"],
    of_baseline: Float[Tensor, " m"] | None = None,
) -> None:
    """Warn if the model still recognises the explained class in a baseline, and name the best baseline for the image.

    A callable target is not tested: its score can be any number.

    Args:
        explainer: whose model and precision.
        request: the call.
        index: the images.
        baselines: of each.
        of_baseline: the class's probabilities in them, if the method has run the model on them; see
            :meth:`Request.as_probability`. None for one more forward pass for each image, which serves only the warning and is
            counted with the passes for advice.
    """
    if request.probability is None:
        return
    score = replace(request.score, kind="probability", scale=None)
    settings: dict[str, Any] = {"chunk_size": explainer.chunk_size, "autocast": explainer.autocast}
    probe = InputProbe(explainer.model, score, request.images, **settings)
    if of_baseline is None:
        of_baseline = probe.scores(baselines, index)
        for image in index.tolist():
            request.advice_passes[image] += 1
    for image, message in recognised_baselines(probe, index, of_baseline, request.probability[index], request.uninformed):
        request.advice_passes[image] += len(BASELINES)
        request.warn(image, message, BaselineWarning)


def class_probability(score: Score, logits: Float[Tensor, "n classes"] | None) -> Float[Tensor, " n"] | None:
    """The probability of the explained class, whatever the kind of its score; None where there is none.

    A callable target has none, and a single logit has one only if it is known to be that of a sigmoid.

    >>> class_probability(Score("logit", classes=torch.tensor([1])), torch.zeros(1, 4))
    tensor([0.2500])
    """
    if logits is None or score.classes is None or (logits.shape[1] == 1 and score.outputs == "logits"):
        return None
    return replace(score, kind="probability")(logits, torch.arange(len(logits), device=logits.device))


def _diagnostics(result: RawHeatmap, request: Request) -> list[dict[str, Any]]:
    """The diagnostics of each image, with its warnings, and with the forward passes that only served them."""
    rows = []
    for record, messages, advice in zip(result.diagnostics, request.warnings, request.advice_passes, strict=True):
        rows.append({**record, **({"advice_passes": advice} if advice else {}), "warnings": messages})
    return rows


def warn_if_empty(request: Request, heatmap: Float[Tensor, "n r c"]) -> None:
    """Warn if all cells of a heatmap have the same value, or some are NaN."""
    low, high = heatmap.flatten(1).aminmax(dim=1)
    for i in (~(high > low)).nonzero().flatten().tolist():
        kind = "has NaN" if not bool(heatmap[i].isfinite().all()) else "has one value everywhere"
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
