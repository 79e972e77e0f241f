r"""The number that is explained, one per image.

For logits :math:`z` and class :math:`c` it is the softmax probability :math:`f_c = e^{z_c} / \sum_k e^{z_k}`
(I-GOS, RISE, deletion, insertion), the logit :math:`z_c` (the CAM family), or whatever a callable makes of the
model's output: :mod:`faithmap.targets` has those for models that are no single-label classifiers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

ScoreKind: TypeAlias = Literal["probability", "logit"]


class ImageTarget(ABC):
    """A callable target that is told which image each row of the model's output was made from.

    A method asks about one image many times, and about several images in one pass. What is asked of each image may differ: a
    box of its own, a region of its own. A plain callable, which gets the output alone, cannot know; a subclass of this does.
    """

    @property
    def count(self) -> int | None:
        """For how many images there are settings; None where they are the same for any number."""
        return None

    @abstractmethod
    def __call__(self, output: Any, index: Int[Tensor, " m"], /) -> Float[Tensor, " m"]:
        """One number a row of the output; ``index`` says which image each row was made from."""

    def of(self, images: Int[Tensor, " m"]) -> ImageTarget:
        """The target of some of the images, counted from 0 again."""
        return _Some(self, images)


@dataclass(frozen=True, eq=False)
class _Some(ImageTarget):
    """Another target's, for some of its images."""

    target: ImageTarget
    images: Int[Tensor, " n"]

    @property
    def count(self) -> int:
        """Those."""
        return len(self.images)

    def __call__(self, output: Any, index: Int[Tensor, " m"], /) -> Float[Tensor, " m"]:
        """As the other one answers of the image that is meant."""
        return self.target(output, self.images.to(index.device)[index])

    def of(self, images: Int[Tensor, " m"]) -> ImageTarget:
        """Without a chain of renumberings."""
        return _Some(self.target, self.images.to(images.device)[images])


ScoreFunction: TypeAlias = Callable[[Any], Tensor] | ImageTarget
"""Turns the model's output into one number a row; an :class:`ImageTarget` is also told which image each row came from."""

Target: TypeAlias = int | Sequence[int] | Tensor | ScoreFunction | None


def tensor_in(output: Any) -> Tensor:
    """The tensor of answers inside what a model returns: itself, the first of a tuple or list, ``.logits``, or of a dict.

    Raises:
        TypeError: for anything else, naming the type.
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
    """The logits inside what a classifier returns, see :func:`tensor_in`.

    Raises:
        TypeError: where there are none, or of another shape.
    """
    logits = tensor_in(output)
    if logits.ndim != 2:
        raise TypeError(f"the logits have shape {tuple(logits.shape)}, expected (images, classes); {_CALLABLE}")
    return logits


_CALLABLE = "pass a callable target, and to a Classifier around the model whole_output=True"


@dataclass(frozen=True)
class Score:
    """A target made concrete: which class of which image, on which scale.

    Called with the model's output for some rows and the image that each row belongs to, it returns one number a row,
    in single precision or better.

    Attributes:
        kind: of a class's score.
        classes: of each image.
        function: instead of classes.
        scale: what each image's score is multiplied by; None for 1.
    """

    kind: ScoreKind = "probability"
    classes: Int[Tensor, " n"] | None = None
    function: ScoreFunction | None = None
    scale: Float[Tensor, " n"] | None = None

    def __call__(self, output: Any, index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The score of each row; ``index`` says which image a row was made from."""
        if self.function is not None:
            scores = self.function(output, index) if isinstance(self.function, ImageTarget) else self.function(output)
            if not isinstance(scores, Tensor) or scores.shape != index.shape:
                shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
                raise ValueError(f"the callable target returned {shape} for {len(index)} images; return one number per image")
            return self._scaled(at_least_single(scores), index)
        logits = at_least_single(logits_of(output))
        values = logits.softmax(dim=1) if self.kind == "probability" else logits
        assert self.classes is not None  # noqa: S101 - resolve() fills one of the two
        return self._scaled(values.gather(1, self.classes[index].unsqueeze(1)).squeeze(1), index)

    @property
    def is_class_probability(self) -> bool:
        """Whether it is known to lie in [0, 1], 1 for certainty; a callable may return anything."""
        return self.kind == "probability" and self.function is None

    def of(self, images: Int[Tensor, " m"]) -> Score:
        """The score of some of the images, counted from 0 again."""
        classes = None if self.classes is None else self.classes[images]
        scale = None if self.scale is None else self.scale[images]
        return replace(self, classes=classes, function=function_of(self.function, images), scale=scale)

    def _scaled(self, values: Float[Tensor, " m"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        return values if self.scale is None else values * self.scale[index].to(values.dtype)


def function_of(function: ScoreFunction | None, images: Int[Tensor, " m"]) -> ScoreFunction | None:
    """What a callable is for some of the images: the same, unless it is told which one it is asked about."""
    return function.of(images) if isinstance(function, ImageTarget) else function


def target_of(target: Target, images: Int[Tensor, " m"]) -> Target:
    """The target of some of the images, where it is a tensor of classes or a callable; what is the same for all stays."""
    if isinstance(target, Tensor):
        return target[images] if target.ndim else target
    return target.of(images) if isinstance(target, ImageTarget) else target


def require_gradient(scores: Float[Tensor, " m"]) -> None:
    """Raise ValueError for scores that no gradient leads back from."""
    if not scores.requires_grad:
        raise ValueError(
            "no gradient leads from the score back into the model: the model or the target cuts it off, as a list of boxes "
            "that was made without gradients does, or the layer has no part in the score; explain it with a method that "
            "asks for scores alone: RISE, Occlusion, ScoreCAM or AblationCAM"
        )


def at_least_single(values: Tensor) -> Tensor:
    """The same values in float32 where they came in half precision."""
    return values if values.dtype == torch.float64 else values.float()


def resolve(target: Target, output: Any, kind: ScoreKind, count: int) -> Score:
    """Make a target concrete on the model's ``output`` for the ``count`` clean images.

    ``None`` becomes each image's own argmax, once, so that the class cannot change while an explainer works.

    Raises:
        ValueError: for a wrong number of classes, a class that does not exist, or an unknown kind of score.
        TypeError: for a target that is none of the above.
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
    if logits.shape[1] == 1 and kind == "probability":
        raise ValueError(
            "the model has a single logit, whose softmax is 1 whatever the image; explain target=BinaryTarget(), its sigmoid"
        )
    if target is None:
        return Score(kind, classes=logits.argmax(dim=1))
    return Score(kind, classes=_as_classes(target, count, logits))


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
    if int(classes.min()) < 0 or int(classes.max()) >= logits.shape[1]:
        raise ValueError(f"target names class {int(classes.max())}, but the model has classes 0 to {logits.shape[1] - 1}")
    return classes.long()
