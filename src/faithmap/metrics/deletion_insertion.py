r"""Deletion and insertion: does the score fall when the most important cells go, and rise when only they come?

The cells of a heatmap are ranked, highest first. Deletion shows the image and replaces the k first cells by a baseline;
insertion shows the baseline and puts the k first cells back. The answer is the area under the curve of the score against
the true fraction :math:`x = k / N`, both ends in, by the trapezoid rule:

.. math:: A = \sum_i \tfrac12 (f_i + f_{i+1}) (x_{i+1} - x_i)

Equal cells are ranked in reading order, rows from the top, columns from the left: the sort is stable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.baselines import Baseline, Blur, make_baseline
from faithmap.explanation import Explanation
from faithmap.masking import MaskedModel, clean_scores
from faithmap.model import check_images, normalised_zero, undisturbed
from faithmap.score import Score, Target

ProtocolName: TypeAlias = Literal["igos", "rise"]


@dataclass(frozen=True)
class Protocol:
    """How the game is played. Scores of different protocols or resolutions cannot be compared.

    Attributes:
        name: stands with every result.
        unit: what is ranked: the cells of a mask of the heatmap's own resolution, upsampled bilinearly, or pixels. A heatmap
            whose cells stand elsewhere than a mask's is resampled there first.
        steps: parts into which the ranking is cut; None takes one part for each row of pixels (224 pixels at 224 x 224).
        deletion_baseline: what deleted cells become; "zero" is 0 in the model's normalised space, and stands in a result as the
            constant that this is in pixels.
        insertion_baseline: what is shown before any cell is.
    """

    name: str
    unit: Literal["cells", "pixels"]
    steps: int | None
    deletion_baseline: Baseline
    insertion_baseline: Baseline


PROTOCOLS = {
    "igos": Protocol("igos", "cells", 50, "blur", "blur"),
    "rise": Protocol("rise", "pixels", None, "zero", Blur(kernel_size=11, sigma=5.0)),
}
"""``igos``: one heavy blur for both games. ``rise`` (Petsiuk 2018): grey for deletion, a light blur for insertion."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The score of each image against the fraction of cells played.

    Attributes:
        fractions: from 0 to 1.
        scores: one row an image.
    """

    fractions: Float[Tensor, " k"]
    scores: Float[Tensor, "n k"]

    @property
    def area(self) -> Float[Tensor, " n"]:
        """Under each image's curve, by the trapezoid rule.

        >>> Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[1.0, 0.0, 0.0]])).area
        tensor([0.2500])
        """
        return torch.trapezoid(self.scores, self.fractions, dim=1)

    def of(self, image: int) -> Curve:
        """The curve of one image, still with a leading dimension of 1."""
        return replace(self, scores=self.scores[image].unsqueeze(0))


@dataclass(frozen=True, eq=False)
class DeletionInsertion:
    """Both curves of n images, and under which protocol and at which resolution they were played."""

    deletion: Curve
    insertion: Curve
    protocol: Protocol
    resolution: tuple[int, int]

    @property
    def difference(self) -> Float[Tensor, " n"]:
        """Insertion minus deletion area: one number in which neither game can be won alone."""
        return self.insertion.area - self.deletion.area

    def __len__(self) -> int:
        return len(self.deletion.scores)

    def __getitem__(self, image: int) -> DeletionInsertion:
        """The curves of one image, still with a leading dimension of 1."""
        return replace(self, deletion=self.deletion.of(image), insertion=self.insertion.of(image))


def deletion_insertion(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    *,
    protocol: ProtocolName | Protocol = "igos",
    steps: int | None = None,
    baseline: Baseline | None = None,
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DeletionInsertion:
    """Play both games with each image's heatmap.

    Args:
        model: as it was explained.
        images: as they were explained.
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is followed; None for the Explanation's, else the predicted class.
        protocol: by name, or one of your own.
        steps: parts into which the ranking is cut, instead of the protocol's.
        baseline: for both games, instead of the protocol's.
        chunk_size: images in one pass at the most.
        autocast: a lower precision for the model's passes.
        progress: called with (images done, images in all).

    Raises:
        ValueError: for maps that do not fit the images or hold NaN, an unknown protocol, or no steps.
    """
    check_images(model, images)
    explanation = heatmaps if isinstance(heatmaps, Explanation) else Explanation(heatmaps, _size(images))
    rules = _rules(protocol, steps, baseline, model)
    ranked = explanation.cells if rules.unit == "cells" else explanation.at(_size(images))
    _check_maps(ranked, images)
    counts = _counts(ranked[0].numel(), rules.steps or images.shape[-2])
    target = explanation.target if target is None else target
    played = []
    with undisturbed(model):
        _, score, _ = clean_scores(model, images, target, "probability", chunk_size, autocast)
        for part in torch.arange(len(images), device=images.device).split(chunk_size):
            game = _Game(model, score.of(part), images[part].detach(), ranks(ranked[part]), counts, chunk_size, autocast)
            played.append(
                torch.stack([game.play(rules.deletion_baseline, "deletion"), game.play(rules.insertion_baseline, "insertion")])
            )
            if progress is not None:
                progress(int(part[-1]) + 1, len(images))
    fractions = (counts.double() / ranked[0].numel()).to(played[0].dtype)
    deletion, insertion = torch.cat(played, dim=1)
    return DeletionInsertion(
        Curve(fractions, deletion), Curve(fractions, insertion), rules, (ranked.shape[-2], ranked.shape[-1])
    )


def ranks(heatmap: Float[Tensor, "n r c"]) -> Int[Tensor, "n r c"]:
    """Place of each cell in its map's order, 0 for the highest; equal cells in reading order.

    >>> ranks(torch.tensor([[[1.0, 3.0], [3.0, 2.0]]]))
    tensor([[[3, 0],
             [1, 2]]])
    """
    order = heatmap.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(heatmap.shape)


@dataclass
class _Game:
    """A few images, ready to be played."""

    model: nn.Module
    score: Score
    images: Float[Tensor, "n c h w"]
    ranks: Int[Tensor, "n r c"]
    counts: Int[Tensor, " k"]
    chunk_size: int
    autocast: torch.dtype | None

    def play(self, baseline: Baseline, game: Literal["deletion", "insertion"]) -> Float[Tensor, "n k"]:
        """The score of every image after every count of cells."""
        made = make_baseline(baseline, self.images)
        masked = MaskedModel(self.model, self.score, self.images, made, self.chunk_size, self.autocast)
        questions = torch.cartesian_prod(torch.arange(len(self.images), device=self.counts.device), self.counts)
        scores = []
        for index, count in (chunk.T for chunk in questions.split(self.chunk_size)):
            inserted = self.ranks[index] < count.view(-1, 1, 1)
            mask = inserted if game == "insertion" else ~inserted
            scores.append(masked.scores(mask.to(self.images.dtype), index))
        return torch.cat(scores).view(len(self.images), len(self.counts))


def _rules(protocol: ProtocolName | Protocol, steps: int | None, baseline: Baseline | None, model: nn.Module) -> Protocol:
    if isinstance(protocol, str) and protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r} is unknown; give one of {', '.join(PROTOCOLS)}, or a Protocol")
    rules = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}; give at least 1")
    rules = rules if steps is None else replace(rules, steps=steps)
    shown = (rules.deletion_baseline, rules.insertion_baseline) if baseline is None else (baseline, baseline)
    deletion, insertion = (normalised_zero(model) if isinstance(b, str) and b == "zero" else b for b in shown)
    return replace(rules, deletion_baseline=deletion, insertion_baseline=insertion)


def _check_maps(ranked: Tensor, images: Tensor) -> None:
    if ranked.ndim != 3 or len(ranked) != len(images):
        raise ValueError(f"heatmaps have shape {tuple(ranked.shape)} for {len(images)} images; give (images, rows, columns)")
    if any(cells > pixels for cells, pixels in zip(ranked.shape[-2:], images.shape[-2:], strict=True)):
        raise ValueError(f"heatmaps of {tuple(ranked.shape[-2:])} are finer than the images of {tuple(images.shape[-2:])}")
    if not bool(ranked.isfinite().all()):
        raise ValueError("heatmaps hold NaN or infinite values, which rank nothing")


def _counts(cells: int, steps: int) -> Int[Tensor, " k"]:
    """Exact numbers of cells, from none to all."""
    return torch.linspace(0, cells, min(steps, cells) + 1, dtype=torch.float64).round().long()


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
