r"""CAM: any weighting of a layer's channels with any estimate of their gradients, and the named methods.

.. math:: L = relu\Bigl(\sum_k w_k A^k\Bigr)

with :math:`A^k` channel k of the layer's activation. Weights w: :mod:`faithmap.methods.cams.weightings`. Gradients:
:mod:`faithmap.methods.cams.estimators`. The map has the layer's own cells, centred as :mod:`faithmap.capture` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from faithmap.baselines import Baseline
from faithmap.capture import Placement
from faithmap.explanation import interpolation_matrix
from faithmap.layers import LayerContext, ReshapeTransform, TargetLayer, target_layers
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request, warn_if_recognised
from faithmap.methods.cams.estimators import (
    Estimator,
    Expectation,
    Expected,
    Integrated,
    LayerPool,
    Plain,
    Smooth,
    Weighted,
    weighted,
)
from faithmap.methods.cams.least_infidelity import NEEDS_CHANGES, LeastInfidelity
from faithmap.methods.cams.weightings import WEIGHTINGS, Evidence, Weighting, WeightingName, needs_changes
from faithmap.methods.sampling import Stream
from faithmap.probe import LayerProbe, Pass
from faithmap.score import Score, ScoreKind, Target
from faithmap.warning_types import TargetLayerWarning

NEAR = 0.1
"""Up to this position on its path an image counts as its reference, for the warning about a recognised one."""

TOP = 10
"""Channels named in the diagnostics, the largest contribution first."""


class CleanPass(NamedTuple):
    """The pass over the clean images, which a method of this family keeps."""

    context: LayerContext
    probe: LayerProbe
    results: Pass


@dataclass(eq=False)
class LayerExplainer(Explainer):
    """Base of the methods that read a layer's activations.

    The target layer is looked for once for each model and size of images. The diagnostics name it, and how it was found.

    Args:
        score: logit or probability of the target class. The papers of this family explain the logit.
        target_layer: a module, its dotted name, several of either (their maps, each divided by its largest value, are averaged
            at the finest of them), or None: the last layer whose positions follow the image (docs/layers.md).
        scales: number of resolutions that None takes a layer of, from the last one back.
        reshape_transform: from the layer's output to (n, k, h, w). None finds rows, columns, channels and tokens by local
            changes of the image.
        relu: set negative values of the map to 0; False gives signed maps.
        placement: centres of the cells. ``strides``: of the windows that they see, by strides and paddings. ``tiles``: of equal
            parts of the image, to which trained networks can be closer (docs/cams.md). ``gradients``: of the network's
            gradients to the pixels.

    A method of your own, the mean activation of all channels:

    >>> from faithmap.methods.cams.estimators import weighted
    >>> class MeanActivation(LayerExplainer):
    ...     def _explain(self, request):
    ...         activation = request.kept.results.activation
    ...         maps = {layer: weighted(torch.ones_like(a) / a.shape[1], a) for layer, a in activation.items()}
    ...         return self._raw(request, maps)
    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> MeanActivation(model)(torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.2, 0.2], [0.2, 0.2]]]])).heatmap
    tensor([[[0.1000, 0.3000],
             [0.5000, 0.3000]]])
    """

    score: ScoreKind = "logit"
    target_layer: TargetLayer = None
    scales: Annotated[int, Ge(1)] = 1
    reshape_transform: ReshapeTransform | None = None
    relu: bool = True
    placement: Placement = "strides"
    _found: list[str] | None = field(default=None, init=False, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data; layers by their names."""
        given = self.target_layer
        name = given if given is None or isinstance(given, str) else str(given)
        return {**super().settings, "target_layer": name if self._found is None else self._found}

    @property
    def _needs_clean_gradient(self) -> bool:
        """Whether the gradients at the clean images are needed."""
        return False

    def _clean(self, images: Float[Tensor, "n c h w"], target: Target) -> tuple[Tensor | None, Score, Tensor, CleanPass]:
        context = self._context(images)
        probe = context.probe(self.model, images, self.score, chunk_size=self.chunk_size, autocast=self.autocast)
        logits, score, results = probe.clean(target, self.score, gradient=self._needs_clean_gradient)
        return logits, score, results.score, CleanPass(context, probe, results)

    def _context(self, images: Float[Tensor, "n c h w"]) -> LayerContext:
        given = self.target_layer, self.reshape_transform
        context = target_layers(self.model, *given, images[:1], self.scales, self.placement)
        self._found = list(context.layers)
        return context

    def _raw(self, request: Request, found: Mapping[str, Weighted], **per_image: Tensor) -> RawHeatmap:
        """One map out of those of all layers, with passes, and for each layer the channels that contribute the most."""
        context, probe, _ = request.kept
        if context.doubt is not None:
            request.warn_of_all(context.doubt, TargetLayerWarning)
        maps = {name: weighted.heatmap for name, weighted in found.items()}
        finest = max(maps, key=lambda name: maps[name][0].numel())
        heatmap = maps[finest] if len(maps) == 1 else fuse(maps, context.centres, finest)
        numbers = {"forward_passes": probe.forward, "backward_passes": probe.backward, **per_image}
        lists = {name: [v if math.isfinite(v) else None for v in values.tolist()] for name, values in numbers.items()}
        top = {name: found[name].channel.argsort(dim=1, descending=True)[:, :TOP].tolist() for name in context.layers}
        diagnostics = [
            {
                "target_layer": list(top),
                "layer_found_by": context.found_by,
                "layer_doubt": context.doubt,
                "top_channels": {name: channels[i] for name, channels in top.items()},
            }
            | {name: values[i] for name, values in lists.items()}
            for i in range(len(heatmap))
        ]
        rows, columns = (centres.to(heatmap.device) for centres in context.centres[finest])
        return RawHeatmap(heatmap.relu() if self.relu else heatmap, diagnostics, rows, columns)


