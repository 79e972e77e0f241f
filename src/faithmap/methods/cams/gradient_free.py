r"""CAMs whose weights need no gradient: channels are shown alone, taken away, or not asked about at all.

=============  ==============================================================================  ==============
Score-CAM      :math:`w_k = softmax_k \, y(x \circ up(\hat A^k))`, with :math:`\hat A` from 0 to 1       Wang 2020
Ablation-CAM   :math:`w_k = (y - y_{A^k = 0}) / |y|`                                            Desai 2020
Eigen-CAM      :math:`w = v_1`, first right singular vector of A's cells by channels            Muhammad 2020
=============  ==============================================================================  ==============
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.baselines import Baseline, make_baseline
from faithmap.capture import Capture
from faithmap.methods.base import Passes, RawHeatmap, Request
from faithmap.methods.cams.cam import LayerExplainer
from faithmap.methods.cams.estimators import weighted
from faithmap.model import normalised_zero, undisturbed
from faithmap.probe import LayerProbe, MaskProbe, run_model
from faithmap.score import at_least_single


class WeighsChannels(LayerExplainer):
    """Base of the methods that find one weight for each channel of an image's activation."""

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean one, and one for each channel."""
        with undisturbed(self.model):
            context = self._context(image)
            capture = Capture(context.layers)
            with torch.no_grad(), capture.watch():
                run_model(self.model, image)
        grids = (context.reshape[name](values) for name, values in capture.activations.items())
        return Passes(1 + sum(grid.shape[1] for grid in grids), 0)

    def _explain(self, request: Request) -> RawHeatmap:
        answer = request.kept.results
        weights: dict[str, list[Tensor]] = {name: [] for name in answer.activation}
        for image in range(len(request.images)):
            for name, activation in answer.activation.items():
                weights[name].append(self._weights(request, image, name, activation[image]).view(-1, 1, 1))
            request.progress(image + 1, len(request.images))
        return self._raw(
            request, {name: weighted(torch.stack(weights[name]), activation) for name, activation in answer.activation.items()}
        )

    @abstractmethod
    def _weights(self, request: Request, image: int, layer: str, activation: Float[Tensor, "k h w"]) -> Float[Tensor, " k"]:
        """Of the channels of one image at one layer."""


@dataclass(eq=False)
class ScoreCAM(WeighsChannels):
    """Score-CAM: each channel, as a mask, shows a part of the image; what scores high weighs much.

    Args:
        baseline: what the mask hides; the paper multiplies the normalised image, hence its zero, the model's mean colour.

    The softmax over the channels takes the baseline's own score out, as it is the same for all. An image takes one forward
    pass for each channel.
    """

    baseline: Baseline = "zero"

    def _weights(self, request: Request, image: int, layer: str, activation: Float[Tensor, "k h w"]) -> Float[Tensor, " k"]:
        del layer
        shown = request.images[image : image + 1]
        given = request.baseline_for(slice(image, image + 1), self.baseline)
        hidden = normalised_zero(self.model) if isinstance(given, str) and given == "zero" else given
        index = request.clean.new_tensor([image], dtype=torch.long)
        settings: dict[str, Any] = {"chunk_size": self.chunk_size, "autocast": self.autocast}
        masked = MaskProbe(self.model, request.score.of(index), shown, make_baseline(hidden, shown), **settings)
        low, high = activation.amin(dim=(1, 2), keepdim=True), activation.amax(dim=(1, 2), keepdim=True)
        masks = ((activation - low) / (high - low)).where(high > low, 0).to(shown.dtype)
        scores = masked.scores(masks, torch.zeros(len(masks), dtype=torch.long, device=shown.device))
        probe: LayerProbe = request.kept.probe
        probe.forward[image] += len(masks)
        return scores.softmax(dim=0)


@dataclass(eq=False)
class AblationCAM(WeighsChannels):
    """Ablation-CAM: each channel is set to 0; what makes the score fall weighs much.

    An image takes one forward pass for each channel. Where the score itself is 0, the falls are not divided by it. Where
    it is negative, as a logit can be, they are divided by its size: divided by the score they would change their sign.
    """

    @torch.no_grad()
    def _weights(self, request: Request, image: int, layer: str, activation: Float[Tensor, "k h w"]) -> Float[Tensor, " k"]:
        probe: LayerProbe = request.kept.probe
        channels = torch.arange(len(activation), device=activation.device)
        scores = [probe.without_channels(image, layer, some) for some in channels.split(self.chunk_size)]
        clean = request.clean[image]
        fall = clean - torch.cat(scores)
        return at_least_single(fall / clean.abs() if bool(clean != 0) else fall)


@dataclass(eq=False)
class EigenCAM(WeighsChannels):
    """Eigen-CAM: the first principal component of the activation. It is the same for every class.

    A singular vector has no sign of its own; it is turned so that the map's sum is not negative. Nothing is subtracted from
    the activation first, as in the paper's equations.
    """

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean one."""
        del image
        return Passes(1, 0)

    def _weights(self, request: Request, image: int, layer: str, activation: Float[Tensor, "k h w"]) -> Float[Tensor, " k"]:
        del request, image, layer
        cells = activation.flatten(1).mT
        first: Tensor = torch.linalg.svd(cells, full_matrices=False).Vh[0]
        return first if bool((cells @ first).sum() >= 0) else -first
