r"""Guided backpropagation and DeconvNet: the gradient, with another derivative of the rectifiers.

With :math:`g` the gradient that comes from above to :math:`\max(0, x)`, what goes on below is

=========  ==========================================  ===================================
gradient   :math:`g \, [x > 0]`
guided     :math:`\max(0, g) \, [x > 0]`               Springenberg 2015
DeconvNet  :math:`\max(0, g)`                          Zeiler and Fergus 2014
=========  ==========================================  ===================================

The maps are sharp, and hardly depend on the class or on the upper layers (Adebayo et al. 2018; Nie et al. 2018): a control more
than an explanation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from faithmap.methods.base import Passes
from faithmap.methods.captum_methods.base import CaptumExplainer, asking, check_same, rows_of
from faithmap.methods.captum_methods.calls import CURVED, Call, bounds
from faithmap.methods.captum_methods.library import captum, silent
from faithmap.methods.captum_methods.stages import Blind, Staged
from faithmap.methods.gradients.base import Part


class _Below(nn.Module):
    """The smaller of its input and a number, with the derivative that this has."""

    def __init__(self, high: float) -> None:
        super().__init__()
        self.high = high

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.high)


class Rectifiers(Blind):
    """Rectifiers go to stages; ReLU6 is a ReLU, and the smaller of that and 6."""

    def takes(self, call: Call) -> bool:
        """Whether this is a rectifier; raises ValueError for another activation in the place of one."""
        if call.name in CURVED:
            raise ValueError(
                f"the model has {call.name} where this method needs ReLU: it changes the derivative of ReLU alone, "
                "and its map would be little else than the gradient; give another method"
            )
        return bounds(call) is not None

    def stage(self, call: Call) -> nn.Module:
        """A ReLU, as captum looks for it."""
        found = bounds(call)
        assert found is not None  # noqa: S101 - no other call is taken
        return nn.ReLU() if found[1] is None else nn.Sequential(nn.ReLU(), _Below(found[1]))


@dataclass(eq=False)
class ModifiedGradient(CaptumExplainer):
    """Base of the two."""

    library: ClassVar[str]
    """captum's name of it."""

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean one, one that finds the rectifiers, and one with its gradient."""
        del image
        return Passes(3, 1)

    def attribute(self, part: Part) -> Float[Tensor, "m c h w"]:
        """One pass, after one that finds the rectifiers."""
        score = part.probe.score
        staged = Staged(asking(part, self.model), Rectifiers(), lambda output: score(output, rows_of(part, len(part.images))))
        check_same(part, score(staged.record(part.images), part.numbers))
        if not staged.names:
            raise ValueError("the model has no ReLU, whose derivative this method changes; give another method")
        with silent():
            attribution = getattr(captum(), self.library)(staged).attribute(part.images.detach().clone().requires_grad_())
        part.probe.count_backward(part.numbers)
        found: Tensor = attribution.detach()
        return found


@dataclass(eq=False)
class GuidedBackprop(ModifiedGradient):
    """Guided backpropagation (Springenberg et al. 2015)."""

    library: ClassVar[str] = "GuidedBackprop"


@dataclass(eq=False)
class DeconvNet(ModifiedGradient):
    """DeconvNet (Zeiler and Fergus 2014), as a gradient: max pooling keeps the switches of the forward pass."""

    library: ClassVar[str] = "Deconvolution"
