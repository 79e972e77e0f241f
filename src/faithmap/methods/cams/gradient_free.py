r"""CAMs whose weights need no gradient: each channel used as a mask, each channel removed, or the activation alone.

=============  ==============================================================================  ==============
Score-CAM      :math:`w_k = softmax_k \, y(x \circ up(\hat A^k))`, with :math:`\hat A` from 0 to 1       Wang 2020
Ablation-CAM   :math:`w_k = (y - y_{A^k = 0}) / |y|`                                            Desai 2020
Eigen-CAM      :math:`w = v_1`, first right singular vector of A's cells by channels            Muhammad 2020
=============  ==============================================================================  ==============
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.baselines import Baseline, make_baseline
from faithmap.capture import Capture
from faithmap.methods.base import Passes, RawHeatmap, Request, warn_if_recognised
from faithmap.methods.cams.cam import LayerExplainer
from faithmap.methods.cams.estimators import weighted
from faithmap.model import undisturbed
from faithmap.probe import LayerProbe, MaskProbe, run_model
from faithmap.score import at_least_single


class ChannelWeights(LayerExplainer):
    """Base of the methods with one weight for each channel of an image's activation."""

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean pass, and one for each channel."""
        with undisturbed(self.model):
            context = self._context(image)
            capture = Capture(context.layers, context.parts)
            with torch.no_grad(), capture.watch():
                run_model(self.model, image)
        grids = (context.reshape[name](values) for name, values in capture.activations.items())
        return Passes(1 + sum(grid.shape[1] for grid in grids), 0)

    def _explain(self, request: Request) -> RawHeatmap:
        activations = request.kept.results.activation
        weights: dict[str, list[Tensor]] = {name: [] for name in activations}
        for image in range(len(request.images)):
            for name, activation in activations.items():
                weights[name].append(self._weights(request, image, name, activation[image]).view(-1, 1, 1))
            request.progress(image + 1, len(request.images))
        return self._raw(request, {name: weighted(torch.stack(weights[name]), a) for name, a in activations.items()})

    @abstractmethod
    def _weights(self, request: Request, image: int, layer: str, activation: Float[Tensor, "k h w"]) -> Float[Tensor, " k"]:
        """The weights of the channels of one image at one layer."""


@dataclass(eq=False)
class ScoreCAM(ChannelWeights):
    """Score-CAM: each channel is used as a mask, and weighted by the score of the masked image.

    The baseline's own score has no effect, since the softmax over the channels removes what is the same for all. An image takes
    one forward pass for each channel.

    Args:
        baseline: what a removed pixel becomes; a name, pixel value, tensor or callable. The paper multiplies the normalised
            image, hence "zero", the model's mean colour.

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> ScoreCAM(model)(image).diagnostics[0]["forward_passes"]
    3
    """

    title: ClassVar[str] = "Score-CAM"
    reads_removals: ClassVar[bool] = True
    baseline: Baseline = "zero"

    def _explain(self, request: Request) -> RawHeatmap:
        everything = slice(0, len(request.images))
        index = torch.arange(len(request.images), device=request.images.device)
        warn_if_recognised(self, request, index, self._baselines(request, everything))
        return super()._explain(request)

    def _baselines(self, request: Request, images: slice) -> Float[Tensor, "m c h w"]:
        return make_baseline(request.baseline_for(images, self.baseline), request.images[images])

    def _weights(self, request: Request, image: int, layer: str, activation: Float[Tensor, "k h w"]) -> Float[Tensor, " k"]:
        del layer
        only = slice(image, image + 1)
        one, baseline = request.images[only], self._baselines(request, only)
        index = request.clean.new_tensor([image], dtype=torch.long)
        settings: dict[str, Any] = {"chunk_size": self.chunk_size, "autocast": self.autocast}
        masked = MaskProbe(self.model, request.score.of(index), one, baseline, **settings)
        low, high = activation.amin(dim=(1, 2), keepdim=True), activation.amax(dim=(1, 2), keepdim=True)
        masks = ((activation - low) / (high - low)).where(high > low, 0).to(one.dtype)
        scores = masked.scores(masks, torch.zeros(len(masks), dtype=torch.long, device=one.device))
        probe: LayerProbe = request.kept.probe
        probe.forward[image] += len(masks)
        return scores.softmax(dim=0)


@dataclass(eq=False)
class AblationCAM(ChannelWeights):
    """Ablation-CAM: each channel is set to 0, and weighted by the relative fall of the score.

    An image takes one forward pass for each channel. A fall is divided by the absolute score, since a negative logit would turn
    its sign, and not divided if the score is 0.

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> image = torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.1, 0.1], [0.1, 0.1]]]])
    >>> AblationCAM(model)(image).heatmap
    tensor([[[0.0000, 0.4000],
             [0.8000, 0.4000]]])
    """

    title: ClassVar[str] = "Ablation-CAM"

    @torch.no_grad()
    def _weights(self, request: Request, image: int, layer: str, activation: Float[Tensor, "k h w"]) -> Float[Tensor, " k"]:
        probe: LayerProbe = request.kept.probe
        channels = torch.arange(len(activation), device=activation.device)
        scores = [probe.without_channels(image, layer, some) for some in channels.split(self.chunk_size)]
        clean = request.clean[image]
        fall = clean - torch.cat(scores)
        return at_least_single(fall / clean.abs() if bool(clean != 0) else fall)


@dataclass(eq=False)
class EigenCAM(ChannelWeights):
    """Eigen-CAM: the first principal component of the activation, the same for every class.

    The sign of a singular vector is arbitrary: the one is taken with which the map's sum is not negative. The activation is not
    centred, as in the paper's equations.

    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> EigenCAM(model)(torch.tensor([[[[0.0, 0.4], [0.8, 0.4]], [[0.0, 0.0], [0.0, 0.0]]]])).heatmap
    tensor([[[0.0000, 0.4000],
             [0.8000, 0.4000]]])
    """

    title: ClassVar[str] = "Eigen-CAM"

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean pass."""
        del image
        return Passes(1, 0)

    def _weights(self, request: Request, image: int, layer: str, activation: Float[Tensor, "k h w"]) -> Float[Tensor, " k"]:
        del request, image, layer
        cells = activation.flatten(1).mT
        first: Tensor = torch.linalg.svd(cells, full_matrices=False).Vh[0]
        return first if bool((cells @ first).sum() >= 0) else -first
