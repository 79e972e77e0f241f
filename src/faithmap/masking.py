r"""Phi: images with parts replaced by a baseline, and the model's answers to many of them.

.. math:: \Phi(I, M) = I \cdot up(M) + b \, (1 - up(M))

with :math:`up` the bilinear upsampling to the image's size, corners aligned. A mask of one shows the image, a mask of zero
the baseline (I-GOS, Eqs. 2 and 9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.score import Score, ScoreKind, Target, logits_of, require_gradient, resolve

Disturbance = Callable[[Float[Tensor, "m c h w"], Int[Tensor, " m"]], Float[Tensor, "m c h w"]]
"""Disturbs composed images before the model sees them, never in place; told which image each was made from."""


def upsample(mask: Float[Tensor, "m 1 r c"], size: tuple[int, int]) -> Float[Tensor, "m 1 h w"]:
    """Bilinear, corners aligned; a mask of the image's own size passes unchanged."""
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


@dataclass
class MaskedModel:
    """Asks a model about masked versions of a few images, in chunks.

    A question is a mask and the index of the image that it masks; the order of the questions and the size of the chunks do
    not change an answer beyond rounding.

    Attributes:
        model: takes images, in evaluation mode.
        score: reads the explained number off its output.
        images: what is masked.
        baseline: what is shown instead.
        chunk_size: images in one pass at the most.
        autocast: a lower precision for the model's passes, or None.
        forward: passes that each image has taken so far.
        backward: likewise.
    """

    model: nn.Module
    score: Score
    images: Float[Tensor, "n c h w"]
    baseline: Float[Tensor, "n c h w"]
    chunk_size: int = 32
    autocast: torch.dtype | None = None
    forward: Int[Tensor, " n"] = field(init=False)
    backward: Int[Tensor, " n"] = field(init=False)

    def __post_init__(self) -> None:
        self.images, self.baseline = self.images.contiguous(), self.baseline.contiguous()
        self.difference = self.images - self.baseline
        self.forward = torch.zeros(len(self.images), dtype=torch.long, device=self.images.device)
        self.backward = self.forward.clone()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.images.shape[-2], self.images.shape[-1]

    @torch.no_grad()
    def scores(self, masks: Float[Tensor, "m r c"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """f(Phi(I_i, M)) for every mask M of image i."""
        answers = []
        for rows in self._chunks(len(masks)):
            up = upsample(masks[rows].unsqueeze(1), self.size)
            answers.append(self._answer(self._composed(up, index[rows]), index[rows]))
        return torch.cat(answers)

    def gradients(
        self,
        masks: Float[Tensor, "n r c"],
        index: Int[Tensor, " m"],
        shares: Float[Tensor, " m"],
        disturb: Disturbance | None = None,
    ) -> Float[Tensor, "n r c"]:
        r"""Sum over the questions about image i of :math:`\partial f(D(\Phi(I_i, a M_i))) / \partial M_i`.

        Args:
            masks: one for each image.
            index: the image of each question.
            shares: a, the part of the mask that each question shows.
            disturb: D, such as added noise or a shift; differentiated like the rest.

        The chain rule is written out, so that no graph is kept below the composed image: with :math:`z` that image, the
        gradient to the upsampled mask is :math:`a \sum_c (\partial f / \partial z)_c (I - b)_c`, summed over the questions
        before the adjoint of the upsampling is applied once.
        """
        masks = masks.detach().requires_grad_()
        with torch.enable_grad():
            upsampled = upsample(masks.unsqueeze(1), self.size)
        total = torch.zeros_like(upsampled)
        for rows in self._chunks(len(index)):
            i, share = index[rows], shares[rows].view(-1, 1, 1, 1)
            shown = rows_of(upsampled.detach(), i) * share
            slope = self._slope(shown, i, disturb).mul_(self._change(shown, i))
            total.index_add_(0, i, slope.sum(dim=1, keepdim=True).mul_(share))
        return torch.autograd.grad(upsampled, masks, total)[0]

    def _slope(
        self, up: Float[Tensor, "m 1 h w"], index: Int[Tensor, " m"], disturb: Disturbance | None
    ) -> Float[Tensor, "m c h w"]:
        self.backward += index.bincount(minlength=len(self.images))
        z = self._composed(up, index).requires_grad_()
        with torch.enable_grad():
            shown = z if disturb is None else disturb(z, index)
            scores = self._answer(shown, index)
            require_gradient(scores)
            return torch.autograd.grad(scores.sum(), z)[0]

    def _composed(self, up: Float[Tensor, "m 1 h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        return torch.addcmul(rows_of(self.baseline, index), up, rows_of(self.difference, index))

    def _change(self, up: Float[Tensor, "m 1 h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "k c h w"]:
        """Of the composed images with their masks."""
        del up
        return rows_of(self.difference, index)

    def _answer(self, z: Float[Tensor, "m c h w"], index: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        self.forward += index.bincount(minlength=len(self.images))
        with autocasting(z.device, self.autocast):
            output = self.model(z)
        return self.score(output, index)

    def _chunks(self, count: int) -> Iterator[slice]:
        return (slice(start, start + self.chunk_size) for start in range(0, count, self.chunk_size))


def rows_of(values: Float[Tensor, "n c h w"], index: Int[Tensor, " m"]) -> Float[Tensor, "k c h w"]:
    """``values[index]``; one row to broadcast where all of them are the same, as they are in most chunks of a path.

    A copy of a chunk of images costs a processor several percent of the model's passes. An accelerator copies faster than it
    can be asked what the index holds.
    """
    if index.device.type == "cpu" and len(index) > 0 and bool((index == index[0]).all()):
        return values[int(index[0])].unsqueeze(0)
    return values[index]


def autocasting(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Autocast to ``dtype`` on the device, or nothing."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@torch.no_grad()
def clean_scores(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    target: Target,
    kind: ScoreKind,
    chunk_size: int,
    autocast: torch.dtype | None = None,
) -> tuple[Float[Tensor, "n classes"] | None, Score, Float[Tensor, " n"]]:
    """The logits of the clean images (None for a callable target), the target made concrete, and its scores."""
    function = callable(target) and not isinstance(target, Tensor)
    score = resolve(target, None, kind, len(images)) if function else Score(kind)
    everything = torch.arange(len(images), device=images.device)
    kept = []
    for index in everything.split(chunk_size):
        with autocasting(images.device, autocast):
            output = model(images[index])
        kept.append(score(output, index) if function else logits_of(output))
    if function:
        return None, score, torch.cat(kept)
    logits = torch.cat(kept)
    score = resolve(target, logits, kind, len(images))
    return logits, score, score(logits, everything)
