r"""Phi: images with parts replaced by a baseline.

.. math:: \Phi(I, M) = I \cdot up(M) + b \, (1 - up(M))

with :math:`up` the bilinear upsampling to the image's size, corners aligned. A mask of one shows the image, a mask of zero
the baseline (I-GOS, Eqs. 2 and 9).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def upsample(mask: Float[Tensor, "m 1 r c"], size: tuple[int, int]) -> Float[Tensor, "m 1 h w"]:
    """The mask at the size (height, width), bilinear with aligned corners; a mask of that size is returned unchanged.

    >>> upsample(torch.tensor([[[[0.0, 1.0]]]]), (1, 3))
    tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    if tuple(mask.shape[-2:]) == size:
        return mask
    return F.interpolate(mask, size, mode="bilinear", align_corners=True)


def compose(
    image: Float[Tensor, "m c h w"], baseline: Float[Tensor, "m c h w"], mask: Float[Tensor, "m 1 h w"]
) -> Float[Tensor, "m c h w"]:
    """Phi: the image where the upsampled mask is 1, the baseline where it is 0.

    >>> compose(torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.25]]]]))
    tensor([[[[1.0000, 0.2500]]]])
    """
    return torch.addcmul(baseline, mask, image - baseline)


def rows_of(values: Float[Tensor, "n c h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "k c h w"]:
    """``values[index]``; on a CPU one row to broadcast if all are the same, as in most chunks of a path.

    On a CPU the copy of a chunk of images costs several percent of the model's passes. On an accelerator the copy is faster
    than the comparison, whose result has to reach the host.

    >>> rows_of(torch.arange(3.0).view(3, 1, 1, 1), torch.tensor([2, 2])).shape
    torch.Size([1, 1, 1, 1])
    """
    if index.device.type == "cpu" and len(index) > 0 and bool((index == index[0]).all()):
        return values[int(index[0])].unsqueeze(0)
    return values[index]
