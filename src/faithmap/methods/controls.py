"""Controls: the maps of :mod:`faithmap.control_maps` as methods, which a method should score better than."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

import torch
from annotated_types import Ge, Gt, Unit
from jaxtyping import Float
from torch import Tensor

from faithmap.control_maps import CENTRED_SIGMA, centred_map, edge_map
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request, rows_and_columns
from faithmap.seeds import uniform

Resolution: TypeAlias = Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]]


@dataclass(eq=False)
class Control(Explainer):
    """Base of the controls. The model runs once, for the clean score."""

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """The clean pass."""
        del image
        return Passes(1, 0)

    def _answer(self, heatmap: Float[Tensor, "n r c"]) -> RawHeatmap:
        passes: dict[str, Any] = {"forward_passes": 1, "backward_passes": 0}
        return RawHeatmap(heatmap, [dict(passes) for _ in heatmap])


@dataclass(eq=False)
class RandomMap(Control):
    """Independent uniform cells.

    Args:
        resolution: cells per side, or (rows, columns).

    >>> RandomMap(torch.nn.Flatten(), resolution=2)(torch.rand(1, 1, 1, 2)).resolution
    (2, 2)
    """

    title: ClassVar[str] = "random map"
    resolution: Resolution = 28

    def _explain(self, request: Request) -> RawHeatmap:
        shape = rows_and_columns(self.resolution)
        cells = [uniform(shape, generator) for generator in request.generators]
        return self._answer(torch.stack(cells).to(request.images.device))


@dataclass(eq=False)
class CentredGaussian(Control):
    """A Gaussian in the middle of the image.

    Args:
        sigma: standard deviation, as a share of the shorter side.
        resolution: cells per side, or (rows, columns).

    >>> CentredGaussian(torch.nn.Flatten(), resolution=3)(torch.rand(1, 1, 3, 3)).heatmap
    tensor([[[0.1690, 0.4111, 0.1690],
             [0.4111, 1.0000, 0.4111],
             [0.1690, 0.4111, 0.1690]]])
    """

    title: ClassVar[str] = "centred Gaussian"
    sigma: Annotated[float, Gt(0), Unit("parts of the shorter side")] = CENTRED_SIGMA
    resolution: Resolution = 28

    def _explain(self, request: Request) -> RawHeatmap:
        images = request.images
        size = images.shape[-2], images.shape[-1]
        one = centred_map(rows_and_columns(self.resolution), size, self.sigma, images.device)
        return self._answer(one.expand(len(images), -1, -1).clone())


@dataclass(eq=False)
class Edges(Control):
    """The length of the Sobel gradient of the grey image, pixel by pixel; borders are repeated.

    >>> Edges(torch.nn.Flatten())(torch.tensor([[[[0.0, 0.0, 1.0]]]])).heatmap
    tensor([[[0.0000, 0.5000, 0.5000]]])
    """

    title: ClassVar[str] = "edges"

    def _explain(self, request: Request) -> RawHeatmap:
        return self._answer(edge_map(request.images))
