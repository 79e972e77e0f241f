r"""Layer-wise relevance propagation (Bach et al. 2015; rules of Montavon et al. 2019).

From the score down, each affine layer :math:`z_k = \sum_j w_{jk} x_j + b_k` distributes the relevance of its outputs over its
inputs:

.. math:: R_j = x_j \sum_k \frac{\rho(w_{jk})}{z_k^\rho + \epsilon \, \mathrm{sign}(z_k^\rho)} R_k

=============  ========================================  ==================================
epsilon        :math:`\rho(w) = w`
gamma          :math:`\rho(w) = w + \gamma \max(0, w)`   favours evidence for the class
alpha1_beta0   :math:`\rho(w) = \max(0, w)`              uses only evidence for the class
=============  ========================================  ==================================

where :math:`z^\rho` has the weights :math:`\rho(w)`. Activations with f(0) = 0 pass relevance on unchanged; the bias keeps its
share.

Whether captum's rules hold for a model is checked: with a small epsilon the result must equal the image times its gradient,
with each activation's derivative replaced by :math:`f(z) / z` (Ancona et al. 2018, Proposition 1). If it does not, the model
has an operation without a rule, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.methods.base import Passes
from faithmap.methods.captum_methods.base import (
    CaptumExplainer,
    captum,
    check_same,
    counted_model,
    mean_slope,
    relative,
    silent,
    tensor_of,
    weighted_sum,
)
from faithmap.methods.captum_methods.calls import KEEPS_SIGN, THROUGH_ZERO, WEIGHTED, Call, Place, bounds
from faithmap.methods.captum_methods.stages import Stage, Staged, StatelessPlan
from faithmap.methods.gradients.gradient import ImageChunk
from faithmap.model import Classifier

Rule: TypeAlias = Literal["epsilon", "gamma", "alpha1_beta0"]

SMALL = 1e-9
"""Epsilon for the comparison of relevance and gradient."""

TOLERANCE = 0.02
"""Largest difference of the two, as a fraction of the gradient's norm."""


class _Passing(Stage):
    """An activation: relevance passes unchanged."""


class _Ratio(Stage):
    """An activation whose derivative is f(z) / z."""

    def forward(self, *data: Tensor) -> Tensor:
        x = data[0]
        with torch.no_grad():
            ratio = torch.where(x == 0, 1.0, self.call(x) / x)
        return x * ratio


class _Affine(Stage):
    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, Place] = {}

    def own_weights(self) -> None:
        """Copy weight and bias, so that a rule can change them."""
        for i, name in enumerate(("weight", "bias"), start=1):
            value = self.call.get(i, name)
            if isinstance(value, Tensor):
                self.places[name] = i if i < len(self.call.arguments) else name
                self.register_parameter(name, nn.Parameter(value.detach().clone(), requires_grad=False))

    def forward(self, *data: Tensor) -> Tensor:
        made: Tensor = self.call(*data, replaced={place: getattr(self, name) for name, place in self.places.items()})
        return made


