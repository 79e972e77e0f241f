r"""DeepLIFT: the contribution of each pixel to the change of the score from a baseline (Shrikumar, Greenside and Kundaje 2017).

With :math:`\Delta` the difference between image and baseline, the *rescale* rule gives each activation :math:`a = f(z)` the
multiplier

.. math:: m = \frac{\Delta a}{\Delta z}

instead of its derivative. The chain rule then gives :math:`a_i = m_i \, \Delta x_i`. Attributions are *complete* if the network
consists of affine functions, elementwise functions, max pooling and a softmax over its classes: they sum to
:math:`y(x) - y(b)`. If activations are multiplied with each other, as in attention, or normalised by their own statistics,
captum uses the derivative, and they are not complete. The completeness gap is the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.baselines import Baseline, describe_baseline, make_baseline
from faithmap.methods.base import Passes, class_probability, warn_if_recognised
from faithmap.methods.captum_methods.base import (
    POINTS,
    CaptumExplainer,
    captum,
    check_same,
    counted_model,
    mean_slope,
    relative,
    rows_of,
    silent,
    tensor_of,
    weighted_sum,
)
from faithmap.methods.captum_methods.calls import MAX_POOLS, Call
from faithmap.methods.captum_methods.stages import Stage, Staged, StatelessPlan
from faithmap.methods.gradients.gradient import ImageChunk
from faithmap.warning_types import CompletenessWarning

FAR_OFF = 0.1
"""A gap above this fraction of the score's change raises a warning."""


class Elementwise(Stage):
    """An elementwise function, with captum's rescale rule."""


class MaxPool(Stage):
    """Max pooling that keeps the position of each maximum."""

    where: Tensor

    def forward(self, *data: Tensor) -> Tensor:
        """The maxima."""
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        given = {n: self.call.get(i, n) for i, n in enumerate(names, start=1) if self.call.get(i, n) is not None}
        pooled: Tensor
        pooled, self.where = getattr(F, self.call.name)(data[0], **given, return_indices=True)
        return pooled


def rescaled_pool(
    module: MaxPool, inputs: Tensor, outputs: Tensor, grad_input: Tensor, grad_output: Tensor, eps: float = 1e-10
) -> Tensor:
    r"""The rescale rule of max pooling, with the signature of captum's table: images first, then their baselines.

    If the maximum of a window is larger for the image, :math:`\Delta y` is attributed to the largest pixel of the image,
    otherwise to that of the baseline. Windows that share a pixel are added. captum's own rule overwrites overlapping windows.
    """
    (x, b), (y, y0), (at, at0) = inputs.chunk(2), outputs.chunk(2), module.where.chunk(2)
    spatial = x.ndim - 2 if module.call.name != "max_pool1d" else 1
    place, change, distance = torch.where(y >= y0, at, at0).flatten(-spatial), y - y0, x - b
    multipliers = []
    for above, below in zip(grad_output.chunk(2), grad_input.chunk(2), strict=True):
        share = torch.zeros_like(x).flatten(-spatial).scatter_add_(-1, place, (above * change).flatten(-spatial)).view_as(x)
        multipliers.append(torch.where(distance.abs() < eps, below, share / distance))
    return torch.cat(multipliers)


class ClassSoftmax(Stage):
    """The softmax over the classes (images, classes), in a model that returns probabilities."""


def mean_softmax(
    module: ClassSoftmax, inputs: Tensor, outputs: Tensor, grad_input: Tensor, grad_output: Tensor, eps: float = 1e-10
) -> Tensor:
    r"""The mean derivative on the straight line from the baseline's logits to the image's, with captum's signature.

    As a score that is a probability has; complete: it sums to :math:`\Delta p`. captum's own rule is not, and it mixes the
    images of a chunk.
    """
    del module, outputs, grad_input, eps
    (z, z0), (above, _) = inputs.chunk(2), grad_output.chunk(2)
    total = torch.zeros_like(above)
    for i in range(POINTS):
        p = z0.lerp(z, (i + 0.5) / POINTS).softmax(dim=1)
        total += p * (above - (p * above).sum(dim=1, keepdim=True)) / POINTS
    return total.repeat(2, 1)


class Rescaled(StatelessPlan):
    """Sends activations, max pooling and the softmax over the classes to stages."""

    def takes(self, call: Call) -> bool:
        """Whether there is a rule for this call."""
        return call.elementwise or (call.name in MAX_POOLS and call.places == (0,)) or _over_classes(call)

    def stage(self, call: Call) -> nn.Module:
        """A stage whose type is in captum's table of rules."""
        rules: dict[Any, Any] = captum("captum.attr._core.deep_lift").SUPPORTED_NON_LINEAR
        rules.setdefault(Elementwise, captum("captum.attr._core.deep_lift").nonlinear)
        rules.setdefault(MaxPool, rescaled_pool)
        rules.setdefault(ClassSoftmax, mean_softmax)
        return MaxPool() if call.name in MAX_POOLS else ClassSoftmax() if _over_classes(call) else Elementwise()


def _over_classes(call: Call) -> bool:
    """Whether this is a softmax over the rows of (images, classes), which no attention has."""
    return call.name == "softmax" and call.places == (0,) and call.get(0).ndim == 2 and call.get(1, "dim") in (1, -1)


