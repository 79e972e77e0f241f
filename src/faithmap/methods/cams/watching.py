"""A model's target layers, looked at once: how their activations become pictures, and where the cells of those stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.capture import Capture
from faithmap.methods.layers import ReshapeTransform, TargetLayer, as_grid, find_layers, is_patches
from faithmap.methods.placement import Placement, Trail, tiles
from faithmap.methods.receptive_field import Activate, probed
from faithmap.probe import LayerProbe, run_model
from faithmap.score import Score, ScoreKind


@dataclass(frozen=True, eq=False)
class Watched:
    """The target layers of one model for images of one size.

    Attributes:
        layers: by name.
        reshape: what makes (n, k, h, w) of each one's activation.
        centres: of each one's rows and columns of cells, in pixels.
    """

    layers: Mapping[str, nn.Module]
    reshape: Mapping[str, ReshapeTransform]
    centres: Mapping[str, tuple[Float[Tensor, " r"], Float[Tensor, " c"]]]

    def probe(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        kind: ScoreKind,
        *,
        chunk_size: int,
        autocast: torch.dtype | None = None,
    ) -> LayerProbe:
        """A probe of the model at these layers."""
        return LayerProbe(model, Score(kind), images, self.layers, self.reshape, chunk_size=chunk_size, autocast=autocast)


def watch(
    model: nn.Module,
    target_layer: TargetLayer,
    reshape_transform: ReshapeTransform | None,
    image: Float[Tensor, "1 c h w"],
    scales: int = 1,
    placement: Placement = "strides",
) -> Watched:
    """Find the layers, show the model one image, and read off it what there is to know about images of its size.

    Raises:
        ValueError: for layers that do not exist or do not run once, or activations that are no pictures.
    """
    size = (image.shape[-2], image.shape[-1])
    layers = find_layers(model, target_layer, image, scales)
    capture = Capture(layers)
    with torch.no_grad(), Trail(image) as trail, capture.watch():
        run_model(model, image)
    reshape, centres = {}, {}
    for name, activation in capture.activations.items():
        reshape[name] = reshape_transform or as_grid(activation, layers[name], model, size)
        grid = reshape[name](activation)
        if grid.ndim != 4:
            raise ValueError(f"reshape_transform returned {tuple(grid.shape)}; give (n, k, h, w)")
        shape = (grid.shape[-2], grid.shape[-1])
        place = trail.of(grid) if placement == "strides" else None
        if placement == "tiles" or (place is None and placement == "strides" and is_patches(reshape[name])):
            place = tiles(shape, size)
        place = place or probed(_activate(model, name, layers[name], reshape[name]), image, shape)
        centres[name] = place.centres(shape)
    return Watched(layers, reshape, centres)


def _activate(model: nn.Module, name: str, layer: nn.Module, reshape: ReshapeTransform) -> Activate:
    """What a layer makes of images."""

    def activate(images: Tensor) -> Tensor:
        capture = Capture({name: layer})
        with capture.watch():
            run_model(model, images)
        return reshape(capture.activations[name])

    return activate
