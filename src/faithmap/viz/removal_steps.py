"""Removal steps: the images of deletion and insertion after a number of cells, as a strip of a few, or as an animation of many.

The strip is that of Figures 12 to 15 of the I-GOS paper. The animation shows both images, their scores and the growing curves,
as a GIF or WebP file.
"""

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
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from faithmap.baselines import Baseline, compose, make_baseline, upsample
from faithmap.explanation import Explanation, cell_ranks
from faithmap.model import Classifier, check_images, undisturbed, working_images
from faithmap.probe import MaskProbe, clean_scores
from faithmap.score import Score, Target
from faithmap.viz.figure import (
    COLOURS,
    KINDS,
    CurveKind,
    Heading,
    InlineFigure,
    all_to_bytes,
    axes_at,
    check_explained,
    class_and_score,
    class_name,
    draw,
    flaw,
    frame,
    line_of,
    one_image,
    subtitle_of,
)
from faithmap.warning_types import renamed_parameters

if TYPE_CHECKING:
    from faithmap.metrics.functional import DeletionInsertion

RATIOS = (0.02, 0.05, 0.1, 0.2, 0.5)

_DESCRIPTIONS = {
    "deletion": "the most important\ncells are removed",
    "insertion": "only the most important\ncells are shown",
}
_HEIGHT, _LEFT, _GAP, _BELOW, _SIDE = 1.5, 2.0, 0.12, 0.3, 0.25


def step_masks(heatmap: Float[Tensor, "1 r c"], counts: Int[Tensor, " k"], kind: CurveKind) -> Float[Tensor, "k r c"]:
    """The mask after each number of cells, highest first: the same masks as those of ``deletion_insertion``.

    >>> step_masks(torch.tensor([[[0.1, 0.9]]]), torch.tensor([0, 1, 2]), "deletion").squeeze()
    tensor([[1., 1.],
            [1., 0.],
            [0., 0.]])

    Raises:
        ValueError: for a map whose cells have no order.
    """
    problem = flaw(heatmap)
    if problem is not None:
        raise ValueError(f"the heatmap has {problem}, so that there is nothing to delete or insert first")
    first = cell_ranks(heatmap) < counts.to(heatmap.device).view(-1, 1, 1)
    return (first if kind == "insertion" else ~first).to(heatmap.dtype)


def composed_images(
    image: Float[Tensor, "1 c h w"], baseline: Float[Tensor, "1 c h w"], masks: Float[Tensor, "k r c"]
) -> Float[Tensor, "k c h w"]:
    """The image under each mask."""
    up = upsample(masks.unsqueeze(1).to(image), (image.shape[-2], image.shape[-1]))
    return compose(image.expand(len(up), -1, -1, -1), baseline.expand(len(up), -1, -1, -1), up)


@renamed_parameters(why="explanation")
def strip(
    model: nn.Module,
    image: Float[Tensor, "1 c h w"],
    explanation: Explanation,
    baseline: Baseline = "blur",
    *,
    ratios: Sequence[float] = RATIOS,
    target: Target = None,
    chunk_size: int = 32,
    title: str | None = None,
) -> Figure:
    """The image with its most important cells deleted, and the baseline with them inserted, at a few removal steps.

    The masks are those of ``deletion_insertion`` with the ``igos`` protocol. The score of each picture is below it. The
    fractions above the columns are exact: of 49 cells, 2 % is one, but 5 % is two, or 4.1 %.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    >>> figure = strip(model, torch.rand(1, 3, 8, 8), Explanation(torch.rand(1, 4, 4), (8, 8)), ratios=(0.1, 0.5))
    >>> len(figure.axes)
    6

    Args:
        model: the model that was explained.
        image: the one image that was explained, in [0, 1].
        explanation: its explanation.
        baseline: the pixels that replace removed cells: a name, pixel value, tensor or callable.
        ratios: fractions of the cells, from 0 to 1; the unchanged picture always comes first.
        target: the class whose softmax probability is written; None for the explanation's target, or else the predicted class.
        chunk_size: maximum number of images per pass.
        title: title of the figure; None for the class and its probability.

    Raises:
        ValueError: for several images, ratios outside [0, 1], or a heatmap whose cells have no order.
    """
    check_images(model, image)
    one_image(image)
    check_explained(image, explanation)
    image = working_images(model, image)
    made = make_baseline(baseline, image)
    cells = explanation.heatmap[0].numel()
    counts = _counts(ratios, cells)
    masks = torch.cat([step_masks(explanation.heatmap, counts, kind) for kind in KINDS])
    score, scores = _scores(model, image, made, masks, explanation.explained if target is None else target, chunk_size)
    name = class_name(score.classes, model.labels if isinstance(model, Classifier) else None)
    heading = (
        title or class_and_score(name, "probability", float(scores[0])),
        f"{subtitle_of(explanation)}; beneath each picture its score",
    )
    pictures = composed_images(image, made, masks)
    return _sheet(pictures, scores, [_percent(int(k) / cells) for k in counts], heading)