@dataclass(eq=False)
class DeepLIFT(CaptumExplainer):
    """DeepLIFT with the rescale rule.

    Args:
        baseline: the image that each image is compared with; ``"zero"`` is 0 in the model's normalised space.
        eps: an activation whose input changes by less has its derivative as multiplier.

    A probability, and any other score that is not linear in the model's output, has multipliers of its own: its mean gradient
    on the straight line from the baseline's output to the image's output.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False), nn.ReLU())
    >>> _ = nn.init.constant_(model[1].weight, 0.5)
    >>> DeepLIFT(model, baseline="black")(torch.tensor([[[[0.2, 0.8]]]]), 0).heatmap
    tensor([[[0.1000, 0.4000]]])
    """

    title: ClassVar[str] = "DeepLIFT"
    baseline: Baseline = "zero"
    eps: Annotated[float, Gt(0)] = 1e-6

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data."""
        return {**super().settings, "baseline": describe_baseline(self.baseline)}

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One for the target, and image and baseline twice, once with their gradients."""
        del image
        return Passes(5, 2)

    def attribute(self, chunk: ImageChunk) -> Float[Tensor, "m c h w"]:
        """The attribution of each pixel's every channel."""
        return self._all_lifted(chunk, self._baselines(chunk))[0]

    def _all_lifted(
        self, chunk: ImageChunk, baselines: Float[Tensor, "m c h w"]
    ) -> tuple[Float[Tensor, "m c h w"], Float[Tensor, " m"], Float[Tensor, " m"]]:
        """As :meth:`_lifted`, an eighth of a chunk of images with their baselines at a time."""
        at_once = max(1, chunk.probe.chunk_size // 8)  # its passes keep several times the memory of a gradient
        found = [self._lifted(_some(chunk, rows), baselines[rows]) for rows in torch.arange(len(chunk.images)).split(at_once)]
        attribution, change, of_baseline = (torch.cat(values) for values in zip(*found, strict=True))
        return attribution, change, of_baseline

    def _attributed(self, chunk: ImageChunk) -> tuple[Float[Tensor, "m c h w"], Mapping[str, Float[Tensor, " m"]]]:
        baselines = self._baselines(chunk)
        attribution, change, of_baseline = self._all_lifted(chunk, baselines)
        warn_if_recognised(self, chunk.request, chunk.numbers, baselines, of_baseline)
        gap = (attribution.sum(dim=(1, 2, 3)) - change).abs()
        rounding = 16 * self._precision * chunk.request.clean[chunk.numbers].abs() + 1e-3 * attribution.abs().sum(dim=(1, 2, 3))
        for i in ((gap > FAR_OFF * change.abs()) & (gap > rounding)).nonzero().flatten().tolist():
            chunk.request.warn(
                int(chunk.numbers[i]),
                f"the attributions sum to {float(attribution[i].sum()):.4g}, the score changes by {float(change[i]):.4g}: "
                "DeepLIFT has no rule for a part of this model; integrated_gradients needs none",
                CompletenessWarning,
            )
        return attribution, {"completeness_gap": relative(gap, change)}

    @property
    def _precision(self) -> float:
        """The relative precision of the model's numbers."""
        floating = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        return torch.finfo(self.autocast or next(floating, torch.float32)).eps

    def _lifted(
        self, chunk: ImageChunk, baselines: Float[Tensor, "m c h w"]
    ) -> tuple[Float[Tensor, "m c h w"], Float[Tensor, " m"], Float[Tensor, " m"]]:
        """Attributions, the change of the score from the baselines to the images, and the probabilities in the baselines."""
        score = chunk.probe.score
        weights = torch.empty(0)
        staged = Staged(
            counted_model(chunk, self.model), Rescaled(), lambda output: weighted_sum(weights, tensor_of(output, score))
        )
        output = tensor_of(staged.record(torch.cat([chunk.images, baselines])), score).detach()
        scores, rows = score(output, rows_of(chunk, len(output))), rows_of(chunk, len(chunk.images))
        end, start = scores.chunk(2)
        check_same(chunk, end)
        z, z0 = output.chunk(2)
        weights = mean_slope(score, rows, z0, z).repeat(2, *[1] * (z.ndim - 1))
        with silent():
            lift = captum().DeepLift(staged, eps=self.eps)
            attribution = lift.attribute(chunk.images.detach().clone().requires_grad_(), baselines)
        chunk.probe.count_backward(rows_of(chunk, len(output)))
        of_baseline = class_probability(score.of(rows), z0)
        return attribution.detach(), end - start, start if of_baseline is None else of_baseline

    def _baselines(self, chunk: ImageChunk) -> Float[Tensor, "m c h w"]:
        chosen = chunk.request.baseline_for(chunk.numbers, self.baseline)
        return make_baseline(chosen, chunk.images)


def _some(chunk: ImageChunk, rows: Tensor) -> ImageChunk:
    generators = [chunk.generators[i] for i in rows.tolist()]
    index = rows.to(chunk.images.device)
    return ImageChunk(chunk.images[index], chunk.numbers[index], chunk.probe, generators, chunk.request)