@dataclass(eq=False)
class CAM(LayerExplainer):
    """Class activation map: one weighting of the channels with one estimator of their gradients.

    Args:
        weighting: by name, or a callable of your own from :class:`~faithmap.methods.cams.weightings.Evidence` to weights, or
            :class:`~faithmap.methods.cams.least_infidelity.LeastInfidelity` with a ridge of your own.
        gradient: :class:`Plain`, :class:`Smooth`, :class:`Integrated` or :class:`Expected`, with their settings.

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> CAM(model, weighting="layer_cam", gradient=Smooth(samples=2))(image).heatmap
    tensor([[[0.0000, 0.1000],
             [0.2000, 0.1000]]])
    """

    weighting: WeightingName | Weighting = "grad_cam"
    gradient: Estimator = field(default_factory=Plain)

    @property
    def _needs_clean_gradient(self) -> bool:
        return self.gradient.is_plain

    def optimises(self, baseline: Baseline | None = None) -> tuple[str, ...]:
        """Nothing, but for ``least_infidelity`` the infidelity.

        Args:
            baseline: is not used.
        """
        return ("infidelity",) if needs_changes(self._weighting) else super().optimises(baseline)

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean pass, and those of the estimator."""
        drawn = 0 if self.gradient.is_plain else len(self.gradient.draw(image, torch.Generator(image.device)).position)
        return Passes(1 + drawn, drawn or 1)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        self.gradient.check()
        if needs_changes(self._weighting) and (self.gradient.is_plain or self.gradient.difference != "none"):
            raise ValueError(NEEDS_CHANGES)

    @property
    def _weighting(self) -> Weighting:
        if callable(self.weighting):
            return self.weighting
        return LeastInfidelity() if self.weighting == "least_infidelity" else WEIGHTINGS[self.weighting]

    def _explain(self, request: Request) -> RawHeatmap:
        weighting = self._weighting
        results: Pass = request.kept.results
        if self.gradient.is_plain:
            evidence = {name: Evidence(a, results.gradient[name]) for name, a in results.activation.items()}
            return self._raw(request, {name: weighted(weighting(e), e.activation) for name, e in evidence.items()})
        everything = torch.arange(len(request.images), device=request.images.device)
        groups = [self._estimated(request, numbers, weighting) for numbers in everything.split(self._images_at_once)]
        maps = {
            name: Weighted(*map(torch.cat, zip(*(found[name] for found, _ in groups), strict=True)))
            for name in results.activation
        }
        gaps = [gap for _, gap in groups if gap is not None]
        return self._raw(request, maps, **({"completeness_gap": torch.cat(gaps)} if gaps else {}))

    @property
    def _images_at_once(self) -> int:
        """As many images as fill whole chunks with their passes."""
        passes = getattr(self.gradient, "samples", 1)
        return min(self.chunk_size, math.lcm(self.chunk_size, passes) // passes)

    def _estimated(
        self, request: Request, numbers: Tensor, weighting: Weighting
    ) -> tuple[dict[str, Weighted], Float[Tensor, " m"] | None]:
        """The maps of some of the images at each layer, and their completeness gaps if there are contributions."""
        clean: CleanPass = request.kept
        images, activation = request.images[numbers], clean.results.at(numbers).activation
        drawn = [self._estimator(request, i).draw(request.images[i : i + 1], request.generators[i]) for i in numbers.tolist()]
        keep = needs_changes(weighting)
        expectation = Expectation(clean.probe, self.gradient, numbers, activation, Stream(images, drawn), keep=keep)
        pools = [LayerPool(name, self.gradient, weighting, a, request.clean[numbers]) for name, a in activation.items()]
        for terms in expectation.terms():
            for pool in pools:
                pool.add(terms)
        request.progress(int(numbers[-1]) + 1, len(request.images))
        if all(samples.references is not None for samples in drawn):
            near = all(float(samples.position.min()) <= NEAR for samples in drawn)
            of_reference = request.as_probability(expectation.near_start) if near else None
            warn_if_recognised(self, request, numbers, expectation.stream.farthest, of_reference)
        maps = {pool.name: pool.result() for pool in pools}
        contributions = [total for pool in pools if (total := pool.contributions()) is not None]
        if not contributions:
            return maps, None
        change = request.clean[numbers].float() - expectation.start_score
        return maps, (torch.stack(contributions).mean(dim=0) - change).abs() / change.abs()

    def _estimator(self, request: Request, image: int) -> Estimator:
        """The estimator for one image, with the baseline of the call if there is one."""
        own = self.gradient.origin
        given = request.references_for(image, own)
        return self.gradient if given is None or given is own else self.gradient.starting_from(given)


def fuse(
    maps: Mapping[str, Float[Tensor, "n h w"]], centres: Mapping[str, tuple[Tensor, Tensor]], finest: str
) -> Float[Tensor, "n r c"]:
    """The mean of several layers' maps, each divided by its largest value, at the cells of the finest."""
    at = centres[finest]
    total = torch.zeros_like(maps[finest])
    for name, values in maps.items():
        rows, columns = (interpolation_matrix(own, to).to(values) for own, to in zip(centres[name], at, strict=True))
        largest = values.abs().amax(dim=(1, 2), keepdim=True)
        total += rows @ (values / largest).where(largest > 0, 0) @ columns.mT
    return total / len(maps)


