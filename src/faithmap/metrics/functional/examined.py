"""What every metric that asks a model begins with: images, maps and target are checked, and the clean images scored once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.model import check_images, undisturbed
from faithmap.probe import clean_scores
from faithmap.score import Score, ScoreKind, Target


@dataclass(frozen=True, eq=False)
class Examined:
    """Images and their maps, fit for each other, and the score that they are judged by.

    Attributes:
        images: detached.
        explanation: of the same images; finite.
        score: of the target class.
        clean: the score of each clean image.
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
    def index(self) -> Tensor:
        """The number of each image."""
        return torch.arange(len(self.images), device=self.images.device)


@contextmanager
def examined(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target,
    *,
    kind: ScoreKind = "probability",
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
) -> Iterator[Examined]:
    """The model undisturbed inside the block, gradients enabled, and everything about its images known to fit.

    Args:
        model: as it was explained.
        images: as they were explained.
        heatmaps: a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: None for the Explanation's, else the predicted class.
        kind: probability or logit.
        chunk_size: images in one pass at the most.
        autocast: a lower precision for the model's passes.

    Raises:
        ValueError: for maps that do not fit the images or hold NaN, or a chunk size below 1.
    """
    check_images(model, images)
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; give at least 1")
    explanation = explained(heatmaps, images)
    with undisturbed(model):
        target = explanation.explained if target is None else target
        _, score, clean = clean_scores(model, images, target, kind, chunk_size, autocast)
        yield Examined(images.detach(), explanation, score, clean)


def explained(heatmaps: Explanation | Float[Tensor, "n r c"], images: Float[Tensor, "n c h w"]) -> Explanation:
    """The maps as an Explanation of these images.

    Raises:
        ValueError: for maps that do not fit the images, are finer than they, or hold NaN.
    """
    size = (images.shape[-2], images.shape[-1])
    values = heatmaps.heatmap if isinstance(heatmaps, Explanation) else heatmaps
    if values.ndim != 3 or len(values) != len(images):
        raise ValueError(f"heatmaps have shape {tuple(values.shape)} for {len(images)} images; give (images, rows, columns)")
    if any(cells > pixels for cells, pixels in zip(values.shape[-2:], size, strict=True)):
        raise ValueError(f"heatmaps of {tuple(values.shape[-2:])} are finer than the images of {size}")
    if not bool(values.isfinite().all()):
        raise ValueError("heatmaps hold NaN or infinite values, which rank nothing")
    if isinstance(heatmaps, Explanation):
        if heatmaps.image_size != size:
            raise ValueError(f"the heatmaps explain images of {heatmaps.image_size}, but these are of {size}; resize neither")
        return heatmaps
    return Explanation(heatmaps.detach(), size)
