r"""Layer-wise relevance propagation (Bach et al. 2015; rules of Montavon et al. 2019).

From the score down, each affine layer :math:`z_k = \sum_j w_{jk} x_j + b_k` hands its outputs' relevance to its inputs:

.. math:: R_j = x_j \sum_k \frac{\rho(w_{jk})}{z_k^\rho + \epsilon \, \mathrm{sign}(z_k^\rho)} R_k

=============  ========================================  ==================================
epsilon        :math:`\rho(w) = w`
gamma          :math:`\rho(w) = w + \gamma \max(0, w)`   favours what speaks for the class
alpha1_beta0   :math:`\rho(w) = \max(0, w)`              shows nothing else
=============  ========================================  ==================================

where :math:`z^\rho` has the weights :math:`\rho(w)`. Activations that are 0 at 0 pass relevance on as it is; the bias keeps its
share.

Whether captum's rules hold on a model is known: with a small epsilon the result must be the image times its gradient, with each
activation's derivative replaced by :math:`f(z) / z` (Ancona et al. 2018, Proposition 1). Where it is not, something is in the
model that relevance does not know how to cross, and the model is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.methods.base import Passes
from faithmap.methods.captum_methods.base import CaptumExplainer, asking, check_same, mean_slope, relative, tensor_of, weighed
from faithmap.methods.captum_methods.calls import KEEPS_SIGN, THROUGH_ZERO, WEIGHTED, Call, Place, bounds
from faithmap.methods.captum_methods.library import captum, silent
from faithmap.methods.captum_methods.stages import Blind, Stage, Staged
from faithmap.methods.gradients.base import Part
from faithmap.model import Classifier

Rule: TypeAlias = Literal["epsilon", "gamma", "alpha1_beta0"]

SMALL = 1e-9
"""Epsilon where relevance is held against the gradient."""

TOLERANCE = 0.02
"""How far the two may lie apart, as a part of the gradient's length."""


class _Passing(Stage):
    """An activation: relevance goes through as it is."""


class _Ratio(Stage):
    """An activation with the derivative f(z) / z."""

    def forward(self, *data: Tensor) -> Tensor:
        x = data[0]
        with torch.no_grad():
            ratio = torch.where(x == 0, 1.0, self.call(x) / x)
        return x * ratio


class _Affine(Stage):
    """An affine call."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, Place] = {}

    def own_weights(self) -> None:
        """Take copies of weight and bias, for a rule to change."""
        for i, name in enumerate(("weight", "bias"), start=1):
            value = self.call.get(i, name)
            if isinstance(value, Tensor):
                self.places[name] = i if i < len(self.call.arguments) else name
                self.register_parameter(name, nn.Parameter(value.detach().clone(), requires_grad=False))

    def forward(self, *data: Tensor) -> Tensor:
        made: Tensor = self.call(*data, replaced={place: getattr(self, name) for name, place in self.places.items()})
        return made


class _Weighed(nn.Module):
    """The score as one more affine layer."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, output: Tensor) -> Tensor:
        return weighed(self.weights, output)


@dataclass
class _Relevance:
    """Affine calls and activations go to stages that carry captum's rules.

    Attributes:
        rule: of layers with weights between two rectifiers; all else has epsilon.
        epsilon: of all rules.
        gamma: of the gamma rule.
    """

    rule: Rule
    epsilon: float
    gamma: float
    between: bool = False

    def takes(self, call: Call) -> bool:
        """Whether relevance knows how to cross this call."""
        return call.affine or _passes(call)

    def stage(self, call: Call) -> nn.Module:
        """A stage with its rule."""
        rules = captum("captum.attr._utils.lrp_rules")
        return _with(_Passing(), rules.IdentityRule()) if _passes(call) else _with(_Affine(), rules.EpsilonRule(self.epsilon))

    def saw(self, call: Call, stage: nn.Module | None, output: Any) -> None:
        """Find the layers with weights that a rectifier feeds and that feed a rectifier; they get the rule."""
        first = call.data[0]
        rectifies = bounds(call) is not None
        if isinstance(output, Tensor):
            keeps = call.name in KEEPS_SIGN and vars(first).get("rectified", False)
            vars(output)["rectified"] = rectifies or keeps
            vars(output)["layer"] = stage if call.name in WEIGHTED and vars(first).get("rectified", False) else None
        layer = vars(first).get("layer")
        if rectifies and isinstance(layer, _Affine) and self.rule != "epsilon":
            self.between = True
            layer.own_weights()
            _with(layer, self._chosen())

    def _chosen(self) -> Any:
        rules = captum("captum.attr._utils.lrp_rules")
        made = rules.GammaRule(self.gamma) if self.rule == "gamma" else rules.Alpha1_Beta0_Rule()
        made.STABILITY_FACTOR = self.epsilon
        return made


