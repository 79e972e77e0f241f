r"""Expectations over passes: from samples to gradients :math:`g` and the differences :math:`\Delta` that they multiply.

Contributions are complete when those of a path sum to the change of the score over it,

.. math:: \sum_t \sum_{k,ij} g^k_t \, \Delta^k_t \approx y(x) - y(x')

which steps along the path do in the limit of dense positions (here by the trapezoid rule: the mean gradient of a step's two
ends), and :math:`A(x) - A(x')` only where A is linear on the path. How far they are from it is the completeness gap,
:math:`|sum - (y(x) - E y(x'))| / |y(x) - E y(x')|`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.methods.cams.estimators import Estimator
from faithmap.methods.sampling import Samples, Stream
from faithmap.probe import LayerProbe, Layers, Pass, joined


@dataclass(frozen=True, eq=False)
class Rows:
    """Passes, or steps between them, to be summed by image with their shares.

    Attributes:
        blocks: images, and which rows are theirs.
        share: each row's weight in the mean.
        gradient: g at each layer.
        difference: what it is multiplied by, at each layer; nothing where that is A(x).
    """

    blocks: list[tuple[int, slice]]
    share: Float[Tensor, " m"]
    gradient: Layers
    difference: Layers


class Expectation:
    """The passes of a few images, in one stream of full chunks.

    Args:
        probe: of the model, at the layers.
        estimator: whose samples they are.
        images: the few.
        numbers: what the model counts them as.
        activation: A(x) at each layer.
        samples: of each image.

    Attributes:
        start: mean score of each image's references, complete when all rows are out; 0 where none are asked.
    """

    def __init__(
        self,
        probe: LayerProbe,
        estimator: Estimator,
        images: Float[Tensor, "n c h w"],
        numbers: Int[Tensor, " n"],
        activation: Layers,
        samples: list[Samples],
    ) -> None:
        self.probe, self.estimator, self.images, self.numbers = probe, estimator, images, numbers
        self.activation = activation
        self.start = images.new_zeros(len(images), dtype=torch.float32)
        self._stream = Stream(images, samples)
        self._image, self._share = self._stream.image, self._stream.share
        self._passes = torch.arange(len(self._image))
        self._first = self._passes.where(self._share == 0, 0).cummax(dim=0).values

    def rows(self) -> Iterator[Rows]:
        """All of them, a chunk at a time."""
        carried: tuple[Tensor, Pass] | None = None
        for passes in self._passes.split(self.probe.chunk_size):
            index = self._image[passes].to(self.images.device)
            compared = self.estimator.difference != "none"
            answer = self.probe.observe(self._stream.perturbed(passes), self.numbers[index], keep=compared)
            if not compared:
                yield Rows(blocks(self._image[passes]), self._share[passes].to(index.device), answer.gradient, {})
                continue
            self._note_start(passes, answer)
            seen = passes
            if carried is not None:
                seen, answer = torch.cat([carried[0], passes]), joined([carried[1], answer])
            yield self._compared(passes, seen, answer)
            kept = torch.stack([self._first[passes[-1]], passes[-1]])
            carried = kept, answer.at(torch.searchsorted(seen, kept))

    def _note_start(self, passes: Int[Tensor, " m"], answer: Pass) -> None:
        """Add the scores of references to their image's mean."""
        first = self._share[passes] == 0
        image = self._image[passes][first]
        paths = self._image[self._share == 0].bincount(minlength=len(self.images))
        scores = answer.score[first.to(answer.score.device)] / paths[image].to(answer.score)
        self.start.index_add_(0, image.to(self.start.device), scores.to(self.start))

    def _compared(self, passes: Int[Tensor, " m"], seen: Int[Tensor, " l"], answer: Pass) -> Rows:
        """The differences of the chunk's passes, of which ``answer`` has those in ``seen``, in ascending order."""
        counted = passes[self._share[passes] > 0]
        index = self._image[counted].to(self.images.device)
        here, before, origin = (torch.searchsorted(seen, which) for which in (counted, counted - 1, self._first[counted]))
        now, other = answer.at(here), answer.at(before if self.estimator.difference == "increment" else origin)
        gradient, end = now.gradient, now.activation
        if self.estimator.difference == "increment":
            gradient = {name: (g + other.gradient[name]) / 2 for name, g in gradient.items()}
        elif self.estimator.difference == "reference":
            end = {name: a[index] for name, a in self.activation.items()}
        difference = {name: a - other.activation[name] for name, a in end.items()}
        return Rows(blocks(self._image[counted]), self._share[counted].to(index.device), gradient, difference)


def blocks(image: Int[Tensor, " m"]) -> list[tuple[int, slice]]:
    """Where the rows of each image lie, which follow each other.

    >>> blocks(torch.tensor([3, 3, 4]))
    [(3, slice(0, 2, None)), (4, slice(2, 3, None))]
    """
    images, counts = image.unique_consecutive(return_counts=True)
    ends = counts.cumsum(dim=0).tolist()
    return [(i, slice(end - count, end)) for i, count, end in zip(images.tolist(), counts.tolist(), ends, strict=True)]
