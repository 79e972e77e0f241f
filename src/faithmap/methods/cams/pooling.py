r"""Pooling: one heatmap an image out of the gradients and differences of its passes.

With E the mean over the passes, :math:`\overline{\,\cdot\,}` and :math:`\sum` over a channel's cells, and w the weighting,

============  =====================================================  ======================
pool          gradient that w is given                               what w multiplies
============  =====================================================  ======================
gradient      :math:`E[g]` (and its powers' means)                   :math:`E[\Delta]`
contribution  :math:`\overline{E[g \Delta]}`                         :math:`A(x)`
slope         :math:`\sum E[g \Delta] \, / \sum E[\Delta]`           :math:`A(x)`
map           g of every pass                                        :math:`\Delta` of every pass; the maps are averaged
============  =====================================================  ======================
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.methods.cams.estimators import Pool
from faithmap.methods.cams.expectation import Rows
from faithmap.methods.cams.weightings import FIRST_ORDER, Evidence, Weighting


class LayerPool:
    """Sums over the passes of a few images at one layer.

    Args:
        name: of the layer.
        pool: what is averaged.
        weighting: of the channels or cells.
        relu_each: whether the maps of ``pool="map"`` lose what is negative before they are averaged.
        activation: A(x) of the images.
    """

    def __init__(
        self, name: str, pool: Pool, weighting: Weighting, relu_each: bool, activation: Float[Tensor, "n k h w"]
    ) -> None:
        self.name, self.pool, self.weighting, self.relu_each, self.activation = name, pool, weighting, relu_each, activation
        self._powers = ("gradient",) if weighting in FIRST_ORDER else ("gradient", "square", "cube")
        self._sums: dict[str, Tensor] = {}

    def add(self, rows: Rows) -> None:
        """Count some passes in."""
        g, difference = rows.gradient[self.name], rows.difference.get(self.name)
        if self.pool == "gradient":
            for power, name in enumerate(self._powers, start=1):
                self._add(name, rows, g if power == 1 else g.pow(power))
        if difference is None:  # the activation of the image itself, whatever the pass
            return
        channel = (g * difference).sum(dim=(2, 3), keepdim=True)
        self._add("complete", rows, channel.sum(dim=(1, 2, 3)))
        if self.pool == "map":
            one = weighted(self.weighting(Evidence(difference, g)), difference)
            self._add("map", rows, one.heatmap.relu() if self.relu_each else one.heatmap)
            self._add("channel", rows, one.channel)
            return
        self._add("difference", rows, difference)
        if self.pool != "gradient":
            self._add("contribution", rows, channel)

    def result(self) -> Weighted:
        """The map of each image, signed unless its parts were not."""
        sums = self._sums
        if self.pool == "map":
            return Weighted(sums["map"], sums["channel"])
        if self.pool == "gradient":
            moments = [sums[name] for name in self._powers]
            evidence = Evidence(sums.get("difference", self.activation), *moments)
        else:
            whole = sums["difference"].sum(dim=(2, 3), keepdim=True)
            below = whole if self.pool == "slope" else torch.full_like(whole, self.activation[0, 0].numel())
            channel = (sums["contribution"] / below).where(below != 0, 0)
            evidence = Evidence(self.activation, channel.expand_as(self.activation))
        return weighted(self.weighting(evidence), evidence.activation)

    def completeness(self) -> Float[Tensor, " n"] | None:
        """The sum of all contributions; None where gradients multiply no difference."""
        return self._sums.get("complete")

    def _add(self, name: str, rows: Rows, values: Tensor) -> None:
        if name not in self._sums:
            self._sums[name] = values.new_zeros(len(self.activation), *values.shape[1:])
        share, flat = rows.share.to(values), values.reshape(len(values), -1)
        for image, block in rows.blocks:
            self._sums[name][image].view(-1).addmv_(flat[block].mT, share[block])


class Weighted(NamedTuple):
    """Weights times activation, summed over the channels, and over the cells."""

    heatmap: Float[Tensor, "n h w"]
    channel: Float[Tensor, "n k"]


def weighted(weights: Float[Tensor, "n k #h #w"], activation: Float[Tensor, "n k h w"]) -> Weighted:
    """The map, and what each channel contributes to it."""
    parts = weights * activation
    return Weighted(parts.sum(dim=1), parts.sum(dim=(2, 3)))
