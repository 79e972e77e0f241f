r"""Average drop, increase in confidence, average gain: the change of the score if the image is multiplied by its heatmap.

With :math:`I` the image in [0, 1] pixels, :math:`L` its heatmap scaled to [0, 1], :math:`Y` the score of the image and
:math:`O` the score of the explanation map :math:`L \circ I`, multiplied before any normalisation by the model,

.. math:: drop = 100 \, \frac{\max(0, Y - O)}{Y}, \qquad increase = 100 \cdot 1[Y < O], \qquad
          gain = 100 \, \frac{\max(0, O - Y)}{1 - Y}

in percent (drop and increase: Chattopadhay et al. 2018, "Grad-CAM++"; gain: Zhang et al. 2023, "Opti-CAM"). The averages of the
papers are means over a dataset. A map of ones has drop 0, increase 0 and gain 0: report the drop together with the other two.

The paper does not state how :math:`L` is scaled. Its authors' code clips negative values, divides by the maximum, and then
resamples the map to the image's size; so does this module. Libraries that first subtract the minimum hide the lowest cell
completely: ``scaling="min_max"``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.baselines import Constant
from faithmap.explanation import Explanation
from faithmap.metrics.functional.curves import prepared_inputs
from faithmap.probe import MaskProbe
from faithmap.score import Target, at_least_single

Scaling: TypeAlias = Literal["max", "min_max", "none"]


@dataclass(frozen=True, eq=False)
class Confidence:
    """Scores of n images, in [0, 1].

    >>> result = Confidence(clean=torch.tensor([0.5, 0.5, 0.0]), masked=torch.tensor([0.125, 1.0, 0.5]))
    >>> result.drop, result.increase, result.gain
    (tensor([75.,  0.,  0.]), tensor([  0., 100., 100.]), tensor([  0., 100.,  50.]))

    Attributes:
        clean: score Y of each clean image.
        masked: O, of each image multiplied by its heatmap.
    """

    clean: Float[Tensor, " n"]
    masked: Float[Tensor, " n"]

    @property
    def drop(self) -> Float[Tensor, " n"]:
        """Relative loss of the score, in percent; 0 if Y = 0."""
        return 100 * _ratio((self.clean - self.masked).clamp(min=0), self.clean)

    @property
    def increase(self) -> Float[Tensor, " n"]:
        """100 if the score increases, else 0."""
        return 100 * (self.masked > self.clean).to(self.clean.dtype)

    @property
    def gain(self) -> Float[Tensor, " n"]:
        """Gain of the score relative to the largest possible gain, 1 - Y, in percent; 0 if Y = 1."""
        return 100 * _ratio((self.masked - self.clean).clamp(min=0), 1 - self.clean)

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

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    >>> confidence(model, torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4)).drop.tolist()
    [0.0, 0.0]

    Args:
        model: the model that was explained: a Classifier, or a module that takes [0, 1] pixels, where 0 is black.
        images: the images that were explained.
        heatmaps: high where it matters; a tensor of the maps alone, or an Explanation, whose target is then the default.
        target: the class whose softmax probability is the score, or a callable that returns scores in [0, 1]; None for the
            Explanation's target, or else the predicted class.
        scaling: of each map, see :func:`scaled`.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, an unknown scaling, or scores outside [0, 1].
    """
    with prepared_inputs(model, images, heatmaps, target, chunk_size=chunk_size, autocast=autocast) as inputs:
        explanation = replace(inputs.explanation, heatmap=scaled(inputs.explanation.heatmap, scaling))
        black = Constant(0.0)(inputs.images)
        probe = MaskProbe(model, inputs.score, inputs.images, black, chunk_size=chunk_size, autocast=autocast)
        scores = probe.scores(explanation.at(inputs.size).to(images.dtype), inputs.index)
        # a map of ones changes nothing by definition, whatever the rounding
        scores = torch.where((explanation.heatmap == 1).all(dim=2).all(dim=1), inputs.clean, scores)
    both = torch.cat([inputs.clean, scores])
    if bool(((both < 0) | (both > 1)).any()):
        raise ValueError(f"scores range from {float(both.min()):.3g} to {float(both.max()):.3g}; give a target in [0, 1]")
    return Confidence(inputs.clean, scores)


def scaled(heatmap: Float[Tensor, "n r c"], scaling: Scaling = "max") -> Float[Tensor, "n r c"]:
    """Each map in [0, 1]: with "max", its positive part over its maximum; with "min_max", from its lowest cell to its highest.

    "none" does not scale a map in [0, 1]. A constant map has no range: with either scaling it becomes all ones if it is
    positive, since every cell then equals the highest, and otherwise all zeros.

    Raises:
        ValueError: for an unknown scaling, or values outside [0, 1] with "none".

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
            raise ValueError(f"heatmaps range from {float(low.min()):.3g} to {float(high.max()):.3g}; use another scaling")
        return heatmap
    least = torch.where(low < high, low, 0) if scaling == "min_max" else torch.zeros_like(low)
    return _ratio((heatmap - least).clamp(min=0), (high - least).clamp(min=0).expand_as(heatmap))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Part over whole; 0 if the whole is 0."""
    return torch.where(whole > 0, part / whole, 0)