class _WeightedSum(nn.Module):
    """The score as one more affine layer."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, output: Tensor) -> Tensor:
        return weighted_sum(self.weights, output)


@dataclass
class _Relevance:
    """Sends affine calls and activations to stages with captum's rules.

    Attributes:
        rule: for layers with weights between two rectifiers; all others have epsilon.
        epsilon: for all rules.
        gamma: for the gamma rule.
        between: whether there is a layer with weights between two rectifiers.
    """

    rule: Rule
    epsilon: float
    gamma: float
    between: bool = False

    def takes(self, call: Call) -> bool:
        """Whether there is a rule for this call."""
        return call.affine or _passes(call)

    def stage(self, call: Call) -> nn.Module:
        """A stage with the rule of the call."""
        rules = captum("captum.attr._utils.lrp_rules")
        return _with(_Passing(), rules.IdentityRule()) if _passes(call) else _with(_Affine(), rules.EpsilonRule(self.epsilon))

    def saw(self, call: Call, stage: nn.Module | None, output: Any) -> None:
        """Give the rule to layers with weights between two rectifiers."""
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


class _Ratios(StatelessPlan):
    """Sends activations to stages, for the gradient that relevance is compared with."""

    def takes(self, call: Call) -> bool:
        """Whether this is an activation that passes relevance on."""
        return _passes(call)

    def stage(self, call: Call) -> nn.Module:
        """A stage with the derivative f(z) / z."""
        del call
        return _Ratio()


def _passes(call: Call) -> bool:
    return (call.name in THROUGH_ZERO or bounds(call) is not None) and call.places == (0,)


def _with(stage: nn.Module, rule: Any) -> nn.Module:
    stage.rule = rule
    return stage


@dataclass(eq=False)
class LRP(CaptumExplainer):
    """Layer-wise relevance propagation.

    Args:
        rule: ``"epsilon"``, ``"gamma"`` or ``"alpha1_beta0"``, for layers with weights between two rectifiers. All other
            layers have epsilon: the other rules can divide by a number near 0 if an input or an output is negative.
        epsilon: added to the size of a layer's output, so that relevance stays bounded for outputs near 0.
        gamma: how strongly the gamma rule favours positive weights; 0 is the epsilon rule.

    The relevance of a Classifier is that of its normalised pixels. A score that is not linear in the model's output, such as a
    probability, is first distributed over the outputs by its mean gradient between outputs of 0 and the model's.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 1, bias=False), torch.nn.ReLU())
    >>> _ = torch.nn.init.constant_(model[1].weight, 0.5)
    >>> LRP(model)(torch.tensor([[[[0.2, 0.8]]]]), 0).heatmap
    tensor([[[0.1000, 0.4000]]])
    """

    title: ClassVar[str] = "LRP"
    rule: Rule = "epsilon"
    epsilon: Annotated[float, Gt(0)] = SMALL
    gamma: Annotated[float, Ge(0)] = 0.25

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One for the target, two for the gradient, and three for the relevance of each rule."""
        del image
        return Passes(6, 2) if (self.rule, self.epsilon) == ("epsilon", SMALL) else Passes(9, 3)

    def attribute(self, chunk: ImageChunk) -> Float[Tensor, "m c h w"]:
        """The relevance of each pixel's every channel."""
        return self._attributed(chunk)[0]

    def _attributed(self, chunk: ImageChunk) -> tuple[Float[Tensor, "m c h w"], Mapping[str, Float[Tensor, " m"]]]:
        gradient, output = self._by_gradient(chunk)
        relevance = self._relevance(chunk, _Relevance("epsilon", SMALL, self.gamma), output)
        apart = relative((relevance - gradient).flatten(1).norm(dim=1), gradient.flatten(1).norm(dim=1))
        if not bool((apart < TOLERANCE).all()):  # also for NaN
            raise ValueError(
                f"captum's LRP does not hold on this model: with a small epsilon it differs by {float(apart.max()):.2g} of its "
                "norm from the expected value; attention, gates, layer normalisation, half precision and a final softmax are "
                "known causes; give another method, or the model without its softmax"
            )
        if (self.rule, self.epsilon) != ("epsilon", SMALL):
            relevance = self._relevance(chunk, _Relevance(self.rule, self.epsilon, self.gamma), output)
        clean = chunk.request.clean[chunk.numbers]
        return relevance, {"completeness_gap": relative((relevance.sum(dim=(1, 2, 3)) - clean).abs(), clean)}

    def _pixels(self, chunk: ImageChunk) -> tuple[nn.Module, Float[Tensor, "m c h w"]]:
        """The module whose inputs get relevance, and these inputs."""
        model = self.model
        if not isinstance(model, Classifier):
            return model, chunk.images
        normalised = (chunk.images - model.mean.to(chunk.images)) / model.std.to(chunk.images)
        return model.module, normalised.to(model.dtype)

    def _by_gradient(self, chunk: ImageChunk) -> tuple[Float[Tensor, "m c h w"], Tensor]:
        """The image times the gradient, with f(z) / z in place of derivatives, and the model's output."""
        score = chunk.probe.score
        model, pixels = self._pixels(chunk)
        weights = torch.empty(0)
        read = partial(tensor_of, score=score)
        staged = Staged(counted_model(chunk, model), _Ratios(), lambda z: weighted_sum(weights, read(z)))
        output = tensor_of(staged.record(pixels), score).detach()
        check_same(chunk, score(output, chunk.numbers))
        weights = self._weights(chunk, output)
        pixels = pixels.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(staged(pixels).sum(), pixels)
        chunk.probe.count_backward(chunk.numbers)
        return (pixels * slope).detach(), output

    def _weights(self, chunk: ImageChunk, output: Tensor) -> Tensor:
        return mean_slope(chunk.probe.score, chunk.numbers, torch.zeros_like(output), output)

    def _relevance(self, chunk: ImageChunk, plan: _Relevance, output: Tensor) -> Float[Tensor, "m c h w"]:
        """The relevance by captum, with new stages: captum removes the rules from them at the end."""
        score = chunk.probe.score
        model, pixels = self._pixels(chunk)
        last = _with(_WeightedSum(self._weights(chunk, output)), captum("captum.attr._utils.lrp_rules").EpsilonRule(SMALL))
        staged = Staged(counted_model(chunk, model), plan, lambda z: last(tensor_of(z, score).clone()))
        staged.record(pixels)
        if plan.rule != "epsilon" and not plan.between:
            raise ValueError(
                f"the model has no layer with weights between two rectifiers, to which rule {plan.rule!r} applies; "
                "give rule='epsilon', or fold its batch normalisation"
            )
        staged.stages.append(last)
        with silent():
            relevance: Tensor = captum().LRP(staged).attribute(pixels.detach().clone().requires_grad_())
        chunk.probe.count_backward(chunk.numbers)
        return relevance.detach()
