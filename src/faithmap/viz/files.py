"""Pictures as files: the same bytes whenever they are written."""

from __future__ import annotations

import os
from pathlib import Path

from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from faithmap.viz.checks import one_photo
from faithmap.viz.figure import DPI, png, to_bytes


def save_image(image: Float[Tensor, "1 c h w"], path: str | os.PathLike[str]) -> None:
    """Write one image, in [0, 1], as a PNG file of its own size.

    Raises:
        ValueError: for several images, pixels outside [0, 1], or another suffix than ``.png``.
    """
    Image.fromarray(to_bytes(one_photo(image))).save(_png_path(path), format="PNG")


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: float = DPI) -> None:
    """Write a figure as a PNG file without date or software.

    Raises:
        ValueError: for another suffix than ``.png``.
    """
    _png_path(path).write_bytes(png(figure, dpi))


def _png_path(path: str | os.PathLike[str]) -> Path:
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{os.fspath(path)!r} does not end in .png, the format that is written; give such a path")
    return Path(path)