def _counts(ratios: Sequence[float], cells: int) -> Int[Tensor, " k"]:
    if not all(0 <= ratio <= 1 for ratio in ratios):
        raise ValueError(f"ratios are {tuple(ratios)}; give fractions from 0 to 1")
    return (torch.tensor([0.0, *ratios], dtype=torch.float64) * cells).round().long()


def _scores(
    model: nn.Module, image: Tensor, baseline: Tensor, masks: Float[Tensor, "m r c"], target: Target, chunk_size: int
) -> tuple[Score, Float[Tensor, " m"]]:
    """The resolved score, and its value for the image under each mask."""
    with undisturbed(model):
        _, score, _ = clean_scores(model, image, target, "probability", chunk_size)
        probe = MaskProbe(model, score, image, baseline, chunk_size=chunk_size)
        return score, probe.scores(masks.to(image), torch.zeros(len(masks), dtype=torch.long, device=image.device))


def _sheet(
    pictures: Float[Tensor, "m c h w"], scores: Float[Tensor, " m"], shares: list[str], texts: tuple[str, str]
) -> Figure:
    """Deletion above insertion, one column per fraction of the cells."""
    wide = _HEIGHT * min(max(pictures.shape[-1] / pictures.shape[-2], 0.6), 2.0)
    width = _LEFT + len(shares) * (wide + _GAP) - _GAP + _SIDE
    heading = Heading.of(*texts, width - 2 * _SIDE)
    figure = InlineFigure(figsize=(width, heading.height + len(KINDS) * (_HEIGHT + _BELOW) + 0.1))
    heading.write(figure, _SIDE)
    for i, (picture, score) in enumerate(zip(pictures, scores.tolist(), strict=True)):
        row, column = divmod(i, len(shares))
        top = heading.height + row * (_HEIGHT + _BELOW)
        ax = axes_at(figure, _LEFT + column * (wide + _GAP), top, wide, _HEIGHT)
        draw(ax, one_image(picture.unsqueeze(0)), "" if row else shares[column], f"{score:.3f}")
        if column == 0:
            at: dict[str, Any] = {"x": -(_LEFT - _SIDE) / wide, "transform": ax.transAxes}
            ax.text(s=KINDS[row], y=0.56, size=11, weight="bold", color=COLOURS[KINDS[row]], va="bottom", **at)
            ax.text(s=_DESCRIPTIONS[KINDS[row]], y=0.52, size=8.5, va="top", **at)
    return figure


def _percent(share: float) -> str:
    """A fraction in percent, with at most one decimal.

    >>> _percent(16 / 784), _percent(2 / 49), _percent(1.0)
    ('2 %', '4.1 %', '100 %')
    """
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


FRAMES, SECONDS = 51, 5.0

SUFFIXES = (".gif", ".webp")

Frames: TypeAlias = Sequence[NDArray[np.uint8]]

_REST = 500
"""Additional duration of the first and the last frame, in milliseconds."""

_SMALLEST = 128
"""A smaller image is enlarged by the integer factor that makes its shorter side this many pixels, for the text beside it."""

_DPI = 128
"""A power of two, so that whole pixels are exact fractions of an inch."""

_CHUNK = 16
"""Frames that are composed together: enough for few calls, few enough for large images."""

_MARGIN, _CAPTION, _PLOT, _AXES_LEFT, _AXES_RIGHT, _AXES_BELOW = 12, 28, 130, 58, 18, 46

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
        path: file name, ending in ``.gif`` or ``.webp``.
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
    masks = {kind: step_masks(heatmap, counts[steps], kind) for kind in KINDS}
    for start in range(0, len(steps), _CHUNK):
        part = slice(start, start + _CHUNK)
        chunk = {kind: all_to_bytes(composed_images(image, baselines[kind], masks[kind][part])) for kind in KINDS}
        for number, step in enumerate(steps[part].tolist()):
            yield renderer.frame(step, {kind: chunk[kind][number].repeat(scale, 0).repeat(scale, 1) for kind in KINDS})


def _ranked_cells(explanation: Explanation, evidence: DeletionInsertion) -> Float[Tensor, "1 r c"]:
    """The map whose cells the evidence ranked."""
    heatmap = evidence.protocol.ranked(explanation).detach().cpu()
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
        across, down = 2 * width + 3 * _MARGIN, _CAPTION + height + _MARGIN + _PLOT + _AXES_BELOW
        figure = InlineFigure(figsize=(across / _DPI, down / _DPI), dpi=_DPI)
        self.canvas = cast("Any", FigureCanvasAgg(figure))  # matplotlib has no types for it
        plot = _CAPTION + height + _MARGIN
        ax = axes_at(figure, *(x / _DPI for x in (_AXES_LEFT, plot, across - _AXES_LEFT - _AXES_RIGHT, _PLOT)))
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
