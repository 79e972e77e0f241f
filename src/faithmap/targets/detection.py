r"""Target of a detector: how well it detects one box b (Petsiuk et al. 2021, "D-RISE", Eq. 2).

.. math:: y = \max_j \; IoU(b, b_j) \; s_j

over the detections with the label of the box. The paper compares class distributions by their cosine instead of labels.
Detectors such as torchvision's return one label per box, with one score for objectness and class together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.score import ImageTarget, at_least_single
from faithmap.targets.settings import Number, check_choice, check_counts, check_numbers, clean_outputs, count_of, rows_of

Overlap: TypeAlias = Literal["product", "best"]


@dataclass(frozen=True, eq=False)
class DetectionTarget(ImageTarget):
    """How well a detector detects one box; the model returns a dict of boxes, labels and scores for each image.

    The score is 0 if no detection with the label overlaps the box. The matching detection can differ from mask to mask, and
    detections below the threshold of the detector are not returned. Methods that need only scores (RISE, Occlusion) are
    therefore most suitable. In torchvision's detectors the score of a detection has a gradient to the features that it was
    pooled from, but not through the selection of the regions.

    Args:
        box: (x1, y1, x2, y2) in pixels of the model's input, for all images, or one per image as (n, 4).
        label: label of the detections that count; one for all images, or one for each image; None for any label.
        overlap: ``product``: the largest product of IoU and score over the detections, as in D-RISE. ``best``: the score of
            the detection with the largest IoU.
        minimum: smallest IoU of a detection that counts, in [0, 1).

    Raises:
        ValueError: for a box whose left is not less than its right, or its top not less than its bottom, a label below 0, an
            unknown overlap, or a minimum outside [0, 1).

    >>> detections = [{
    ...     "boxes": torch.tensor([[0.0, 0.0, 4.0, 4.0]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.9])
    ... }]
    >>> DetectionTarget((0, 0, 4, 2), label=1)(detections, torch.tensor([0]))  # IoU 0.5 times score 0.9
    tensor([0.4500])
    """

    box: Sequence[float] | Tensor
    label: Number | None = None
    overlap: Overlap = "product"
    minimum: float = 0.0

    def __post_init__(self) -> None:
        check_choice("overlap", self.overlap, Overlap)
        boxes = torch.as_tensor(self.box)
        if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4 or not bool((boxes[..., 2:] > boxes[..., :2]).all()):
            raise ValueError(f"box is {self.box!r}; give (x1, y1, x2, y2) with x1 < x2 and y1 < y2, or one for each image")
        if self.label is not None:
            check_numbers("label", self.label)
        if boxes.ndim == 2:
            check_counts(("label", count_of(self.label)), ("box", len(boxes)))
        if not 0 <= self.minimum < 1:
            raise ValueError(f"minimum is {self.minimum}; give an IoU of at least 0 and below 1")

    @classmethod
    def predicted(
        cls,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        rank: int = 0,
        *,
        overlap: Overlap = "product",
        minimum: float = 0.0,
        chunk_size: int = 8,
    ) -> Self:
        """A target for the box and label that the model detects on each clean image.

        Args:
            model: a detector that returns a dict with boxes, labels and scores for each image.
            images: the clean images, on the model's device.
            rank: of the detection by its score, from 0, the highest.
            overlap: as for the class.
            minimum: as for the class.
            chunk_size: maximum number of images in one pass.

        Raises:
            ValueError: if an image has no detection of that rank.
        """
        found = [one for output, _ in clean_outputs(model, images, chunk_size) for one in _detections(output)]
        for i, one in enumerate(found):
            if not 0 <= rank < len(one["scores"]):
                raise ValueError(f"image {i}: the model detects {len(one['scores'])} objects; there is none of rank {rank}")
        order = [one["scores"].argsort(descending=True)[rank] for one in found]
        boxes = torch.stack([one["boxes"][j] for one, j in zip(found, order, strict=True)])
        return cls(boxes, torch.stack([one["labels"][j] for one, j in zip(found, order, strict=True)]), overlap, minimum)

    @property
    def count(self) -> int | None:
        """Number of images that there are boxes or labels for; None if one is for all images."""
        boxes = torch.as_tensor(self.box)
        return len(boxes) if boxes.ndim == 2 else count_of(self.label)

    def __call__(self, output: Any, index: Int[Tensor, " m"], /) -> Float[Tensor, " m"]:
        """The score of each row."""
        boxes = torch.as_tensor(self.box, device=index.device)
        boxes = boxes.expand(len(index), -1) if boxes.ndim == 1 else boxes[index]
        labels = [None] * len(index) if self.label is None else rows_of(self.label, index).tolist()
        found = _detections(output)
        if len(found) != len(index):
            raise ValueError(
                f"the model returned detections of {len(found)} images for {len(index)}; give a detector's own output"
            )
        return torch.stack([self._of(*row) for row in zip(found, boxes, labels, strict=True)])

    def _of(self, found: Mapping[str, Tensor], box: Float[Tensor, " 4"], label: int | None) -> Float[Tensor, ""]:
        scores = at_least_single(found["scores"])
        shared = iou(at_least_single(found["boxes"]), box)
        counts = (shared > 0) & (shared >= self.minimum)
        counts = counts if label is None else counts & (found["labels"] == label)
        if not bool(counts.any()):
            return scores.sum() * 0  # with the graph, if there is one
        if self.overlap == "product":
            return (shared * scores)[counts].max()
        return scores[shared.where(counts, -1).argmax()]


def iou(boxes: Float[Tensor, "m 4"], box: Float[Tensor, " 4"]) -> Float[Tensor, " m"]:
    """Intersection over union of each box (x1, y1, x2, y2) with another box.

    >>> iou(torch.tensor([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]]), torch.tensor([1.0, 0.0, 3.0, 2.0]))
    tensor([0.3333, 0.0000])
    """
    box = box.to(boxes)
    inside = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp(min=0).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (box[2:] - box[:2]).prod()
    return inside / (areas - inside)


def _detections(output: Any) -> list[Mapping[str, Tensor]]:
    """One dict for each image.

    Raises:
        TypeError: for any other output.
    """
    keys = {"boxes", "labels", "scores"}
    if not isinstance(output, (list, tuple)) or not all(isinstance(one, Mapping) and keys <= one.keys() for one in output):
        raise TypeError(
            f"the model returned {type(output).__name__}, expected a list with boxes, labels and scores for each image, as "
            "torchvision's detectors give in evaluation mode"
        )
    return list(output)
