r"""Guided backpropagation and DeconvNet: the gradient, with another derivative of ReLU.

With :math:`g` the gradient with respect to the output of :math:`\max(0, x)`, the gradient with respect to x is

=========  ==========================================  ===================================
gradient   :math:`g \, [x > 0]`
guided     :math:`\max(0, g) \, [x > 0]`               Springenberg 2015
DeconvNet  :math:`\max(0, g)`                          Zeiler and Fergus 2014
=========  ==========================================  ===================================

The maps are sharp, but depend little on the class and on the upper layers (Adebayo et al. 2018; Nie et al. 2018). Use them as
controls rather than as explanations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from faithmap.methods.base import Passes
from faithmap.methods.captum_methods.base import CaptumExplainer, captum, check_same, counted_model, rows_of, silent
from faithmap.methods.captum_methods.calls import CURVED, Call, bounds
from faithmap.methods.captum_methods.stages import Staged, StatelessPlan
from faithmap.methods.gradients.gradient import ImageChunk


class _Below(nn.Module):
    """The minimum of its input and a number, with the usual derivative."""

    def __init__(self, high: float) -> None:
        super().__init__()
        self.high = high

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.high)


class Rectifiers(StatelessPlan):
    """Sends rectifiers to stages; ReLU6 becomes a ReLU and a minimum with 6."""

    def takes(self, call: Call) -> bool:
        """Whether this is a rectifier; raises ValueError for another activation in its place."""
        if call.name in CURVED:
            raise ValueError(
                f"the model has {call.name} where this method needs ReLU: only the derivative of ReLU is changed, "
                "and the map would be nearly the gradient; give another method"
            )
        return bounds(call) is not None

    def stage(self, call: Call) -> nn.Module:
        """An ``nn.ReLU``, on which captum sets its hook."""
        found = bounds(call)
        assert found is not None  # noqa: S101 - takes() refuses all others
        return nn.ReLU() if found[1] is None else nn.Sequential(nn.ReLU(), _Below(found[1]))


@dataclass(eq=False)
class ModifiedGradient(CaptumExplainer):
    """Base of guided backpropagation and DeconvNet."""

    library: ClassVar[str]
    """The name of the class in captum."""

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One for the target, one that finds the rectifiers, and one with its gradient."""
        del image
        return Passes(3, 1)

    def attribute(self, chunk: ImageChunk) -> Float[Tensor, "m c h w"]:
        """One gradient for each image, after a pass that finds the rectifiers."""
        score, model = chunk.probe.score, counted_model(chunk, self.model)
        staged = Staged(model, Rectifiers(), lambda output: score(output, rows_of(chunk, len(chunk.images))))
        check_same(chunk, score(staged.record(chunk.images), chunk.numbers))
        if not staged.names:
            raise ValueError("the model has no ReLU, whose derivative this method changes; give another method")
        with silent():
            gradient: Tensor = getattr(captum(), self.library)(staged).attribute(chunk.images.detach().clone().requires_grad_())
        chunk.probe.count_backward(chunk.numbers)
        return gradient.detach()


@dataclass(eq=False)
class GuidedBackprop(ModifiedGradient):
    """Guided backpropagation (Springenberg et al. 2015).

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())
    >>> GuidedBackprop(model)(torch.tensor([[[[0.2, 0.8]]]]), 1).heatmap
    tensor([[[0., 1.]]])
    """

    title: ClassVar[str] = "guided backprop"
    library: ClassVar[str] = "GuidedBackprop"


@dataclass(eq=False)
class DeconvNet(ModifiedGradient):
    """DeconvNet (Zeiler and Fergus 2014), as a gradient: max pooling keeps the switches of the forward pass.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())
    >>> DeconvNet(model)(torch.tensor([[[[0.2, 0.8]]]]), 1).heatmap
    tensor([[[0., 1.]]])
    """

    title: ClassVar[str] = "DeconvNet"
    library: ClassVar[str] = "Deconvolution"
