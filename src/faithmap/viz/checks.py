"""What every picture asks of its inputs: one image, in [0, 1], and a heatmap that was made for it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics.functional import DeletionInsertion

SLACK = 1e-3
"""How far a pixel may lie outside [0, 1], for the sake of interpolation and half precision."""


def one_photo(image: Float[Tensor, "1 c h w"], name: str = "image") -> Float[Tensor, "1 3 h w"]:
    """A single image as RGB in [0, 1], in single precision and on the processor; grey gets three equal channels.

    Raises:
        ValueError: for several images, another shape, or pixels that no picture can show.
    """
    if image.ndim != 4 or image.shape[1] not in (1, 3):
        raise ValueError(f"{name} has shape {tuple(image.shape)}; give (1, 3, height, width), or 1 channel of grey")
    if len(image) != 1:
        raise ValueError(f"{name} holds {len(image)} images; give one, such as {name}[i : i + 1]")
    pixels = image.detach().to("cpu", torch.float32)
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise ValueError(f"pixels of {name} range from {low:.3g} to {high:.3g}; give values in [0, 1]")
    return pixels.clamp(0, 1).expand(-1, 3, -1, -1)


def check_explained(image: Float[Tensor, "1 c h w"], why: Explanation, proof: DeletionInsertion | None = None) -> None:
    """Raise ValueError where explanation or curves are of several images, or of images of another size."""
    if len(why) != 1:
        raise ValueError(f"the explanation holds {len(why)} images; give one, such as why[i]")
    if tuple(image.shape[-2:]) != tuple(why.image_size):
        raise ValueError(
            f"image is {image.shape[-2]} x {image.shape[-1]} pixels, but the explained one was "
            f"{why.image_size[0]} x {why.image_size[1]}; give the image that was explained"
        )
    if proof is not None and len(proof.deletion.scores) != 1:
        count = len(proof.deletion.scores)
        raise ValueError(f"the proof holds {count} images; give that of one, such as proof[i]")