class _Ratios(Blind):
    """What relevance is held against: activations alone go to stages."""

    def takes(self, call: Call) -> bool:
        """Whether this is an activation that relevance passes."""
        return _passes(call)

    def stage(self, call: Call) -> nn.Module:
        """A stage with another derivative."""
        del call
        return _Ratio()


def _passes(call: Call) -> bool:
    return (call.name in THROUGH_ZERO or bounds(call) is not None) and call.places == (0,)


def _with(stage: nn.Module, rule: Any) -> nn.Module:
    stage.rule = rule
    return stage


@dataclass(eq=False)
class LRP(CaptumExplainer):
    """LRP.

    Args:
        rule: of layers with weights between two rectifiers. All else has epsilon: where an input or an output with
            relevance is negative, the other two can divide by something near 0.
        epsilon: keeps relevance from growing where a layer's output is near 0.
        gamma: how much the gamma rule favours positive weights.

    A Classifier's relevance is that of its normalised pixels. A score that is not linear in the model's output, such as a
    probability, is first shared among the outputs by its mean slope on the way from outputs of 0.
    """

    rule: Rule = "epsilon"
    epsilon: float = SMALL
    gamma: float = 0.25

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean one, two for the gradient, and three for the relevance of each rule."""
        del image
        return Passes(6, 2) if (self.rule, self.epsilon) == ("epsilon", SMALL) else Passes(9, 3)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule is {self.rule!r}; give one of {', '.join(get_args(Rule))}")
        if not self.epsilon > 0 or self.gamma < 0:
            raise ValueError("give an epsilon above 0 and a gamma of at least 0")

    def attribute(self, part: Part) -> Float[Tensor, "m c h w"]:
        """Three passes; one more where the rule is not the one that is held against the gradient."""
        return self._attributed(part)[0]

    def _attributed(self, part: Part) -> tuple[Float[Tensor, "m c h w"], Mapping[str, Float[Tensor, " m"]]]:
        gradient, output = self._by_gradient(part)
        relevance = self._relevance(part, _Relevance("epsilon", SMALL, self.gamma), output)
        apart = relative((relevance - gradient).flatten(1).norm(dim=1), gradient.flatten(1).norm(dim=1))
        if not bool((apart < TOLERANCE).all()):  # NaN is not
            raise ValueError(
                f"captum's LRP does not hold on this model: with a small epsilon it is {float(apart.max()):.2g} of its length "
                "from what it must be; attention, gates, layer normalisation and half precision are known causes; "
                "give another method"
            )
        if (self.rule, self.epsilon) != ("epsilon", SMALL):
            relevance = self._relevance(part, _Relevance(self.rule, self.epsilon, self.gamma), output)
        clean = part.request.clean[part.numbers]
        return relevance, {"completeness_gap": relative((relevance.sum(dim=(1, 2, 3)) - clean).abs(), clean)}

    def _pixels(self, part: Part) -> tuple[nn.Module, Float[Tensor, "m c h w"]]:
        """The module whose inputs get relevance, and these inputs."""
        model = self.model
        if not isinstance(model, Classifier):
            return model, part.images
        normalised = (part.images - model.mean.to(part.images)) / model.std.to(part.images)
        return model.module, normalised.to(model.dtype)

    def _by_gradient(self, part: Part) -> tuple[Float[Tensor, "m c h w"], Tensor]:
        """The image times the gradient with ratios in the place of derivatives, and the model's output."""
        score = part.probe.score
        model, pixels = self._pixels(part)
        weights = torch.empty(0)
        staged = Staged(asking(part, model), _Ratios(), lambda found: weighed(weights, tensor_of(found, score)))
        output = tensor_of(staged.record(pixels), score).detach()
        check_same(part, score(output, part.numbers))
        weights = self._weights(part, output)
        pixels = pixels.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(staged(pixels).sum(), pixels)
        part.probe.count_backward(part.numbers)
        return (pixels * slope).detach(), output

    def _weights(self, part: Part, output: Tensor) -> Tensor:
        return mean_slope(part.probe.score, part.numbers, torch.zeros_like(output), output)

    def _relevance(self, part: Part, plan: _Relevance, output: Tensor) -> Float[Tensor, "m c h w"]:
        """captum's, of stages made anew: it takes the rules from them when it is done."""
        score = part.probe.score
        model, pixels = self._pixels(part)
        last = _with(_Weighed(self._weights(part, output)), captum("captum.attr._utils.lrp_rules").EpsilonRule(SMALL))
        staged = Staged(asking(part, model), plan, lambda found: last(tensor_of(found, score).clone()))
        staged.record(pixels)
        if plan.rule != "epsilon" and not plan.between:
            raise ValueError(
                f"the model has no layer with weights between two rectifiers, where rule {plan.rule!r} holds; "
                "give rule='epsilon', or fold its batch normalisation"
            )
        staged.stages.append(last)
        with silent():
            relevance: Tensor = captum().LRP(staged).attribute(pixels.detach().clone().requires_grad_())
        part.probe.count_backward(part.numbers)
        return relevance.detach()
