r"""Score: the number that is explained, one per image.

For logits :math:`z` and class :math:`c` it is the softmax probability :math:`f_c = e^{z_c} / \sum_k e^{z_k}`
(I-GOS, RISE, deletion, insertion), the logit :math:`z_c` (the CAM family), or the result of a callable on the model's output:
:mod:`faithmap.targets` has callables for models that are no single-label classifiers.

A model with several labels has a sigmoid for each class, :math:`f_c = 1 / (1 + e^{-z_c})`. A model that returns probabilities
has no logits: :math:`f_c` is its output, for both kinds of score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

ScoreKind: TypeAlias = Literal["probability", "logit"]

OutputKind: TypeAlias = Literal["logits", "probabilities", "sigmoid"]
"""What a classifier returns: logits of a softmax, probabilities, or logits of one sigmoid for each class (several labels)."""


class ImageTarget(ABC):
    """Base of callable targets whose settings differ from image to image, such as a box or a region for each.

    A method runs the model many times on versions of one image, and on several images in one pass. A plain callable gets the
    output only. A subclass of this also gets the index of the image that each row of the output was made from.

    >>> class Column(ImageTarget):
    ...     def __init__(self, columns: Tensor) -> None:
    ...         self.columns = columns
    ...
    ...     def __call__(self, output: Tensor, index: Tensor, /) -> Tensor:
    ...         return output[torch.arange(len(output)), self.columns[index]]
    >>> Column(torch.tensor([0, 1]))(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 1]))
    tensor([2., 4.])
    """

    @property
    def count(self) -> int | None:
        """Number of images that there are settings for; None if they are the same for all images."""
        return None

    @abstractmethod
    def __call__(self, output: Any, index: Int[Tensor, " m"], /) -> Float[Tensor, " m"]:
        """One number for each row of the output.

        Args:
            output: the model's output for the rows, of any type.
            index: for each row, the index of the image that it was made from, in the call.
        """

    def of(self, images: Int[Tensor, " m"]) -> ImageTarget:
        """The target of some of the images, renumbered from 0.

        Args:
            images: indices of these images, in the new order; an image can be named several times.
        """
        return _Some(self, images)


@dataclass(frozen=True, eq=False)
class _Some(ImageTarget):
    """Another target, for some of its images."""

    target: ImageTarget
    images: Int[Tensor, " n"]

    @property
    def count(self) -> int:
        """Number of the images."""
        return len(self.images)

    def __call__(self, output: Any, index: Int[Tensor, " m"], /) -> Float[Tensor, " m"]:
        """The other target's numbers for these images."""
        return self.target(output, self.images.to(index.device)[index])

    def of(self, images: Int[Tensor, " m"]) -> ImageTarget:
        """The other target, renumbered once."""
        return _Some(self.target, self.images.to(images.device)[images])


ScoreFunction: TypeAlias = Callable[[Any], Tensor] | ImageTarget
"""From the model's output to one number per row; an :class:`ImageTarget` also gets the image of each row."""

Target: TypeAlias = int | Sequence[int] | Tensor | ScoreFunction | None


def tensor_in(output: Any) -> Tensor:
    """The tensor in a model's output: itself, the first of a tuple or list, ``.logits``, or "logits" or "out" of a dict.

    Raises:
        TypeError: for any other output, with its type.

    >>> tensor_in({"out": torch.zeros(1, 2)})
    tensor([[0., 0.]])
    """
    found: Any = output
    if isinstance(getattr(output, "logits", None), Tensor):
        found = output.logits
    elif isinstance(output, Mapping):
        found = output.get("logits", output.get("out"))
    elif isinstance(output, (tuple, list)) and output:
        found = output[0]
    if isinstance(found, Tensor):
        return found
    raise TypeError(f"the model returned {type(output).__name__}, in which no logits were found; {_CALLABLE}")


def logits_of(output: Any) -> Float[Tensor, "n classes"]:
    """The logits in a classifier's output, see :func:`tensor_in`.

    Raises:
        TypeError: if there are none, or they have another shape.
    """
    logits = tensor_in(output)
    if logits.ndim != 2:
        raise TypeError(f"the logits have shape {tuple(logits.shape)}, expected (images, classes); {_CALLABLE}")
    return logits


