r"""Deletion and insertion: does the score fall when the most important cells go, and rise when only they come?

The cells of a heatmap are ranked, highest first. Deletion shows the image and replaces the k first cells by a baseline;
insertion shows the baseline and puts the k first cells back. The answer is the area under the curve of the score against
the true fraction :math:`x = k / N`, both ends in, by the trapezoid rule:

.. math:: A = \sum_i \tfrac12 (f_i + f_{i+1}) (x_{i+1} - x_i)

Equal cells are ranked in reading order, rows from the top, columns from the left: the sort is stable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.baselines import Baseline
from faithmap.explanation import Explanation
from faithmap.metrics.functional.games import DELETION, INSERTION, LEAST_FIRST, Game, GameSettings, Progress
from faithmap.metrics.functional.protocols import Curve, Protocol, ProtocolName
from faithmap.score import Target


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


@dataclass(frozen=True, eq=False)
class MostLeast:
    """Two deletion curves of n images: the most relevant cells first (MoRF), the least relevant first (LeRF) (Samek 2017)."""

    most: Curve
    least: Curve
    protocol: Protocol
    resolution: tuple[int, int]

    @property
    def difference(self) -> Float[Tensor, " n"]:
        """The area between the two: how much more the most relevant cells take from the score than the least; 0 by chance."""
        return self.least.area - self.most.area


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
    progress: Progress | None = None,
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
    game = Game(protocol, steps, baseline, chunk_size, autocast, progress)
    (deletion, insertion), rules, resolution = game.play(model, images, heatmaps, target, (DELETION, INSERTION))
    return DeletionInsertion(deletion, insertion, rules, resolution)


def deletion(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    **settings: Unpack[GameSettings],
) -> Curve:
    """Deletion alone; everything as in :func:`deletion_insertion`."""
    return Game(**settings).play(model, images, heatmaps, target, (DELETION,))[0][0]


def insertion(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    **settings: Unpack[GameSettings],
) -> Curve:
    """Insertion alone; everything as in :func:`deletion_insertion`."""
    return Game(**settings).play(model, images, heatmaps, target, (INSERTION,))[0][0]


def most_least(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    **settings: Unpack[GameSettings],
) -> MostLeast:
    """Delete the most relevant cells first, and the least relevant first; everything as in :func:`deletion_insertion`.

    Equal cells are ranked in reading order in both, so that a constant map deletes the same cells twice and scores 0.
    """
    (most, least), rules, resolution = Game(**settings).play(model, images, heatmaps, target, (DELETION, LEAST_FIRST))
    return MostLeast(most, least, rules, resolution)
