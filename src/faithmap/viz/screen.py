"""The frames of an animation: two pictures side by side, their scores over them, and both curves growing below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray

from faithmap.metrics.functional import DeletionInsertion
from faithmap.viz.curves import frame, line_of
from faithmap.viz.figure import Picture, axes_at
from faithmap.viz.games import COLOURS, GAMES, Game

_DPI = 128
"""A power of two, so that whole pixels are exact parts of an inch."""

_MARGIN, _CAPTION, _PLOT, _LEFT, _RIGHT, _BELOW = 12, 28, 130, 58, 18, 46


@dataclass
class _Moving:
    """What changes in a frame, for one game."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    line: Line2D
    dot: Line2D
    caption: Text

    def at(self, moment: int, game: Game) -> tuple[Artist, ...]:
        """The artists of that point of the curve."""
        self.line.set_data(self.x[: moment + 1], self.y[: moment + 1])
        self.dot.set_data(self.x[moment : moment + 1], self.y[moment : moment + 1])
        self.caption.set_text(f"{game}  {self.y[moment]:.3f}")
        return self.line, self.dot, self.caption


class Screen:
    """Draws what stands still once, and every frame's lines and numbers over it.

    Args:
        proof: the curves of one image.
        size: (height, width) of a picture, in pixels.
        score: the vertical axis in words.
    """

    def __init__(self, proof: DeletionInsertion, size: tuple[int, int], score: str) -> None:
        height, width = size
        self.size = size
        across, down = 2 * width + 3 * _MARGIN, _CAPTION + height + _MARGIN + _PLOT + _BELOW
        figure = Picture(figsize=(across / _DPI, down / _DPI), dpi=_DPI)
        self.canvas = cast("Any", FigureCanvasAgg(figure))  # matplotlib has no types for it
        plot = _CAPTION + height + _MARGIN
        ax = axes_at(figure, *(x / _DPI for x in (_LEFT, plot, across - _LEFT - _RIGHT, _PLOT)))
        frame(ax, [proof.deletion, proof.insertion])
        ax.tick_params(labelsize=6)
        ax.set_xlabel(f"{proof.protocol.unit} deleted or inserted", size=6.5)
        ax.set_ylabel(score, size=6.5)
        self.moving: dict[Game, _Moving] = {}
        for game in GAMES:
            style: dict[str, Any] = {"color": COLOURS[game], "animated": True}
            (line,), (dot,) = ax.plot([], [], **style), ax.plot([], [], "o", markersize=4, **style)
            left, _ = self.corner(game)
            at: dict[str, Any] = {"x": left / across, "y": 1 - (_CAPTION - 8) / down}
            text = figure.text(s="", size=8, weight="bold", **at, **style)
            self.moving[game] = _Moving(*line_of(getattr(proof, game)), line, dot, text)
        self.canvas.draw()
        self.still = self.canvas.copy_from_bbox(figure.bbox)

    def corner(self, game: Game) -> tuple[int, int]:
        """(left, top) of that game's picture on a frame."""
        return _MARGIN + GAMES.index(game) * (self.size[1] + _MARGIN), _CAPTION

    def frame(self, moment: int, pictures: dict[Game, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The frame at one point of the curves, with the pictures of that point."""
        self.canvas.restore_region(self.still)
        for game in GAMES:
            for artist in self.moving[game].at(moment, game):
                self.canvas.figure.draw_artist(artist)
        pixels = np.asarray(self.canvas.buffer_rgba())[..., :3].copy()
        for game, picture in pictures.items():
            left, top = self.corner(game)
            pixels[top : top + self.size[0], left : left + self.size[1]] = picture
        return pixels