@dataclass(eq=False)
class GradCAM(CAM):
    """Grad-CAM: channels weighted by their mean gradient (Selvaraju et al., ICCV 2017).

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> GradCAM(model)(image).heatmap
    tensor([[[0.0000, 0.1000],
             [0.2000, 0.1000]]])
    """

    title: ClassVar[str] = "Grad-CAM"


@dataclass(eq=False)
class GradCAMPlusPlus(CAM):
    """Grad-CAM++: positive gradients, independent of an object's size (Chattopadhay et al., WACV 2018).

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> GradCAMPlusPlus(model)(torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])).resolution
    (2, 2)
    """

    title: ClassVar[str] = "Grad-CAM++"
    weighting: WeightingName | Weighting = "grad_cam_plus_plus"


@dataclass(eq=False)
class XGradCAM(CAM):
    """XGrad-CAM: channels weighted by the mean of their gradient, weighted by the activation (Fu et al., BMVC 2020).

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> XGradCAM(model)(torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])).resolution
    (2, 2)
    """

    title: ClassVar[str] = "XGrad-CAM"
    weighting: WeightingName | Weighting = "xgrad_cam"


@dataclass(eq=False)
class LayerCAM(CAM):
    """LayerCAM: each cell weighted by its own positive gradient (Jiang et al., IEEE TIP 2021).

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> LayerCAM(model)(torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])).resolution
    (2, 2)
    """

    title: ClassVar[str] = "LayerCAM"
    weighting: WeightingName | Weighting = "layer_cam"


