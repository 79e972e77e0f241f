r"""The number that is explained, one per image.

For logits :math:`z` and class :math:`c` it is the softmax probability :math:`f_c = e^{z_c} / \sum_k e^{z_k}`
(I-GOS, RISE, deletion, insertion), the logit :math:`z_c` (the CAM family), or whatever a callable makes of the
model's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

ScoreKind: TypeAlias = Literal["probability", "logit"]
ScoreFunction: TypeAlias = Callable[[Any], Tensor]
Target: TypeAlias = int | Sequence[int] | Tensor | ScoreFunction | None


def logits_of(output: Any) -> Float[Tensor, "n classes"]:
    """The logits inside what a classifier returns: a tensor, a tuple or list that starts with one, ``.logits`` or a dict.

    Raises:
        TypeError: for anything else, naming the type.
    """
    if isinstance(output, Tensor):
        logits = output
    elif isinstance(getattr(output, "logits", None), Tensor):
        logits = output.logits
    elif isinstance(output, Mapping) and isinstance(output.get("logits", output.get("out")), Tensor):
        logits = output.get("logits", output.get("out"))
    elif isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        logits = output[0]
    else:
        raise TypeError(f"the model returned {type(output).__name__}, in which no logits were found; pass a callable target")
    if logits.ndim != 2:
        raise TypeError(f"the logits have shape {tuple(logits.shape)}, expected (images, classes); pass a callable target")
    return logits


@dataclass(frozen=True)
class Score:
    """A target made concrete: which class of which image, on which scale.

    Called with the model's output for some rows and the image that each row belongs to, it returns one number a row,
    in single precision or better.
    """

    kind: ScoreKind = "probability"
    classes: Int[Tensor, " n"] | None = None
    function: ScoreFunction | None = None

    def __call__(self, output: Any, index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The score of each row; ``index`` says which image a row was made from."""
        if self.function is not None:
            scores = self.function(output)
            if not isinstance(scores, Tensor) or scores.shape != index.shape:
                shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
                raise ValueError(f"the callable target returned {shape} for {len(index)} images; return one number per image")
            return at_least_single(scores)
        logits = at_least_single(logits_of(output))
        values = logits.softmax(dim=1) if self.kind == "probability" else logits
        assert self.classes is not None  # noqa: S101 - resolve() fills one of the two
        return values.gather(1, self.classes[index].unsqueeze(1)).squeeze(1)

    def of(self, images: Int[Tensor, " m"]) -> Score:
        """The score of some of the images, counted from 0 again."""
        return self if self.classes is None else replace(self, classes=self.classes[images])


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
        return Score(kind, function=target)
    logits = logits_of(output)
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
