"""Packing: pictures and numbers as text for a page."""

from __future__ import annotations

import base64
import math
from io import BytesIO

import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor


def packed(values: Shaped[Tensor, "*shape"], dtype: torch.dtype) -> str:
    """Numbers in reading order, lowest byte first, as base64.

    >>> packed(torch.tensor([1, 256]), torch.int32)
    'AQAAAAABAAA='
    """
    array = values.detach().cpu().to(dtype).contiguous().numpy()
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def finite(value: float) -> float | None:
    """The value to six digits; None if it is not finite."""
    return round(value, 6) if math.isfinite(value) else None


def png(image: Float[Tensor, "1 3 h w"]) -> str:
    """An image in [0, 1] as a data URI, lossless at 8 bits."""
    pixels = image[0].detach().float().permute(1, 2, 0).clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
    return _uri(Image.fromarray(pixels), "png", compress_level=3)


def jpeg(photo: Image.Image) -> str:
    """A photograph as a data URI."""
    return _uri(photo, "jpeg", quality=88)


def _uri(image: Image.Image, kind: str, **settings: int) -> str:
    file = BytesIO()
    image.save(file, kind.upper(), **settings)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
