r"""Occlusion: the fall of the score when a patch is removed (Zeiler and Fergus, ECCV 2014).

.. math:: H_p = \frac{1}{|\{k : p \in R_k\}|} \sum_{k \,:\, p \in R_k} \bigl( f(x) - f(x_{R_k \leftarrow b}) \bigr)

The patches :math:`R_k` are a stride apart, the last ones cut off by the border of the image. A pixel has the mean of the
patches that cover it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Unit
from jaxtyping import Bool, Float
from torch import Tensor

from faithmap.baselines import Baseline, describe_baseline
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request, rows_and_columns, warn_if_recognised
from faithmap.methods.masks.base import mask_probe


@dataclass(eq=False)
class Occlusion(Explainer):
    """Occlusion. Maps have the image's own resolution and are signed.

    Args:
        patch: (height, width) of a patch, or one number for both, in pixels, up to the image's size; None for a seventh of the
            shorter side.
        stride: distance from one patch to the next, down and across, in pixels, at most the patch's size; None for a quarter of
            the patch.
        baseline: what a removed pixel becomes, where the call gives none: "zero", which is 0 in the model's normalised space,
            a grey, as in the paper; a name of :data:`faithmap.BASELINES`, a pixel value, a tensor or a callable.

    >>> explain = Occlusion(torch.nn.Flatten(), patch=1, stride=1, baseline=0.0, score="logit")
    >>> explain(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 3).heatmap
    tensor([[[0., 0.],
             [0., 4.]]])
    """

    title: ClassVar[str] = "occlusion"
    reads_removals: ClassVar[bool] = True
    patch: Annotated[int | tuple[int, int] | None, Unit("pixels")] = None
    stride: Annotated[int | tuple[int, int] | None, Unit("pixels")] = None
    baseline: Baseline = "zero"

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data."""
        return {**super().settings, "baseline": describe_baseline(self.baseline)}

    def cost(self, size: tuple[int, int]) -> int:
        """Forward passes for an image: one for each patch, and one for the clean image.

        Args:
            size: (height, width) of the image, in pixels.

        >>> Occlusion(torch.nn.Identity(), patch=32, stride=8).cost((224, 224))
        626
        """
        return 1 + math.prod(len(starts) for starts in self._starts(size))

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """As :meth:`cost`; exact."""
        return Passes(self.cost((image.shape[-2], image.shape[-1])), 0)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        patch, stride = self._window(size)
        if min(patch) < 1 or patch[0] > size[0] or patch[1] > size[1]:
            raise ValueError(f"patch is {patch}; give 1 to {size[0]} pixels down and 1 to {size[1]} across")
        if min(stride) < 1 or stride[0] > patch[0] or stride[1] > patch[1]:
            raise ValueError(f"stride is {stride}; give at least 1 pixel, and at most the patch's {patch}")

    def _explain(self, request: Request) -> RawHeatmap:
        images = request.images
        size = (images.shape[-2], images.shape[-1])
        corners = torch.cartesian_prod(*(torch.arange(len(starts)) for starts in self._starts(size))).to(images.device)
        maps = []
        for chunk in torch.arange(len(images), device=images.device).split(self.chunk_size):
            chosen = request.baseline_for(chunk, self.baseline)
            probe = mask_probe(self, request, chunk, chosen)
            warn_if_recognised(self, request, chunk, probe.baseline)
            pairs = torch.cartesian_prod(torch.arange(len(chunk)), torch.arange(len(corners))).to(images.device)
            total = images.new_zeros(len(chunk), *size)
            for index, patch in (rows.T for rows in pairs.split(self.chunk_size)):
                removed = self._patches(corners[patch], size)
                fall = request.clean[chunk[index]] - probe.scores((~removed).to(images.dtype), index)
                total.index_add_(0, index, removed * fall.to(total).view(-1, 1, 1))
                request.progress(int(chunk[0]) * len(corners) + len(corners), len(images) * len(corners))
            maps.append(total)
        counts = sum(self._patches(part, size).sum(dim=0) for part in corners.split(self.chunk_size))
        passes = {"forward_passes": 1 + len(corners), "backward_passes": 0}
        return RawHeatmap(torch.cat(maps) / counts, [dict(passes) for _ in images])

    def _patches(self, corners: Tensor, size: tuple[int, int]) -> Bool[Tensor, "m h w"]:
        """The pixels of patches, given the number of each on both axes."""
        axes = []
        for axis, starts in enumerate(self._starts(size)):
            first = torch.tensor(starts, device=corners.device)[corners[:, axis]].unsqueeze(1)
            pixels = torch.arange(size[axis], device=corners.device)
            axes.append((pixels >= first) & (pixels < first + self._window(size)[0][axis]))
        return axes[0].unsqueeze(2) & axes[1].unsqueeze(1)

    def _window(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Patch and stride, with the defaults where none are given."""
        patch = rows_and_columns(max(1, round(min(size) / 7)) if self.patch is None else self.patch)
        return patch, (max(1, patch[0] // 4), max(1, patch[1] // 4)) if self.stride is None else rows_and_columns(self.stride)

    def _starts(self, size: tuple[int, int]) -> list[range]:
        """First pixels of the patches on each axis."""
        axes = zip(size, *self._window(size), strict=True)
        return [range(0, math.ceil((n - patch) / stride) * stride + 1, stride) for n, patch, stride in axes]
