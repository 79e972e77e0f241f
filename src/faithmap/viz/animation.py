"""Animation of deletion and insertion: both pictures, their scores and the growing curves, as a GIF or WebP file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from faithmap.baselines import Baseline, make_baseline
from faithmap.deprecation import renamed_parameters
from faithmap.explanation import Explanation
from faithmap.viz.curves import frame, line_of
from faithmap.viz.figure import InlineFigure, axes_at, check_explained, one_image, to_bytes
from faithmap.viz.removal_steps import COLOURS, KINDS, CurveKind, composed_images, step_masks

if TYPE_CHECKING:
    from faithmap.metrics.functional import DeletionInsertion

FRAMES, SECONDS = 51, 5.0

SUFFIXES = (".gif", ".webp")

Frames: TypeAlias = Sequence[NDArray[np.uint8]]

_REST = 500
"""Additional duration of the first and the last frame, in milliseconds."""

_SMALLEST = 128
"""A smaller image is enlarged by the integer factor that makes its shorter side this many pixels, for the text beside it."""

_DPI = 128
"""A power of two, so that whole pixels are exact fractions of an inch."""

_MARGIN, _CAPTION, _PLOT, _LEFT, _RIGHT, _BELOW = 12, 28, 130, 58, 18, 46

_COLOURS = 254
"""Colours of a GIF's 256; one more is white, and the last one marks pixels that did not change."""

_NOISE = 8
"""Strength of the dithering pattern that hides the steps between a GIF's few colours, in levels out of 255."""


@renamed_parameters(why="explanation", proof="evidence")
def animation(
    image: Float[Tensor, "1 c h w"],
    explanation: Explanation,
    baseline: Baseline | None,
    evidence: DeletionInsertion,
    path: str | os.PathLike[str],
    *,
    frames: int = FRAMES,
    seconds: float = SECONDS,
) -> None:
    """Write deletion and insertion side by side, their growing curves below, as a file that repeats.

    Each frame is a removal step of the curves, with the pictures that the model received at that step.

    >>> import tempfile
    >>> from faithmap.metrics.functional import deletion_insertion
    >>> image, explanation = torch.rand(1, 3, 16, 16), Explanation(torch.rand(1, 4, 4), (16, 16))
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 5))
    >>> evidence = deletion_insertion(model, image, explanation)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     animation(image, explanation, None, evidence, Path(folder) / "steps.gif", frames=5)
    ...     print((Path(folder) / "steps.gif").read_bytes()[:6])
    b'GIF89a'

    Args:
        image: the one image that was explained, in [0, 1].
        explanation: its explanation.
        baseline: what removed cells became in the evidence; None for the baselines of its protocol.
        evidence: the curves of that explanation.
        path: ends in .gif or .webp.
        frames: maximum number of frames, at least 2, evenly spread over the removal steps, both ends included.
        seconds: duration of one run, without the additional duration of the first and the last frame.

    Raises:
        ValueError: for several images, evidence of another map, a heatmap whose cells have no order, or another suffix.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{os.fspath(path)!r} is no path of an animation; give one that ends in {' or '.join(SUFFIXES)}")
    if frames < 2:
        raise ValueError(f"frames is {frames}; give at least 2, the beginning and the end")
    points = len(evidence.deletion.fractions)
    steps = torch.linspace(0, points - 1, min(frames, points), dtype=torch.float64).round().long()
    pictures = list(animation_frames(image, explanation, baseline, evidence, steps))
    each = max(2, round(100 * seconds / len(pictures))) * 10
    rests = [_REST, *[0] * (len(pictures) - 2), _REST]
    write_animation(pictures, [each + rest for rest in rests], Path(path))


def animation_frames(
    image: Float[Tensor, "1 c h w"],
    explanation: Explanation,
    baseline: Baseline | None,
    evidence: DeletionInsertion,
    steps: Int[Tensor, " k"],
) -> Iterator[NDArray[np.uint8]]:
    """The frames (rows, columns, RGB) at some removal steps, given by their indices; see :func:`animation`."""
    image = one_image(image)
    check_explained(image, explanation, evidence)
    heatmap = _ranked_cells(explanation, evidence)
    counts = (evidence.deletion.fractions.cpu().double() * heatmap.numel()).round().long()
    baselines = {kind: _baseline(baseline, evidence, kind, image) for kind in KINDS}
    scale = -(-_SMALLEST // min(image.shape[-2:]))
    size = scale * image.shape[-2], scale * image.shape[-1]
    renderer = FrameRenderer(evidence, size, "score" if explanation.target is None else "probability")
    for step in steps.tolist():
        masks = {kind: step_masks(heatmap, counts[step : step + 1], kind) for kind in KINDS}
        pictures = {kind: to_bytes(composed_images(image, baselines[kind], masks[kind])) for kind in KINDS}
        yield renderer.frame(step, {kind: pictures[kind].repeat(scale, 0).repeat(scale, 1) for kind in KINDS})


def _ranked_cells(explanation: Explanation, evidence: DeletionInsertion) -> Float[Tensor, "1 r c"]:
    """The map whose cells the evidence ranked."""
    heatmap = (explanation.cells if evidence.protocol.unit == "cells" else explanation.at()).detach().cpu()
    if tuple(heatmap.shape[-2:]) != tuple(evidence.resolution):
        (rows, columns), (r, c) = evidence.resolution, heatmap.shape[-2:]
        raise ValueError(f"the evidence has {rows} x {columns} cells, the map {r} x {c}; give the evidence of this map")
    return heatmap


def _baseline(baseline: Baseline | None, evidence: DeletionInsertion, kind: CurveKind, image: Tensor) -> Tensor:
    protocol = evidence.protocol
    own = protocol.deletion_baseline if kind == "deletion" else protocol.insertion_baseline
    return make_baseline(own if baseline is None else baseline, image)


@dataclass
class _MovingArtists:
    """The artists of one curve that change from frame to frame."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    line: Line2D
    dot: Line2D
    caption: Text

    def at(self, step: int, kind: CurveKind) -> tuple[Artist, ...]:
        """The artists at that removal step."""
        self.line.set_data(self.x[: step + 1], self.y[: step + 1])
        self.dot.set_data(self.x[step : step + 1], self.y[step : step + 1])
        self.caption.set_text(f"{kind}  {self.y[step]:.3f}")
        return self.line, self.dot, self.caption


