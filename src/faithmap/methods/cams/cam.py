r"""CAM: any weighting of a layer's channels with any estimate of their gradients, and the named methods.

.. math:: L = relu\Bigl(\sum_k w_k A^k\Bigr)

Weights w: :mod:`faithmap.methods.cams.weightings`. Gradients: :mod:`faithmap.methods.cams.estimators`. The map has the layer's
own cells, each centred as :mod:`faithmap.placement` finds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.explanation import interpolation_matrix
from faithmap.layers import LayerContext, ReshapeTransform, TargetLayer, target_layers
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request
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
from faithmap.methods.cams.weightings import WEIGHTINGS, Evidence, Weighting, WeightingName
from faithmap.placement import Placement
from faithmap.probe import Pass
from faithmap.score import Score, ScoreKind, Target

TOP = 10
"""Channels that are named in the diagnostics, the largest contribution first."""


@dataclass(eq=False)
class LayerExplainer(Explainer):
    """Base of the methods that look at a layer.

    Args:
        target_layer: a module, its dotted name, several of either (their maps, each over its largest value, are averaged at
            the finest of them), or None: the last layer with a spatial output, which the diagnostics name. It is looked for
            once for each size of images, and where its cells stand is read off a forward pass then.
        scales: resolutions that None takes layers of, from the last one back.
        reshape_transform: from what the layer returns to (n, k, h, w); None recognises pictures, pictures with their channels
            at the end, and the tokens of vision transformers.
        relu: take away what is negative in a map; False gives signed maps.
        placement: of the cells: ``strides`` puts them where the windows are centred that they see through; ``tiles`` on equal
            parts of the image, which trained networks can come closer to (docs/cams.md); ``gradients`` asks the network.

    The score is the logit unless told otherwise, as in the papers of this family. The rest is explained at
    :class:`faithmap.methods.Explainer`.
    """

    score: ScoreKind = "logit"
    target_layer: TargetLayer = None
    scales: int = 1
    reshape_transform: ReshapeTransform | None = None
    relu: bool = True
    placement: Placement = "strides"
    _contexts: dict[Any, LayerContext] = field(default_factory=dict, init=False, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data; layers by their names."""
        given = self.target_layer
        layers = list(next(iter(self._contexts.values())).layers) if self._contexts else _named(given)
        return {**super().settings, "target_layer": layers}

    def _clean(self, images: Float[Tensor, "n c h w"], target: Target) -> tuple[Tensor | None, Score, Tensor, Any]:
        context = self._context(images)
        probe = context.probe(self.model, images, self.score, chunk_size=self.chunk_size, autocast=self.autocast)
        logits, score, answer = probe.clean(target, self.score, gradient=self._gradient_of_clean)
        return logits, score, answer.score, (context, probe, answer)

    @property
    def _gradient_of_clean(self) -> bool:
        """Whether the gradients at the clean images are needed."""
        return False

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if self.placement not in get_args(Placement):
            raise ValueError(f"placement is {self.placement!r}; give one of {', '.join(get_args(Placement))}")

    def _context(self, images: Float[Tensor, "n c h w"]) -> LayerContext:
        size = (images.shape[-2], images.shape[-1])
        given = self.target_layer
        entries = tuple(map(_key, given)) if isinstance(given, Sequence) and not isinstance(given, str) else _key(given)
        key = (size, entries, self.scales, id(self.reshape_transform), self.placement)
        if key not in self._contexts:
            self._contexts[key] = target_layers(
                self.model, given, self.reshape_transform, images[:1], self.scales, self.placement
            )
        return self._contexts[key]

    def _answer(self, request: Request, found: Mapping[str, Weighted], **per_image: Tensor) -> RawHeatmap:
        """The maps of all layers as one, and what it took; for each layer, the channels that contribute the most."""
        context, probe, _ = request.kept
        maps = {name: weighted.heatmap for name, weighted in found.items()}
        finest = max(maps, key=lambda name: maps[name][0].numel())
        heatmap = maps[finest] if len(maps) == 1 else fuse(maps, context.centres, finest)
        passes = {"forward_passes": probe.forward, "backward_passes": probe.backward, **per_image}
        lists = {name: [v if math.isfinite(v) else None for v in values.tolist()] for name, values in passes.items()}
        top = {name: found[name].channel.argsort(dim=1, descending=True)[:, :TOP].tolist() for name in context.layers}
        diagnostics = [
            {"target_layer": list(top), "top_channels": {name: channels[i] for name, channels in top.items()}}
            | {name: values[i] for name, values in lists.items()}
            for i in range(len(heatmap))
        ]
        rows, columns = (centres.to(heatmap.device) for centres in context.centres[finest])
        return RawHeatmap(heatmap.relu() if self.relu else heatmap, diagnostics, rows, columns)


