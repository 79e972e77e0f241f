r"""Target of a segmentation model: the score of a class over a region R (Vinogradova et al. 2020, "Seg-Grad-CAM", Eq. 3).

.. math:: y = \frac{\sum_{ij} R_{ij} \, p_c(i, j)}{\sum_{ij} R_{ij}}

The paper sums logits. The default here is the mean: it is in [0, 1], and can be compared between regions of different sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.score import ImageTarget, at_least_single, tensor_in
from faithmap.targets.settings import (
    Number,
    check_choice,
    check_counts,
    check_numbers,
    clean_outputs,
    count_of,
    picked,
    rows_of,
)

PixelScale: TypeAlias = Literal["probability", "sigmoid", "logit"]


@dataclass(frozen=True, eq=False)
class SegmentationTarget(ImageTarget):
    """The score of one class over a region, of a model that returns (n, classes, h, w): a tensor, ``"out"`` or ``.logits``.

    Args:
        label: index of the class, from 0; one for all images, or one for each image.
        region: a mask, or weights of at least 0; (h, w) for all images or (n, h, w), at any resolution; None for the whole
            image.
        score: of each pixel: ``probability``, the softmax over the classes, or the sigmoid of a single class; ``sigmoid``, for
            independent classes; or ``logit``, which does not saturate and is suitable for class activation maps.
        reduce: ``mean`` or ``sum`` of the scores over the region.

    Raises:
        ValueError: for a label below 0, a region without a pixel, or an unknown score or reduction.

    >>> logits = torch.tensor([[[[0.0, 0.0]], [[1.0, 3.0]]]])  # one image, two classes, 1 x 2 pixels
    >>> SegmentationTarget(1, score="logit")(logits, torch.tensor([0]))
    tensor([2.])
    >>> SegmentationTarget(1, region=torch.tensor([[0.0, 1.0]]), score="logit")(logits, torch.tensor([0]))
    tensor([3.])
    """

    label: Number
    region: Tensor | None = None
    score: PixelScale = "probability"
    reduce: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        check_choice("score", self.score, PixelScale)
        check_choice("reduce", self.reduce, Literal["mean", "sum"])
        check_numbers("label", self.label)
        if self.region is None:
            return
        if self.region.ndim not in (2, 3) or 0 in self.region.shape:
            raise ValueError(f"region has shape {tuple(self.region.shape)}; give (h, w), or (images, h, w)")
        weights = self.region.double().reshape(-1, *self.region.shape[-2:])
        if not bool((weights >= 0).all()) or not bool((weights.sum(dim=(1, 2)) > 0).all()):
            raise ValueError(
                "a region holds no pixel, or weights that are negative or NaN; give a mask with at least one pixel"
            )
        if self.region.ndim == 3:
            check_counts(("label", count_of(self.label)), ("region", len(self.region)))

    @classmethod
    def predicted(
        cls,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        label: Number,
        *,
        score: PixelScale = "probability",
        reduce: Literal["mean", "sum"] = "mean",
        chunk_size: int = 8,
    ) -> Self:
        """A target for the region where the model predicts the class on each clean image.

        Args:
            model: a segmentation model.
            images: the clean images, on the model's device.
            label: index of the class; one for all images, or one for each image.
            score: as for the class.
            reduce: as for the class.
            chunk_size: maximum number of images in one pass.

        Raises:
            ValueError: if the model predicts the class at no pixel of an image.
        """
        found = []
        for output, index in clean_outputs(model, images, chunk_size):
            z = _class_logits(output)
            labels = rows_of(label, index).view(-1, 1, 1)
            single = z.shape[1] == 1 or score == "sigmoid"
            found.append(z[torch.arange(len(z)), labels.flatten()] > 0 if single else z.argmax(dim=1) == labels)
        region = torch.cat(found)
        for i in (~region.flatten(1).any(dim=1)).nonzero().flatten().tolist():
            raise ValueError(f"image {i}: the model predicts the class at no pixel; give another label, or a region")
        return cls(label, region, score, reduce)

    @property
    def count(self) -> int | None:
        """Number of images that there are regions or labels for; None if one is for all images."""
        return len(self.region) if self.region is not None and self.region.ndim == 3 else count_of(self.label)

    def __call__(self, output: Any, index: Int[Tensor, " m"], /) -> Float[Tensor, " m"]:
        """The score of each row."""
        z = _class_logits(output)
        labels = rows_of(self.label, index)
        if self.score == "probability" and z.shape[1] > 1:
            z = z.softmax(dim=1)
        elif self.score != "logit":
            z = z.sigmoid()
        values = picked(z, labels, "label").flatten(1)
        if self.region is None:
            return values.mean(dim=1) if self.reduce == "mean" else values.sum(dim=1)
        region = self.region.to(z.device)
        region = (region.expand(len(z), -1, -1) if region.ndim == 2 else region[index]).to(values.dtype)
        weights = F.interpolate(region.unsqueeze(1), z.shape[-2:], mode="area").flatten(1)
        total = (weights * values).sum(dim=1)
        return total / weights.sum(dim=1) if self.reduce == "mean" else total


def _class_logits(output: Any) -> Float[Tensor, "m k h w"]:
    """The logits of all classes at each pixel.

    Raises:
        TypeError: for an output of another shape.
    """
    z = at_least_single(tensor_in(output))
    if z.ndim != 4:
        raise TypeError(f"the model returned shape {tuple(z.shape)}, expected (images, classes, height, width)")
    return z