class FrameRenderer:
    """Draws the constant parts once, and the lines and numbers of every frame over them.

    Args:
        evidence: the curves of one image.
        size: (height, width) of a picture, in pixels.
        score: label of the vertical axis.
    """

    def __init__(self, evidence: DeletionInsertion, size: tuple[int, int], score: str) -> None:
        height, width = size
        self.size = size
        across, down = 2 * width + 3 * _MARGIN, _CAPTION + height + _MARGIN + _PLOT + _BELOW
        figure = InlineFigure(figsize=(across / _DPI, down / _DPI), dpi=_DPI)
        self.canvas = cast("Any", FigureCanvasAgg(figure))  # matplotlib has no types for it
        plot = _CAPTION + height + _MARGIN
        ax = axes_at(figure, *(x / _DPI for x in (_LEFT, plot, across - _LEFT - _RIGHT, _PLOT)))
        frame(ax, [evidence.deletion, evidence.insertion])
        ax.tick_params(labelsize=6)
        ax.set_xlabel(f"{evidence.protocol.unit} deleted or inserted", size=6.5)
        ax.set_ylabel(score, size=6.5)
        self.moving: dict[CurveKind, _MovingArtists] = {}
        for kind in KINDS:
            style: dict[str, Any] = {"color": COLOURS[kind], "animated": True}
            (line,), (dot,) = ax.plot([], [], **style), ax.plot([], [], "o", markersize=4, **style)
            left, _ = self.corner(kind)
            at: dict[str, Any] = {"x": left / across, "y": 1 - (_CAPTION - 8) / down}
            text = figure.text(s="", size=8, weight="bold", **at, **style)
            self.moving[kind] = _MovingArtists(*line_of(getattr(evidence, kind)), line, dot, text)
        self.canvas.draw()
        self.background = self.canvas.copy_from_bbox(figure.bbox)

    def corner(self, kind: CurveKind) -> tuple[int, int]:
        """(left, top) of that curve's picture on a frame."""
        return _MARGIN + KINDS.index(kind) * (self.size[1] + _MARGIN), _CAPTION

    def frame(self, step: int, pictures: dict[CurveKind, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The frame at one removal step, with the pictures of that step."""
        self.canvas.restore_region(self.background)
        for kind in KINDS:
            for artist in self.moving[kind].at(step, kind):
                self.canvas.figure.draw_artist(artist)
        pixels = np.asarray(self.canvas.buffer_rgba())[..., :3].copy()
        for kind, picture in pictures.items():
            left, top = self.corner(kind)
            pixels[top : top + self.size[0], left : left + self.size[1]] = picture
        return pixels


def write_animation(frames: Frames, durations: Sequence[int], path: Path) -> None:
    """Write a GIF or WebP file that repeats, by the suffix of the path.

    Args:
        frames: (rows, columns, RGB), all of one size.
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
    """All frames in one palette, dithered by a constant pattern.

    Pixels that do not change from one frame to the next are then equal, and are not stored again; dithering by error diffusion
    would make most of the picture flicker and the file five times as large.
    """
    sample = np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]])[::2, ::2]
    palette = Image.fromarray(sample).quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
    colours = [*(palette.getpalette() or [])[: 3 * _COLOURS], 255, 255, 255]
    pattern = _NOISE * _bayer(frames[0].shape[0], frames[0].shape[1])[..., None]
    return [_in_palette(frame, pattern, palette, colours) for frame in frames]


def _in_palette(
    frame: NDArray[np.uint8], pattern: NDArray[np.float64], palette: Image.Image, colours: list[int]
) -> Image.Image:
    """The nearest colours after adding the pattern; the white background is the last colour of the palette."""
    noisy = (frame + pattern).round().clip(0, 255).astype(np.uint8)
    nearest = np.asarray(Image.fromarray(noisy).quantize(palette=palette, dither=Image.Dither.NONE))
    background = (frame == 255).all(axis=-1)
    image = Image.fromarray(np.where(background, np.uint8(len(colours) // 3 - 1), nearest))
    image.putpalette(colours)
    return image


def _bayer(rows: int, columns: int) -> NDArray[np.float64]:
    """Ordered dithering: Bayer's 8 x 8 thresholds in (-0.5, 0.5), repeated over the picture.

    >>> _bayer(2, 2) * 64
    array([[-31.5,   0.5],
           [ 16.5, -15.5]])
    """
    pattern = np.zeros((1, 1))
    for _ in range(3):
        pattern = np.block([[4 * pattern, 4 * pattern + 2], [4 * pattern + 3, 4 * pattern + 1]])
    tiles = np.tile((pattern + 0.5) / pattern.size - 0.5, (-(-rows // 8), -(-columns // 8)))
    return tiles[:rows, :columns]