@dataclass(eq=False)
class HiResCAM(CAM):
    """HiResCAM: each cell weighted by its own gradient (Draelos and Carin 2020).

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> HiResCAM(model)(torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])).resolution
    (2, 2)
    """

    title: ClassVar[str] = "HiResCAM"
    weighting: WeightingName | Weighting = "hires_cam"


@dataclass(eq=False)
class SmoothGradCAM(CAM):
    """Grad-CAM with the mean gradient of noisy copies of the image.

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> SmoothGradCAM(model, gradient=Smooth(samples=4))(image).diagnostics[0]["forward_passes"]
    5
    """

    title: ClassVar[str] = "Smooth Grad-CAM"
    gradient: Estimator = field(default_factory=Smooth)


@dataclass(eq=False)
class SmoothGradCAMPlusPlus(CAM):
    """Smooth Grad-CAM++: Grad-CAM++ with mean gradients of noisy copies of the image (Omeiza et al. 2019).

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> SmoothGradCAMPlusPlus(model, gradient=Smooth(samples=4))(image).diagnostics[0]["forward_passes"]
    5
    """

    title: ClassVar[str] = "Smooth Grad-CAM++"
    weighting: WeightingName | Weighting = "grad_cam_plus_plus"
    gradient: Estimator = field(default_factory=Smooth)


@dataclass(eq=False)
class IntegratedGradCAM(CAM):
    """Integrated Grad-CAM: the mean map along the path from a baseline (Sattarzadeh et al., ICASSP 2021).

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> IntegratedGradCAM(model, gradient=Integrated(samples=4, quadrature="midpoint"))(image).heatmap
    tensor([[[0.0000, 0.0500],
             [0.1000, 0.0500]]])
    """

    title: ClassVar[str] = "Integrated Grad-CAM"
    gradient: Estimator = field(default_factory=Integrated)


@dataclass(eq=False)
class ExpectedGradCAM(CAM):
    r"""Expected Grad-CAM: Grad-CAM with the gradient expected over paths from many references (Buono et al. 2024).

    .. math:: L = relu\Bigl(\sum_k w_k A^k\Bigr), \qquad w_k = \overline{E[g^k \Delta^k]}

    with g the gradient at images :math:`z = x' + a (x - x') + e`, :math:`\Delta` the steps of the activation along the path
    from a reference x' to the image, and the mean over the cells. All else is Grad-CAM's: the last layer, one weight for a
    channel, the logit.

    The authors published no code, and the text that we have no formulas. It says that the method "exclusively optimizes the
    gradient computation", as "smoothed expectation of the perturbed integrated gradients", with "input kernel smoothing and
    difference-from-reference comparisons". We read: the gradient that Grad-CAM averages over the cells is multiplied by the
    difference from the reference (``pool="contribution"``); taken as steps along the paths (``difference="increment"``), the
    contributions sum to the change of the score, and the gap is in the diagnostics; the kernel is Gaussian noise. References,
    kernel, number of paths and samples are settings of `Expected`; docs/cams.md has what they change.

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> ExpectedGradCAM(model)(image, baseline="black").heatmap
    tensor([[[0.0000, 0.0400],
             [0.0800, 0.0400]]])
    """

    title: ClassVar[str] = "Expected Grad-CAM"
    gradient: Estimator = field(default_factory=lambda: Expected(difference="increment", pool="contribution", noise_std=0.05))
