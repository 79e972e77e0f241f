r"""Control maps: heatmaps that know nothing of the model. An explanation should score better than each of them.

:random: independent uniform cells.
:centred: :math:`e^{-d^2 / 2 \sigma^2}`, with d the distance from the middle in parts of the shorter side, since most
    photographs have their object there.
:edges: the length of the Sobel gradient of the grey image (Adebayo et al. 2018), which resembles explanations.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

CENTRED_SIGMA = 0.25
"""Standard deviation of the centred map, as a share of the shorter side."""


def centred_map(
    shape: tuple[int, int], size: tuple[int, int], sigma: float = CENTRED_SIGMA, device: torch.device | None = None
) -> Float[Tensor, "r c"]:
    """A Gaussian in the middle of the image, its corners aligned.

    >>> centred_map((1, 3), (1, 3), sigma=1.0)
    tensor([[0.6065, 1.0000, 0.6065]])

    Args:
        shape: (rows, columns) of the map.
        size: (height, width) of the image, in pixels.
        sigma: standard deviation, as a share of the shorter side.
        device: of the map.
    """
    axes = []
    for cells, pixels in zip(shape, size, strict=True):
        at = torch.linspace(-(pixels - 1) / 2, (pixels - 1) / 2, cells, device=device, dtype=torch.float32)
        axes.append(torch.exp(-0.5 * (at / (sigma * min(size))).square()))
    return torch.outer(*axes)


def edge_map(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """The length of the Sobel gradient of each grey image, pixel by pixel; borders are repeated.

    >>> edge_map(torch.tensor([[[[0.0, 0.0, 1.0]]]]))
    tensor([[[0.0000, 0.5000, 0.5000]]])

    Args:
        images: with any number of channels.
    """
    grey = images.mean(dim=1, keepdim=True)
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=grey.dtype, device=grey.device) / 8
    kernels = torch.stack([across, across.T]).unsqueeze(1)
    slopes: Tensor = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernels).norm(dim=1)
    return slopes
