r"""Weightings: how gradients become the weights :math:`w` of a map :math:`\sum_k w_k A^k`.

With :math:`g = \partial y / \partial A` at the target layer, :math:`ij` its cells, and :math:`\overline{\,\cdot\,}` the mean
over them:

=================  =============================================================================  ==========================
grad_cam           :math:`w_k = \overline{g^k}`                                                   Selvaraju 2017, Eq. 1
grad_cam_plus_plus :math:`w_k = \sum_{ij} \alpha^k_{ij} \, relu(g^k_{ij})`                        Chattopadhay 2018, Eqs. 6, 19
xgrad_cam          :math:`w_k = \sum_{ij} g^k_{ij} A^k_{ij} / \sum_{ij} A^k_{ij}`                 Fu 2020, Eq. 8
layer_cam          :math:`w^k_{ij} = relu(g^k_{ij})`                                              Jiang 2021, Eq. 7
hires_cam          :math:`w^k_{ij} = g^k_{ij}`                                                    Draelos 2020, Eq. 4
element_wise       :math:`w^k_{ij} = g^k_{ij}` where :math:`g^k_{ij} A^k_{ij} > 0`, else 0        grad-cam's own
=================  =============================================================================  ==========================

Any weighting takes the gradients of any estimator (:mod:`faithmap.methods.cams.estimators`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Evidence:
    """Activation and gradient that weights are made of: of one pass, or means over many.

    Attributes:
        activation: the activation A, which the weights multiply.
        gradient: the gradient g, or its mean over many passes.
        mean_square: mean of the squares of g; None for one pass, where it is the square of g.
        mean_cube: mean of the cubes of g; None for one pass, where it is the cube of g.
        channel_changes: D of each pass, times the root of its weight in the mean; None if the weighting does not need it.
        score_changes: r of each pass, likewise.

    >>> import torch
    >>> Evidence(torch.ones(1, 1, 1, 2), gradient=torch.tensor([[[[2.0, 3.0]]]])).square
    tensor([[[[4., 9.]]]])
    """

    activation: Float[Tensor, "n k h w"]
    gradient: Float[Tensor, "n k h w"]
    mean_square: Float[Tensor, "n k h w"] | None = None
    mean_cube: Float[Tensor, "n k h w"] | None = None
    channel_changes: Float[Tensor, "n s k"] | None = None
    score_changes: Float[Tensor, "n s"] | None = None

    @property
    def square(self) -> Float[Tensor, "n k h w"]:
        """The square of g, or the mean of the squares."""
        return self.gradient.square() if self.mean_square is None else self.mean_square

    @property
    def cube(self) -> Float[Tensor, "n k h w"]:
        """The cube of g, or the mean of the cubes."""
        return self.gradient.pow(3) if self.mean_cube is None else self.mean_cube


Weighting: TypeAlias = Callable[[Evidence], Float[Tensor, "n k #h #w"]]
"""From evidence to weights, one per channel (n, k, 1, 1) or one per cell."""

WeightingName: TypeAlias = Literal[
    "grad_cam", "grad_cam_plus_plus", "xgrad_cam", "layer_cam", "hires_cam", "element_wise", "least_infidelity"
]
"""Those below, and the one of :mod:`faithmap.methods.cams.least_infidelity`."""


def grad_cam(evidence: Evidence) -> Float[Tensor, "n k 1 1"]:
    """The mean gradient of each channel."""
    return evidence.gradient.mean(dim=(2, 3), keepdim=True)


def grad_cam_plus_plus(evidence: Evidence) -> Float[Tensor, "n k 1 1"]:
    r"""Positive gradients, weighted so that an object's size does not matter.

    The paper explains :math:`e^y`, whose derivatives are powers of g times :math:`e^y`:

    .. math:: \alpha = \frac{g^2}{2 g^2 + \sum_{ij} A_{ij} \, g^3}

    The factor :math:`e^y` scales the whole map of an image and is left out. Where g is 0, so is :math:`\alpha`. Smooth
    Grad-CAM++ (Omeiza 2019) replaces g and its powers by their means over noisy images.
    """
    square = evidence.square
    denominator = 2 * square + evidence.activation.sum(dim=(2, 3), keepdim=True) * evidence.cube
    alpha = (square / denominator).where(denominator != 0, 0)
    return (alpha * evidence.gradient.relu()).sum(dim=(2, 3), keepdim=True)


def xgrad_cam(evidence: Evidence) -> Float[Tensor, "n k 1 1"]:
    """The mean gradient of each channel, weighted by the activation of the cells; 0 for a channel that sums to 0."""
    total = evidence.activation.sum(dim=(2, 3), keepdim=True)
    product = (evidence.gradient * evidence.activation).sum(dim=(2, 3), keepdim=True)
    return (product / total).where(total != 0, 0)


def layer_cam(evidence: Evidence) -> Float[Tensor, "n k h w"]:
    """Each cell's own gradient where it is positive."""
    return evidence.gradient.relu()


def hires_cam(evidence: Evidence) -> Float[Tensor, "n k h w"]:
    """Each cell's own gradient."""
    return evidence.gradient


def element_wise(evidence: Evidence) -> Float[Tensor, "n k h w"]:
    """Each cell's own gradient where its product with the activation is positive."""
    return evidence.gradient.where(evidence.gradient * evidence.activation > 0, 0)


WEIGHTINGS: Mapping[WeightingName, Weighting] = MappingProxyType(
    {
        "grad_cam": grad_cam,
        "grad_cam_plus_plus": grad_cam_plus_plus,
        "xgrad_cam": xgrad_cam,
        "layer_cam": layer_cam,
        "hires_cam": hires_cam,
        "element_wise": element_wise,
    }
)

FIRST_ORDER: frozenset[Weighting] = frozenset({grad_cam, xgrad_cam, layer_cam, hires_cam, element_wise})
"""The weightings that need no powers of the gradient."""


def needs_changes(weighting: Weighting) -> bool:
    """Whether a weighting reads the changes of single passes, besides the gradients."""
    return bool(getattr(weighting, "needs_changes", False))
