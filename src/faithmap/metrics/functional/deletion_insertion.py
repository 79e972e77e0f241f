r"""Deletion and insertion: the score as the most important cells are deleted from the image, or inserted into the baseline.

The cells of a heatmap are ranked, highest first. Deletion starts from the image and replaces the k first cells by a baseline;
insertion starts from the baseline and puts the k first cells back. The result is the area under the curve of the score against
the true fraction :math:`x = k / N`, both ends included, by the trapezoid rule (Petsiuk et al. 2018, RISE):

.. math:: A = \sum_i \tfrac12 (f_i + f_{i+1}) (x_{i+1} - x_i)

Equal cells are ranked in reading order, rows from the top, columns from the left: the sort is stable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.baselines import Baseline
from faithmap.explanation import Explanation
from faithmap.metrics.functional.curves import (
    DELETION,
    INSERTION,
    LEAST_FIRST,
    Curve,
    Progress,
    Protocol,
    ProtocolName,
    evaluate_curves,
)
from faithmap.score import Target


@dataclass(frozen=True, eq=False)
class DeletionInsertion:
    """Both curves of n images, with their protocol and the resolution that was ranked.

    Attributes:
        deletion: the score as the highest cells are removed first; a low area is good.
        insertion: the score as the highest cells are inserted first; a high area is good.
        protocol: baseline, steps and order of the test.
        resolution: (rows, columns) of the cells that were ranked.

    >>> fractions = torch.tensor([0.0, 0.5, 1.0])
    >>> falling, rising = Curve(fractions, torch.tensor([[1.0, 0.0, 0.0]])), Curve(fractions, torch.tensor([[0.0, 1.0, 1.0]]))
    >>> protocol = Protocol("mine", "cells", 2, "blur", "blur")
    >>> DeletionInsertion(falling, rising, protocol, (7, 7)).difference
    tensor([0.5000])
    """

    deletion: Curve
    insertion: Curve
    protocol: Protocol
    resolution: tuple[int, int]

    @property
    def difference(self) -> Float[Tensor, " n"]:
        """Insertion area minus deletion area: a map that scores well on only one of them does not score well here."""
        return self.insertion.area - self.deletion.area

    def __len__(self) -> int:
        return len(self.deletion.scores)

    def __getitem__(self, image: int) -> DeletionInsertion:
        """The curves of one image, still with a leading dimension of 1."""
        return replace(self, deletion=self.deletion.of(image), insertion=self.insertion.of(image))


@dataclass(frozen=True, eq=False)
class MostLeast:
    """Two deletion curves of n images: the most relevant cells first (MoRF), the least relevant first (LeRF) (Samek 2017).

    Attributes:
        most: the score as the highest cells are removed first.
        least: the score as the lowest cells are removed first.
        protocol: baseline, steps and order of the test.
        resolution: (rows, columns) of the cells that were ranked.

    >>> fractions = torch.tensor([0.0, 0.5, 1.0])
    >>> most, least = Curve(fractions, torch.tensor([[1.0, 0.0, 0.0]])), Curve(fractions, torch.tensor([[1.0, 1.0, 0.0]]))
    >>> MostLeast(most, least, Protocol("mine", "cells", 2, "blur", "blur"), (7, 7)).difference
    tensor([0.5000])
    """

    most: Curve
    least: Curve
    protocol: Protocol
    resolution: tuple[int, int]

    @property
    def difference(self) -> Float[Tensor, " n"]:
        """Area between the two curves; 0 in expectation for a random map."""
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
    """Evaluate the deletion curve and the insertion curve of each image's heatmap.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> images, heatmaps = torch.rand(2, 3, 4, 4), torch.rand(2, 2, 2)
    >>> curves = deletion_insertion(model, images, heatmaps)
    >>> curves.deletion.fractions, tuple(curves.difference.shape)
    (tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000]), (2,))

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is the score, one for all images or one for each, or a callable; None for
            the Explanation's target, or else the predicted class.
        protocol: the name of one of PROTOCOLS, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: for both curves; None for the protocol's baselines.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images).

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, an unknown protocol, or steps below 1.
    """
    (deletion, insertion), resolved, resolution = evaluate_curves(
        model,
        images,
        heatmaps,
        target,
        (DELETION, INSERTION),
        protocol=protocol,
        steps=steps,
        baseline=baseline,
        chunk_size=chunk_size,
        autocast=autocast,
        progress=progress,
    )
    return DeletionInsertion(deletion, insertion, resolved, resolution)


def deletion(
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
) -> Curve:
    """Evaluate the deletion curve of each image's heatmap.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> images, heatmaps = torch.rand(2, 3, 4, 4), torch.rand(2, 2, 2)
    >>> tuple(deletion(model, images, heatmaps).scores.shape)
    (2, 5)

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is the score, one for all images or one for each, or a callable; None for
            the Explanation's target, or else the predicted class.
        protocol: the name of one of PROTOCOLS, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: what deleted cells become; None for the protocol's baseline.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images).

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, an unknown protocol, or steps below 1.
    """
    (curve,), _, _ = evaluate_curves(
        model,
        images,
        heatmaps,
        target,
        (DELETION,),
        protocol=protocol,
        steps=steps,
        baseline=baseline,
        chunk_size=chunk_size,
        autocast=autocast,
        progress=progress,
    )
    return curve


def insertion(
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
) -> Curve:
    """Evaluate the insertion curve of each image's heatmap.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> images, heatmaps = torch.rand(2, 3, 4, 4), torch.rand(2, 2, 2)
    >>> tuple(insertion(model, images, heatmaps).scores.shape)
    (2, 5)

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is the score, one for all images or one for each, or a callable; None for
            the Explanation's target, or else the predicted class.
        protocol: the name of one of PROTOCOLS, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: what the image is before any cell is inserted; None for the protocol's baseline.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images).

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, an unknown protocol, or steps below 1.
    """
    (curve,), _, _ = evaluate_curves(
        model,
        images,
        heatmaps,
        target,
        (INSERTION,),
        protocol=protocol,
        steps=steps,
        baseline=baseline,
        chunk_size=chunk_size,
        autocast=autocast,
        progress=progress,
    )
    return curve


def most_least(
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
) -> MostLeast:
    """Evaluate deletion with the most relevant cells first, and with the least relevant cells first.

    Equal cells are ranked in reading order in both, so that a constant map deletes the same cells twice and has difference 0.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> images = torch.rand(2, 3, 4, 4)
    >>> most_least(model, images, torch.ones(2, 2, 2)).difference
    tensor([0., 0.])

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is the score, one for all images or one for each, or a callable; None for
            the Explanation's target, or else the predicted class.
        protocol: the name of one of PROTOCOLS, or a Protocol.
        steps: parts into which the ranking is divided, at least 1; None for the protocol's steps.
        baseline: what deleted cells become; None for the protocol's baseline.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images).

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, an unknown protocol, or steps below 1.
    """
    (most, least), resolved, resolution = evaluate_curves(
        model,
        images,
        heatmaps,
        target,
        (DELETION, LEAST_FIRST),
        protocol=protocol,
        steps=steps,
        baseline=baseline,
        chunk_size=chunk_size,
        autocast=autocast,
        progress=progress,
    )
    return MostLeast(most, least, resolved, resolution)
