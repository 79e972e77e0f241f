r"""A learned mask: one pass of a small network instead of an optimisation (Dabkowski and Gal, NeurIPS 2017).

A U-Net computes a mask from an image and a class. At its coarsest level each position :math:`x` is filtered by its similarity
to the class, whose embedding :math:`e_c` is learned:

.. math:: s = x \cdot e_c / \sqrt{k}, \qquad x \leftarrow x \, \sigma(s)

with k channels. The filter :math:`\sigma(s)` is an input of every finer level, and :math:`\log \sum e^s` over all positions is
the log-odds that the class is present. The network is trained once for each classifier
(:mod:`faithmap.methods.masks.masker_training`).

In the paper the encoder is the classifier itself. Here the network sees only the image, so that it works for any classifier: no
layers have to be named, and the classifier is not run to make a mask. The row and the column of each pixel are two more
channels, since a classifier may depend on a position rather than on an object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from faithmap.baselines import Baseline
from faithmap.methods.base import Clean, Explainer, Passes, RawHeatmap, Request
from faithmap.model import describe
from faithmap.score import Target

LEVELS = 4
"""The encoder halves the image this many times; the mask has half the image's resolution."""


class Masker(nn.Module):
    """A network that computes masks.

    Args:
        classes: number of classes, at least 1.
        channels: of the finest level, a multiple of 4; each coarser level has twice as many.
        colours: channels of the images, at least 1.

    Attributes:
        trained_for: name and digest of the weights of the classifier; None before training.
        steps: of training so far.
        digest: SHA-256 of the file that it was read from, or None.

    Raises:
        ValueError: for numbers outside these ranges.

    >>> Masker(classes=2, channels=4)(torch.rand(1, 3, 16, 16), torch.tensor([1])).shape
    torch.Size([1, 8, 8])
    """

    def __init__(self, classes: int, channels: int = 16, colours: int = 3) -> None:
        super().__init__()
        if classes < 1 or colours < 1 or channels < 4 or channels % 4:
            raise ValueError(f"channels is {channels}, for {classes} classes and {colours} colours; give a multiple of 4")
        self.classes, self.channels, self.colours = classes, channels, colours
        self.trained_for: Mapping[str, Any] | None = None
        self.steps = 0
        self.digest: str | None = None
        widths = [channels * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(
            _block(channels_in, channels_out, stride=2)
            for channels_in, channels_out in zip([colours + 2, *widths], widths, strict=False)
        )
        self.embedding = nn.Embedding(classes, widths[-1])
        self.up = nn.ModuleList(_block(fine + 2 * fine + 1, fine) for fine in reversed(widths[:-1]))
        self.head = nn.Conv2d(channels, 1, 1)

    def forward(self, images: Float[Tensor, "n c h w"], classes: Int[Tensor, " n"]) -> Float[Tensor, "n r c"]:
        """The mask of each image for its class, in [0, 1], 1 where the class is.

        Args:
            images: in [0, 1].
            classes: one for each image.
        """
        return self.masks_and_odds(images, classes)[0]

    def masks_and_odds(
        self, images: Float[Tensor, "n c h w"], classes: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n r c"], Float[Tensor, " n"]]:
        """The masks, and the log-odds that the class is present.

        Args:
            images: in [0, 1].
            classes: one for each image.
        """
        x = torch.cat([images * 2 - 1, _positions(images)], dim=1)
        finer = []
        for block in self.down:
            x = block(x)
            finer.append(x)
        similar = torch.einsum("nkhw,nk->nhw", x, self.embedding(classes)).unsqueeze(1) / math.sqrt(x.shape[1])
        passed = similar.sigmoid()
        x = x * passed
        for block, skip in zip(self.up, reversed(finer[:-1]), strict=True):
            coarser = torch.cat([x, passed * 2 - 1], dim=1)
            x = block(torch.cat([_enlarged(coarser, skip), skip], dim=1))
            passed = _enlarged(passed, skip)
        return self.head(x).squeeze(1).sigmoid(), similar.flatten(1).logsumexp(dim=1)


def _enlarged(coarse: Float[Tensor, "n k i j"], fine: Float[Tensor, "n l h w"]) -> Float[Tensor, "n k h w"]:
    return F.interpolate(coarse, fine.shape[-2:], mode="nearest")


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """Convolution and ReLU, normalised within each image, so that masks do not depend on the batch."""
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(4, channels_out), nn.ReLU(inplace=True))


def _positions(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 2 h w"]:
    """Row and column of each pixel, from -1 to 1."""
    rows, columns = (torch.linspace(-1, 1, n, device=images.device, dtype=images.dtype) for n in images.shape[-2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return grid.expand(len(images), *grid.shape)


@dataclass(eq=False)
class LearnedMask(Explainer):
    """The mask of a network that was trained for this classifier. Maps have half the image's resolution and are in [0, 1].

    An image takes one pass of the network, and one of the classifier for its class and score.

    Args:
        masker: the network, from :func:`~faithmap.methods.masks.masker_training.train_masker` or
            :func:`~faithmap.methods.masks.masker_files.read_masker`, on the images' device.

    >>> from faithmap.methods.masks.masker_training import MaskerSettings, train_masker
    >>> model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 2)), torch.rand(4, 3, 16, 16)
    >>> training = train_masker(model, images, steps=2, settings=MaskerSettings(channels=4, batch=2))
    >>> LearnedMask(model, masker=training.masker)(images).heatmap.shape
    torch.Size([4, 8, 8])
    """

    title: ClassVar[str] = "learned mask"
    masker: Masker | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as plain data; of the masker, the digest of its file and its steps."""
        known = None if self.masker is None else {"digest": self.masker.digest, "steps": self.masker.steps}
        return {**super().settings, "masker": known}

    def optimises(self, baseline: Baseline | None = None) -> tuple[str, ...]:
        """The removals of the training.

        Args:
            baseline: is not used.
        """
        del baseline
        return "blur", "colour", "noise"

    def passes(self, image: Float[Tensor, "1 c h w"]) -> Passes:
        """One, for the clean image; the pass of the masker is not counted."""
        del image
        return Passes(1, 0)

    def _check(self, size: tuple[int, int]) -> None:
        super()._check(size)
        masker = self.masker
        if masker is None:
            raise ValueError("masker is None; train one with train_masker, or read one with read_masker")
        check_fit(masker, self.model)

    def _clean(self, images: Float[Tensor, "n c h w"], target: Target) -> Clean:
        logits, score, clean, kept = super()._clean(images, target)
        assert self.masker is not None  # noqa: S101 - _check raises an error
        if logits is None:
            raise ValueError("target is a callable, and a masker explains only classes; give classes, or None")
        if logits.shape[1] != self.masker.classes or images.shape[1] != self.masker.colours:
            raise ValueError(
                f"the masker has {self.masker.classes} classes and {self.masker.colours} colours, the model has "
                f"{logits.shape[1]} and the images {images.shape[1]}; train one for this model"
            )
        return logits, score, clean, kept

    def _explain(self, request: Request) -> RawHeatmap:
        assert self.masker is not None  # noqa: S101 - _check raises an error
        assert request.score.classes is not None  # noqa: S101 - so does _clean
        weight = self.masker.head.weight
        if weight.device != request.images.device:
            raise ValueError(f"images are on {request.images.device}, the masker is on {weight.device}; move one of them")
        masks = []
        parts = request.images.split(self.chunk_size), request.score.classes.split(self.chunk_size)
        with torch.no_grad():
            for images, classes in zip(*parts, strict=True):
                masks.append(self.masker(images.to(weight.dtype), classes))
                request.progress(sum(map(len, masks)), len(request.images))
        heatmap = torch.cat(masks)
        passes = {"forward_passes": 1, "backward_passes": 0, "masker_passes": 1}
        return RawHeatmap(heatmap, [{**passes, "area": area} for area in heatmap.mean(dim=(1, 2)).tolist()])


def check_fit(masker: Masker, model: nn.Module) -> None:
    """Raise ValueError unless the masker was trained for this classifier, by its name and the digest of its weights."""
    given = identity(model)
    if masker.trained_for is not None and dict(masker.trained_for) != given:
        raise ValueError(
            f"the masker was trained for {_words(masker.trained_for)}, not for {_words(given)}; train one for that"
        )


def identity(model: nn.Module) -> dict[str, Any]:
    """Name and digest of the weights of a classifier, which a masker stores."""
    described = describe(model)
    return {"name": described["name"], "digest": described["digest"]}


def _words(known: Mapping[str, Any]) -> str:
    name, digest = str(known.get("name"))[:80], known.get("digest")
    return f"{name} with weights {digest[:12]}" if isinstance(digest, str) else name
