r"""The gradient to the pixels, alone and times the image.

.. math:: a = \frac{\partial y}{\partial x} \qquad\text{(Simonyan 2014)}, \qquad
    a = x \cdot \frac{\partial y}{\partial x} \qquad\text{(Shrikumar 2016)}

The first says which pixels would change the score if they changed a little; the second what each adds to it, where the model
is linear.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from faithmap.baselines import Baseline, describe_baseline, make_baseline
from faithmap.methods.base import Passes
from faithmap.methods.gradients.base import Channels, GradientExplainer, Part
from faithmap.model import normalised_zero


@dataclass(eq=False)
class Gradient(GradientExplainer):
    """The gradient (Simonyan et al. 2014), which the pointing game's table calls AM."""

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean one, and one with its gradient."""
        del image
        return Passes(2, 1)

    def attribute(self, part: Part) -> Float[Tensor, "m c h w"]:
        """One pass."""
        return part.probe.gradients(part.images, part.numbers)


@dataclass(eq=False)
class GradientTimesInput(GradientExplainer):
    """The gradient times the image (Shrikumar et al. 2016).

    Args:
        baseline: what the image is counted from; "zero" is 0 in the model's normalised space, where the paper multiplies.
    """

    channels: Channels = "sum"
    baseline: Baseline = "zero"

    @property
    def settings(self) -> dict[str, object]:
        """All settings as plain data."""
        return {**super().settings, "baseline": describe_baseline(self.baseline)}

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean one, and one with its gradient."""
        del image
        return Passes(2, 1)

    def attribute(self, part: Part) -> Float[Tensor, "m c h w"]:
        """One pass."""
        chosen = part.request.baseline_for(part.numbers, self.baseline)
        chosen = normalised_zero(self.model) if isinstance(chosen, str) and chosen == "zero" else chosen
        return (part.images - make_baseline(chosen, part.images)) * part.probe.gradients(part.images, part.numbers)