@dataclass(eq=False)
class CAM(LayerExplainer):
    """Class activation map.

    Args:
        weighting: by name, or a callable of your own.
        gradient: :class:`Plain`, :class:`Smooth`, :class:`Integrated` or :class:`Expected`, with their settings.
    """

    weighting: WeightingName | Weighting = "grad_cam"
    gradient: Estimator = field(default_factory=Plain)

    @property
    def _gradient_of_clean(self) -> bool:
        return self.gradient.is_plain

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean one, and those of the estimator."""
        drawn = 0 if self.gradient.is_plain else len(self.gradient.draw(image, torch.Generator(image.device)).position)
        return Passes(1 + drawn, drawn or 1)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        if not callable(self.weighting) and self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting {self.weighting!r} is unknown; give one of {', '.join(WEIGHTINGS)}, or a callable")
        self.gradient.check()

    def _explain(self, request: Request) -> RawHeatmap:
        weighting = self.weighting if callable(self.weighting) else WEIGHTINGS[self.weighting]
        answer: Pass = request.kept[2]
        if self.gradient.is_plain:
            evidence = {name: Evidence(a, answer.gradient[name]) for name, a in answer.activation.items()}
            return self._answer(request, {name: weighted(weighting(e), e.activation) for name, e in evidence.items()})
        passes = getattr(self.gradient, "samples", 1)
        together = min(self.chunk_size, math.lcm(self.chunk_size, passes) // passes)
        everything = torch.arange(len(request.images), device=request.images.device)
        parts = [self._group(request, numbers, weighting) for numbers in everything.split(together)]
        maps = {
            name: Weighted(*map(torch.cat, zip(*(part[0][name] for part in parts), strict=True))) for name in answer.activation
        }
        gaps = [part[1] for part in parts if part[1] is not None]
        return self._answer(request, maps, **({"completeness_gap": torch.cat(gaps)} if gaps else {}))

    def _group(self, request: Request, numbers: Tensor, weighting: Weighting) -> tuple[dict[str, Weighted], Tensor | None]:
        """The maps of as many images as fill whole chunks with their passes, and how far from complete they are, if at all."""
        _, probe, answer = request.kept
        images, activation = request.images[numbers], answer.at(numbers).activation
        samples = [self._estimator(request, i).draw(request.images[i : i + 1], request.generators[i]) for i in numbers.tolist()]
        expectation = Expectation(probe, self.gradient, images, numbers, activation, samples)
        pools = [LayerPool(name, self.gradient.pool, weighting, self.gradient.relu_each, a) for name, a in activation.items()]
        for rows in expectation.rows():
            for pool in pools:
                pool.add(rows)
        request.progress(int(numbers[-1]) + 1, len(request.images))
        maps, sums = {pool.name: pool.result() for pool in pools}, [s for p in pools if (s := p.completeness()) is not None]
        if not sums:
            return maps, None
        change = request.clean[numbers].float() - expectation.start
        return maps, (torch.stack(sums).mean(dim=0) - change).abs() / change.abs()

    def _estimator(self, request: Request, image: int) -> Estimator:
        """The estimator for one image, with what the call gave as its baseline."""
        if request.baseline is None:
            return self.gradient
        return self.gradient.starting_from(request.baseline_for(slice(image, image + 1), request.baseline))


def fuse(
    maps: Mapping[str, Float[Tensor, "n h w"]], centres: Mapping[str, tuple[Tensor, Tensor]], finest: str
) -> Float[Tensor, "n r c"]:
    """The mean of several layers' maps, each over its largest value, at the cells of the finest."""
    at = centres[finest]
    total = torch.zeros_like(maps[finest])
    for name, values in maps.items():
        rows, columns = (interpolation_matrix(own, to).to(values) for own, to in zip(centres[name], at, strict=True))
        largest = values.abs().amax(dim=(1, 2), keepdim=True)
        total += rows @ (values / largest).where(largest > 0, 0) @ columns.mT
    return total / len(maps)


def _key(entry: nn.Module | str | None) -> Any:
    return id(entry) if isinstance(entry, nn.Module) else entry


def _named(given: TargetLayer) -> Any:
    return given if given is None or isinstance(given, str) else str(given)


@dataclass(eq=False)
class GradCAM(CAM):
    """Grad-CAM (Selvaraju et al., ICCV 2017)."""


@dataclass(eq=False)
class GradCAMPlusPlus(CAM):
    """Grad-CAM++ (Chattopadhay et al., WACV 2018)."""

    weighting: WeightingName | Weighting = "grad_cam_plus_plus"


@dataclass(eq=False)
class XGradCAM(CAM):
    """XGrad-CAM (Fu et al., BMVC 2020)."""

    weighting: WeightingName | Weighting = "xgrad_cam"


@dataclass(eq=False)
class LayerCAM(CAM):
    """LayerCAM (Jiang et al., IEEE TIP 2021)."""

    weighting: WeightingName | Weighting = "layer_cam"


@dataclass(eq=False)
class HiResCAM(CAM):
    """HiResCAM (Draelos and Carin 2020)."""

    weighting: WeightingName | Weighting = "hires_cam"


@dataclass(eq=False)
class SmoothGradCAM(CAM):
    """Grad-CAM with the gradients of noisy copies averaged."""

    gradient: Estimator = field(default_factory=Smooth)


@dataclass(eq=False)
class SmoothGradCAMPlusPlus(CAM):
    """Smooth Grad-CAM++ (Omeiza et al. 2019)."""

    weighting: WeightingName | Weighting = "grad_cam_plus_plus"
    gradient: Estimator = field(default_factory=Smooth)


@dataclass(eq=False)
class IntegratedGradCAM(CAM):
    """Integrated Grad-CAM (Sattarzadeh et al., ICASSP 2021)."""

    gradient: Estimator = field(default_factory=Integrated)


@dataclass(eq=False)
class ExpectedGradCAM(CAM):
    """Expected Grad-CAM (Buono et al. 2024), in our reading: see :class:`Expected`.

    Its defaults were chosen on photographs by ``benchmarks/tune_expected.py``: the last layers of three resolutions rather than
    the last layer alone, where most networks' gradients are the same whatever the estimator; cell by cell; the probability,
    whose gradient is large where the path decides; and cells on equal parts of the image.
    """

    score: ScoreKind = "probability"
    scales: int = 3
    placement: Placement = "tiles"
    weighting: WeightingName | Weighting = "hires_cam"
    gradient: Estimator = field(default_factory=Expected)
