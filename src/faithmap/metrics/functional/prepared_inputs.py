"""Prepared inputs: the checks that every metric begins with, and the scores of the clean images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.model import check_images, undisturbed
from faithmap.probe import clean_scores
from faithmap.score import Score, ScoreKind, Target


@dataclass(frozen=True, eq=False)
class PreparedInputs:
    """Images, their heatmaps, and the score that evaluates them.

    Attributes:
        images: detached.
        explanation: of the same images, with finite heatmaps.
        score: of the target.
        clean: score of each clean image.
    """

    images: Float[Tensor, "n c h w"]
    explanation: Explanation
    score: Score
    clean: Float[Tensor, " n"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def index(self) -> Int[Tensor, " n"]:
        """The indices of all images."""
        return torch.arange(len(self.images), device=self.images.device)


@contextmanager
def prepared_inputs(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target,
    *,
    kind: ScoreKind = "probability",
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
) -> Iterator[PreparedInputs]:
    """Check the inputs of a metric and score the clean images; inside the block the model is in evaluation mode.

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: None for the Explanation's target, or else the predicted class.
        kind: of a class's score: probability or logit.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, or a chunk size below 1.
    """
    check_images(model, images)
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; give at least 1")
    explanation = as_explanation(heatmaps, images)
    with undisturbed(model):
        target = explanation.explained if target is None else target
        _, score, clean = clean_scores(model, images, target, kind, chunk_size, autocast)
        yield PreparedInputs(images.detach(), explanation, score, clean)


def as_explanation(heatmaps: Explanation | Float[Tensor, "n r c"], images: Float[Tensor, "n c h w"]) -> Explanation:
    """The heatmaps as an Explanation of these images.

    Raises:
        ValueError: for maps that do not fit the images, have more cells than pixels along an axis, or contain NaN.
    """
    size = (images.shape[-2], images.shape[-1])
    values = heatmaps.heatmap if isinstance(heatmaps, Explanation) else heatmaps
    if values.ndim != 3 or len(values) != len(images):
        raise ValueError(f"heatmaps have shape {tuple(values.shape)} for {len(images)} images; give (images, rows, columns)")
    if any(cells > pixels for cells, pixels in zip(values.shape[-2:], size, strict=True)):
        raise ValueError(f"heatmaps of {tuple(values.shape[-2:])} are finer than the images of {size}")
    if not bool(values.isfinite().all()):
        raise ValueError("heatmaps contain NaN or infinite values, which have no rank")
    if isinstance(heatmaps, Explanation):
        if heatmaps.image_size != size:
            raise ValueError(f"the heatmaps explain images of {heatmaps.image_size}, but these are of {size}; resize neither")
        return heatmaps
    return Explanation(heatmaps.detach(), size)
