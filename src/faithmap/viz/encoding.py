"""Frames as one small file that plays again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SUFFIXES = (".gif", ".webp")

Frames = Sequence[NDArray[np.uint8]]

_COLOURS = 254
"""Of a GIF's 256; one more is white, and the last one is left for what stays as it was."""

_NOISE = 8
"""Strength of the pattern that hides the steps between a GIF's few colours, in levels out of 255."""


def write_film(frames: Frames, durations: Sequence[int], path: Path) -> None:
    """Write a GIF or a WebP, by the suffix.

    Args:
        frames: rows, columns and RGB each, all of one size.
        durations: of each frame, in milliseconds.
        path: ends in one of :data:`SUFFIXES`.
    """
    common: dict[str, Any] = {"save_all": True, "duration": list(durations), "loop": 0}
    if path.suffix.lower() == ".gif":
        first, *rest = _in_few_colours(frames)
        first.save(path, "GIF", append_images=rest, disposal=1, **common)
    else:
        first, *rest = (Image.fromarray(frame) for frame in frames)
        first.save(path, "WEBP", append_images=rest, quality=85, method=2, **common)


def _in_few_colours(frames: Frames) -> list[Image.Image]:
    """All frames in one palette, dithered by a pattern that stands still.

    What does not change from one frame to the next is then the same to the bit, and need not be stored again; dithering
    by error diffusion would make most of the picture flicker and the file five times as large.
    """
    sample = np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]])[::2, ::2]
    palette = Image.fromarray(sample).quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
    colours = [*(palette.getpalette() or [])[: 3 * _COLOURS], 255, 255, 255]
    pattern = _NOISE * _bayer(frames[0].shape[0], frames[0].shape[1])[..., None]
    return [_in_palette(frame, pattern, palette, colours) for frame in frames]


def _in_palette(
    frame: NDArray[np.uint8], pattern: NDArray[np.float64], palette: Image.Image, colours: list[int]
) -> Image.Image:
    """The nearest colours, the pattern added; the paper is the last one and stays white."""
    noisy = (frame + pattern).round().clip(0, 255).astype(np.uint8)
    nearest = np.asarray(Image.fromarray(noisy).quantize(palette=palette, dither=Image.Dither.NONE))
    paper = (frame == 255).all(axis=-1)
    image = Image.fromarray(np.where(paper, np.uint8(len(colours) // 3 - 1), nearest))
    image.putpalette(colours)
    return image


def _bayer(rows: int, columns: int) -> NDArray[np.float64]:
    """Ordered dithering: Bayer's 8 x 8 thresholds in (-0.5, 0.5), repeated over a picture.

    >>> _bayer(2, 2) * 64
    array([[-31.5,   0.5],
           [ 16.5, -15.5]])
    """
    pattern = np.zeros((1, 1))
    for _ in range(3):
        pattern = np.block([[4 * pattern, 4 * pattern + 2], [4 * pattern + 3, 4 * pattern + 1]])
    tiles = np.tile((pattern + 0.5) / pattern.size - 0.5, (-(-rows // 8), -(-columns // 8)))
    return tiles[:rows, :columns]