def probabilities_of(logits: Float[Tensor, "n classes"], outputs: OutputKind) -> Float[Tensor, "n classes"]:
    """The probabilities of all classes, in single precision or better.

    Args:
        logits: what the model returned.
        outputs: what that is.

    >>> probabilities_of(torch.tensor([[0.25, 0.75]]), "probabilities")
    tensor([[0.2500, 0.7500]])
    """
    values = at_least_single(logits)
    if outputs == "probabilities":
        return values
    return values.sigmoid() if outputs == "sigmoid" else values.softmax(dim=1)


def uninformed_probability(score: Score, logits: Float[Tensor, "n classes"] | None) -> float:
    """The probability of a class if the model knows nothing: 1 / classes after a softmax, 0 where that is unknown.

    >>> uninformed_probability(Score(), torch.zeros(1, 4))
    0.25
    """
    if logits is None or logits.shape[1] == 1 or score.outputs == "sigmoid":
        return 0.0
    return 1 / logits.shape[1]


def log_probabilities_of(logits: Float[Tensor, "n classes"], outputs: OutputKind) -> Float[Tensor, "n classes"]:
    """The logarithms of the probabilities of all classes, without overflow.

    Args:
        logits: what the model returned.
        outputs: what that is.

    >>> log_probabilities_of(torch.tensor([[-1000.0, 0.0]]), "logits")
    tensor([[-1000.,     0.]])
    """
    values = at_least_single(logits)
    if outputs == "probabilities":
        return values.clamp(min=torch.finfo(values.dtype).tiny).log()
    return F.logsigmoid(values) if outputs == "sigmoid" else values.log_softmax(dim=1)


PROBABILITY_TOLERANCE = 5e-3
"""Largest distance of a row's sum from 1: rounding of probabilities in half precision."""


def within_unit_interval(values: Float[Tensor, "m classes"]) -> bool:
    """Whether all values can be probabilities, but for rounding."""
    low, high = values.float().aminmax()
    return bool((low >= 0) & (high <= 1 + PROBABILITY_TOLERANCE))


def sums_to_one(values: Float[Tensor, "m classes"]) -> bool:
    """Whether each row has several values that sum to 1, but for rounding."""
    return values.shape[1] > 1 and bool(((values.float().sum(dim=1) - 1).abs() < PROBABILITY_TOLERANCE).all())


_CALLABLE = "pass a callable target, and to a Classifier around the model whole_output=True"


