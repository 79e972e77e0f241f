r"""Targets of models whose outputs are independent numbers: several labels, one logit, or regression values.

:multi-label: :math:`\sigma(z_c)` of label c.
:binary: :math:`\sigma(z)` of the only logit; :math:`\sigma(-z)` for the negative class.
:regression: one of the outputs, or its negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.score import ImageTarget, at_least_single, logits_of
from faithmap.targets.settings import Number, check_choice, check_numbers, columns_of, count_of, picked, rows_of

Scale: TypeAlias = Literal["probability", "logit"]


@dataclass(frozen=True, eq=False)
class MultiLabelTarget(ImageTarget):
    """The sigmoid of one label of a multi-label classifier.

    Args:
        label: index of the label, from 0; one for all images, or one for each image.
        score: ``probability``, the sigmoid, in [0, 1]; or ``logit``, its argument.

    >>> MultiLabelTarget([0, 1])(torch.tensor([[0.0, 9.0], [9.0, 0.0]]), torch.tensor([0, 1]))
    tensor([0.5000, 0.5000])
    """

    label: Number
    score: Scale = "probability"

    def __post_init__(self) -> None:
        check_choice("score", self.score, Scale)
        check_numbers("label", self.label)

    @property
    def count(self) -> int | None:
        """Number of images that there are labels for; None if one is for all images."""
        return count_of(self.label)

    def __call__(self, output: Any, index: Int[Tensor, " m"], /) -> Float[Tensor, " m"]:
        """The score of each row."""
        logit = picked(at_least_single(logits_of(output)), rows_of(self.label, index), "label")
        return logit.sigmoid() if self.score == "probability" else logit


@dataclass(frozen=True, eq=False)
class BinaryTarget(ImageTarget):
    """One of the two classes of a model that returns a single logit, (n, 1) or (n,).

    Args:
        positive: True for the class of high logits, False for the other class.
        score: ``probability``, in [0, 1], or ``logit``.

    >>> BinaryTarget(positive=[True, False])(torch.tensor([[2.0], [2.0]]), torch.tensor([0, 1]))
    tensor([0.8808, 0.1192])
    """

    positive: bool | Sequence[bool] | Tensor = True
    score: Scale = "probability"

    def __post_init__(self) -> None:
        check_choice("score", self.score, Scale)
        values = torch.as_tensor(self.positive)
        if values.dtype != torch.bool or values.ndim > 1:
            raise ValueError(f"positive is {self.positive!r}; give True or False, for all images or for each")

    @property
    def count(self) -> int | None:
        """Number of images that there are classes for; None if one is for all images."""
        return count_of(self.positive)

    def __call__(self, output: Any, index: Int[Tensor, " m"], /) -> Float[Tensor, " m"]:
        """The score of each row."""
        logits = columns_of(output)
        if logits.shape[1] != 1:
            raise ValueError(f"the model returns {logits.shape[1]} numbers per image, not a single logit; give a class instead")
        positive = rows_of(self.positive, index)
        logit = torch.where(positive, logits[:, 0], -logits[:, 0])
        return logit.sigmoid() if self.score == "probability" else logit


@dataclass(frozen=True, eq=False)
class RegressionTarget(ImageTarget):
    """One of the numbers that a model returns for an image, in an output of shape (n, k) or (n,).

    Args:
        output: index of the number, from 0; one index for all images, or one for each image.
        sign: 1, or -1 to explain the negative of the number.

    Raises:
        ValueError: for an index below 0, or another sign.

    >>> RegressionTarget(1, sign=-1)(torch.tensor([[0.2, 3.0]]), torch.tensor([0]))
    tensor([-3.])
    """

    output: Number = 0
    sign: Literal[1, -1] = 1

    def __post_init__(self) -> None:
        check_numbers("output", self.output)
        if self.sign not in (1, -1):
            raise ValueError(f"sign is {self.sign!r}; give 1, or -1 to explain the negative of the output")

    @property
    def count(self) -> int | None:
        """Number of images that there are outputs for; None if one is for all images."""
        return count_of(self.output)

    def __call__(self, output: Any, index: Int[Tensor, " m"], /) -> Float[Tensor, " m"]:
        """The score of each row."""
        return self.sign * picked(columns_of(output), rows_of(self.output, index), "output")
