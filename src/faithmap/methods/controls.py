r"""Controls: maps that do not depend on the model. A method should score better than a control.

:random: independent uniform cells.
:centred Gaussian: :math:`e^{-d^2 / 2 \sigma^2}`, with d the distance from the middle in parts of the shorter side, since most
    photographs have their object there.
:edges: the length of the Sobel gradient of the grey image (Adebayo et al. 2018), which resembles explanations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

import torch
from annotated_types import Ge, Gt, Unit
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

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
    sigma: Annotated[float, Gt(0), Unit("parts of the shorter side")] = 0.25
    resolution: Resolution = 28

    def _explain(self, request: Request) -> RawHeatmap:
        images = request.images
        axes = []
        for cells, pixels in zip(rows_and_columns(self.resolution), images.shape[-2:], strict=True):
            at = torch.linspace(-(pixels - 1) / 2, (pixels - 1) / 2, cells, device=images.device)
            axes.append(torch.exp(-0.5 * (at / (self.sigma * min(images.shape[-2:]))).square()))
        return self._answer(torch.outer(*axes).expand(len(images), -1, -1).clone())


@dataclass(eq=False)
class Edges(Control):
    """The length of the Sobel gradient of the grey image, pixel by pixel; borders are repeated.

    >>> Edges(torch.nn.Flatten())(torch.tensor([[[[0.0, 0.0, 1.0]]]])).heatmap
    tensor([[[0.0000, 0.5000, 0.5000]]])
    """

    title: ClassVar[str] = "edges"

    def _explain(self, request: Request) -> RawHeatmap:
        grey = request.images.mean(dim=1, keepdim=True)
        across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=grey.dtype, device=grey.device) / 8
        kernels = torch.stack([across, across.T]).unsqueeze(1)
        slopes = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernels)
        return self._answer(slopes.norm(dim=1))