@dataclass(frozen=True)
class Score:
    """A resolved target: the class of each image, and the scale of its score.

    Called with the model's output for some rows and the image that each row belongs to, it returns one number per row,
    in single precision or better.

    Attributes:
        kind: of a class's score.
        classes: of each image.
        function: instead of classes.
        scale: factor of each image's score; None for 1.
        outputs: what the model returns for its classes.
    """

    kind: ScoreKind = "probability"
    classes: Int[Tensor, " n"] | None = None
    function: ScoreFunction | None = None
    scale: Float[Tensor, " n"] | None = None
    outputs: OutputKind = "logits"

    def __call__(self, output: Any, index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The score of each row; ``index`` is the image that each row was made from."""
        if self.function is not None:
            scores = self.function(output, index) if isinstance(self.function, ImageTarget) else self.function(output)
            if not isinstance(scores, Tensor) or scores.shape != index.shape:
                shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
                raise ValueError(f"the callable target returned {shape} for {len(index)} images; return one number per image")
            return self._scaled(at_least_single(scores), index)
        logits = at_least_single(logits_of(output))
        values = probabilities_of(logits, self.outputs) if self.kind == "probability" else logits
        assert self.classes is not None  # noqa: S101 - resolve() fills one of the two
        return self._scaled(values.gather(1, self.classes[index].unsqueeze(1)).squeeze(1), index)

    @property
    def is_class_probability(self) -> bool:
        """Whether the score is a class's probability; a callable may return any number."""
        return self.kind == "probability" and self.function is None

    def of(self, images: Int[Tensor, " m"]) -> Score:
        """The score of some of the images, renumbered from 0."""
        classes = None if self.classes is None else self.classes[images]
        scale = None if self.scale is None else self.scale[images]
        return replace(self, classes=classes, function=function_of(self.function, images), scale=scale)

    def _scaled(self, values: Float[Tensor, " m"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        return values if self.scale is None else values * self.scale[index].to(values.dtype)


def function_of(function: ScoreFunction | None, images: Int[Tensor, " m"]) -> ScoreFunction | None:
    """The callable for some of the images: the same, but for an ImageTarget."""
    return function.of(images) if isinstance(function, ImageTarget) else function


def target_of(target: Target, images: Int[Tensor, " m"]) -> Target:
    """The target of some of the images."""
    if isinstance(target, Tensor):
        return target[images] if target.ndim else target
    return target.of(images) if isinstance(target, ImageTarget) else target


def require_gradient(scores: Float[Tensor, "*m"]) -> None:
    """Raise ValueError for scores without a gradient to the model."""
    if not scores.requires_grad:
        raise no_gradient()


def no_gradient() -> ValueError:
    """The error for a score without a gradient to the model."""
    return ValueError(
        "the score has no gradient to the model: the model or the target cuts the graph, as torch.no_grad, int8 quantisation "
        "or a list of boxes made without gradients does, or the layer does not feed the score; use a method that needs only "
        "scores: RISE, Occlusion, LIME, KernelSHAP, or, with a layer, ScoreCAM, AblationCAM or EigenCAM"
    )


def summed_gradients(scores: Float[Tensor, "*m"], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of the sum of scores to each of the inputs; zero for one that the scores do not depend on.

    Raises:
        ValueError: if the scores have no gradient to any of them, or one is not differentiable.
    """
    require_gradient(scores)
    if not all(given.requires_grad for given in inputs):
        raise no_gradient()
    found = torch.autograd.grad(scores.sum(), list(inputs), allow_unused=True)
    if all(gradient is None for gradient in found):
        raise no_gradient()
    return [torch.zeros_like(given) if g is None else g for g, given in zip(found, inputs, strict=True)]


def at_least_single(values: Tensor) -> Tensor:
    """The values in float32; float64 stays.

    >>> at_least_single(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values if values.dtype == torch.float64 else values.float()


def usable_output(output: Tensor) -> Tensor:
    """The output in single precision or better; a copy of a tensor that was made in ``torch.inference_mode``."""
    output = output.clone() if output.is_inference() else output
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def resolve(target: Target, output: Any, kind: ScoreKind, count: int, outputs: OutputKind = "logits") -> Score:
    """Resolve a target with the model's ``output`` for the ``count`` clean images.

    ``None`` becomes each image's own argmax, once, so that the class cannot change while an explainer works. The score of a
    model that returns probabilities is a probability, whatever kind is asked for.

    Raises:
        ValueError: for a wrong number of classes, a class that does not exist, or an unknown kind of score.
        TypeError: for any other target.
    """
    if kind not in ("probability", "logit"):
        raise ValueError(f"score is {kind!r}; give 'probability' or 'logit'")
    if callable(target) and not isinstance(target, Tensor):
        given = target.count if isinstance(target, ImageTarget) else None
        if given is not None and given != count:
            raise ValueError(
                f"{type(target).__name__} is made for {given} images, not {count}; give settings for each, or for all"
            )
        return Score(kind, function=target)
    logits = logits_of(output)
    if outputs == "probabilities":
        kind = "probability"
    if logits.shape[1] == 1 and kind == "probability" and outputs == "logits":
        raise ValueError(
            "the model has a single logit, whose softmax is 1 whatever the image; explain target=BinaryTarget(), its sigmoid, "
            "or give Classifier(outputs='sigmoid')"
        )
    classes = logits.argmax(dim=1) if target is None else _as_classes(target, count, logits)
    return Score(kind, classes=classes, outputs=outputs)


def _as_classes(target: int | Sequence[int] | Tensor, count: int, logits: Float[Tensor, "n classes"]) -> Int[Tensor, " n"]:
    classes = torch.as_tensor(target, device=logits.device)
    if classes.dtype == torch.bool or classes.is_floating_point() or classes.is_complex() or classes.ndim > 1:
        raise TypeError(f"target is {target!r}; give a class index, one per image, a callable, or None")
    if classes.ndim == 0:
        classes = classes.expand(count)
    if len(classes) != count:
        raise ValueError(
            f"target has {len(classes)} {'entry' if len(classes) == 1 else 'entries'} for {count} images; "
            "give one class per image, or an int for all"
        )
    lowest, highest = int(classes.min()), int(classes.max())
    if lowest < 0 or highest >= logits.shape[1]:
        raise ValueError(
            f"target names class {lowest if lowest < 0 else highest}, but the model has classes 0 to {logits.shape[1] - 1}"
        )
    return classes.long()
