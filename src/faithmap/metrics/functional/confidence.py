r"""Average drop, increase in confidence, average gain: how the score moves when the heatmap alone decides what is shown.

With :math:`I` the image in [0, 1] pixels, :math:`L` its heatmap scaled to [0, 1], :math:`Y` the score of the image and
:math:`O` that of the explanation map :math:`L \circ I`, multiplied before any normalisation by the model,

.. math:: drop = 100 \, \frac{\max(0, Y - O)}{Y}, \qquad increase = 100 \cdot 1[Y < O], \qquad
          gain = 100 \, \frac{\max(0, O - Y)}{1 - Y}

in percent (drop and increase: Chattopadhay et al. 2018, "Grad-CAM++"; gain: Zhang et al. 2023, "Opti-CAM"). The
averages of the papers are means over a dataset. A map of ones has drop 0, as well as increase 0 and gain 0: the drop says
something together with the other two alone.

The paper does not say how :math:`L` is scaled. Its authors' code cuts negative values off, divides by the maximum, and then
brings the map to the image's size; so does this module. Libraries that subtract the minimum first hide the lowest cell
altogether: ``scaling="min_max"``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.baselines import Constant
from faithmap.explanation import Explanation
from faithmap.metrics.functional.examined import examined
from faithmap.probe import MaskedModel
from faithmap.score import Target, at_least_single

Scaling: TypeAlias = Literal["max", "min_max", "none"]


@dataclass(frozen=True, eq=False)
class Confidence:
    """Scores of n images, in [0, 1].

    Attributes:
        clean: Y, of each image as it is.
        masked: O, of each image under its heatmap.
    """

    clean: Float[Tensor, " n"]
    masked: Float[Tensor, " n"]

    @property
    def drop(self) -> Float[Tensor, " n"]:
        """What part of the score is lost, in percent; 0 where there is none to lose (Y = 0).

        >>> Confidence(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.125, 1.0, 0.5])).drop
        tensor([75.,  0.,  0.])
        """
        return 100 * _share((self.clean - self.masked).clamp(min=0), self.clean)

    @property
    def increase(self) -> Float[Tensor, " n"]:
        """100 where the score rises, else 0.

        >>> Confidence(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.25, 0.5, 0.75])).increase
        tensor([  0.,   0., 100.])
        """
        return 100 * (self.masked > self.clean).to(self.clean.dtype)

    @property
    def gain(self) -> Float[Tensor, " n"]:
        """What part of the missing score is won, in percent; 0 where none is missing (Y = 1).

        >>> Confidence(torch.tensor([0.5, 0.5, 1.0]), torch.tensor([0.25, 0.75, 0.5])).gain
        tensor([ 0., 50.,  0.])
        """
        return 100 * _share((self.masked - self.clean).clamp(min=0), 1 - self.clean)

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, image: int) -> Confidence:
        """The scores of one image, still with a leading dimension of 1."""
        return Confidence(self.clean[image].unsqueeze(0), self.masked[image].unsqueeze(0))


def confidence(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    *,
    scaling: Scaling = "max",
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
) -> Confidence:
    """The score of each image, and of each image multiplied by its heatmap.

    Args:
        model: as it was explained; a Classifier, or a module that takes [0, 1] pixels, where 0 is black.
        images: as they were explained.
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is meant; None for the Explanation's, else the predicted class. A callable
            has to return scores in [0, 1].
        scaling: of each map, as for :func:`scaled`.
        chunk_size: images in one pass at the most.
        autocast: a lower precision for the model's passes.

    Raises:
        ValueError: for maps that do not fit the images or hold NaN, an unknown scaling, or scores outside [0, 1].
    """
    with examined(model, images, heatmaps, target, chunk_size=chunk_size, autocast=autocast) as case:
        why = replace(case.explanation, heatmap=scaled(case.explanation.heatmap, scaling))
        masked = MaskedModel(
            model, case.score, case.images, Constant(0.0)(case.images), chunk_size=chunk_size, autocast=autocast
        )
        scores = masked.scores(why.at(case.size).to(images.dtype), case.index)
        # a map of ones hides nothing: by definition, and not by the luck of rounding
        scores = torch.where((why.heatmap == 1).all(dim=2).all(dim=1), case.clean, scores)
    reach = torch.cat([case.clean, scores])
    if bool(((reach < 0) | (reach > 1)).any()):
        raise ValueError(f"scores reach from {float(reach.min()):.3g} to {float(reach.max()):.3g}; give one in [0, 1]")
    return Confidence(case.clean, scores)


def scaled(heatmap: Float[Tensor, "n r c"], scaling: Scaling = "max") -> Float[Tensor, "n r c"]:
    """Each map in [0, 1]: with "max", its positive part over its maximum; with "min_max", from its lowest cell to its highest.

    "none" leaves a map that is in [0, 1] as it is. A constant map has no range. In either scaling it becomes all ones if it is
    positive, since every cell is then as high as the highest, and else all zeros.

    Raises:
        ValueError: for an unknown scaling, or values outside [0, 1] that are to stay.

    >>> scaled(torch.tensor([[[-1.0, 1.0, 4.0]]]))
    tensor([[[0.0000, 0.2500, 1.0000]]])
    >>> scaled(torch.tensor([[[-1.0, 1.0, 4.0]]]), "min_max")
    tensor([[[0.0000, 0.4000, 1.0000]]])
    """
    if scaling not in get_args(Scaling):
        raise ValueError(f"scaling {scaling!r} is unknown; give one of {', '.join(get_args(Scaling))}")
    heatmap = at_least_single(heatmap)
    low, high = heatmap.amin(dim=(1, 2), keepdim=True), heatmap.amax(dim=(1, 2), keepdim=True)
    if scaling == "none":
        if bool((low < 0).any() | (high > 1).any()):
            raise ValueError(f"heatmaps reach from {float(low.min()):.3g} to {float(high.max()):.3g}; let them be scaled")
        return heatmap
    least = torch.where(low < high, low, 0) if scaling == "min_max" else torch.zeros_like(low)
    return _share((heatmap - least).clamp(min=0), (high - least).clamp(min=0).expand_as(heatmap))


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Part of a whole, 0 of nothing."""
    return torch.where(whole > 0, part / whole, 0)
