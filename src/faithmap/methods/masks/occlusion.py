r"""Occlusion: what the score loses when a patch goes (Zeiler and Fergus, ECCV 2014).

.. math:: H_p = \frac{1}{|\{k : p \in R_k\}|} \sum_{k \,:\, p \in R_k} \bigl( f(x) - f(x_{R_k \leftarrow b}) \bigr)

where the patches :math:`R_k` stand a stride apart, the last ones cut off by the image's border, and a pixel has the mean of
those that cover it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from faithmap.baselines import Baseline, describe_baseline, make_baseline
from faithmap.methods.base import Explainer, Passes, RawHeatmap, Request, rows_and_columns
from faithmap.model import normalised_zero
from faithmap.probe import MaskProbe


@dataclass(eq=False)
class Occlusion(Explainer):
    """Occlusion.

    Args:
        patch: (height, width) of what goes, or one number for both, in pixels; None for a seventh of the shorter side.
        stride: from one patch to the next, down and across, in pixels; None for a quarter of the patch.
        baseline: what stands there instead; "zero" is 0 in the model's normalised space, a grey, as in the paper.

    The rest is explained at :class:`faithmap.methods.Explainer`. Maps have the image's own resolution and are signed.
    """

    patch: int | tuple[int, int] | None = None
    stride: int | tuple[int, int] | None = None
    baseline: Baseline = "zero"

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data."""
        return {**super().settings, "baseline": describe_baseline(self.baseline)}

    def cost(self, size: tuple[int, int]) -> int:
        """Forward passes that an image of that (height, width) takes, its own among them.

        >>> Occlusion(torch.nn.Identity(), patch=32, stride=8).cost((224, 224))
        626
        """
        return 1 + math.prod(len(starts) for starts in self._starts(size))

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """As :meth:`cost` says."""
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
        covers = torch.cartesian_prod(*(torch.arange(len(starts)) for starts in self._starts(size))).to(images.device)
        maps = []
        for numbers in torch.arange(len(images), device=images.device).split(self.chunk_size):
            masked = self._masked(request, numbers)
            questions = torch.cartesian_prod(torch.arange(len(numbers)), torch.arange(len(covers))).to(images.device)
            total = torch.zeros(len(numbers), *size, device=images.device)
            for index, patch in (chunk.T for chunk in questions.split(self.chunk_size)):
                gone = self._patches(covers[patch], size)
                fall = request.clean[numbers[index]] - masked.scores((~gone).to(images.dtype), index)
                total.index_add_(0, index, gone * fall.float().view(-1, 1, 1))
                request.progress(int(numbers[0]) * len(covers) + len(covers), len(images) * len(covers))
            maps.append(total)
        counts = sum(self._patches(part, size).sum(dim=0) for part in covers.split(self.chunk_size))
        passes = {"forward_passes": 1 + len(covers), "backward_passes": 0}
        return RawHeatmap(torch.cat(maps) / counts, [dict(passes) for _ in images])

    def _masked(self, request: Request, numbers: Tensor) -> MaskProbe:
        images = request.images[numbers]
        chosen = request.baseline_for(numbers, self.baseline)
        chosen = normalised_zero(self.model) if isinstance(chosen, str) and chosen == "zero" else chosen
        score = request.score.of(numbers)
        baseline = make_baseline(chosen, images)
        return MaskProbe(self.model, score, images, baseline, chunk_size=self.chunk_size, autocast=self.autocast)

    def _patches(self, covers: Tensor, size: tuple[int, int]) -> Bool[Tensor, "m h w"]:
        """Where some of the patches lie."""
        axes = []
        for axis, starts in enumerate(self._starts(size)):
            first = torch.tensor(starts, device=covers.device)[covers[:, axis]].unsqueeze(1)
            at = torch.arange(size[axis], device=covers.device)
            axes.append((at >= first) & (at < first + self._window(size)[0][axis]))
        return axes[0].unsqueeze(2) & axes[1].unsqueeze(1)

    def _window(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Patch and stride in force."""
        patch = rows_and_columns(max(1, round(min(size) / 7)) if self.patch is None else self.patch)
        return patch, (max(1, patch[0] // 4), max(1, patch[1] // 4)) if self.stride is None else rows_and_columns(self.stride)

    def _starts(self, size: tuple[int, int]) -> list[range]:
        """First pixels of the patches on each axis."""
        axes = zip(size, *self._window(size), strict=True)
        return [range(0, math.ceil((n - patch) / stride) * stride + 1, stride) for n, patch, stride in axes]
