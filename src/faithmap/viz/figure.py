"""Figures without pyplot: nothing is registered, nothing stays open, and no backend is chosen for the user's program."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray
from torch import Tensor

DPI = 120

_LINE, _SMALL_LINE = 0.25, 0.18
_BOLD, _PLAIN = FontProperties(size=13, weight="bold"), FontProperties(size=9.5)


class Picture(Figure):
    """A matplotlib figure that a notebook shows by itself, as it would one of pyplot's."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure, dpi: float = DPI) -> bytes:
    """A figure as a PNG file that is the same on every day: it names no software."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def to_bytes(image: Float[Tensor, "1 3 h w"]) -> NDArray[np.uint8]:
    """Rows, columns and RGB in 8 bits, each value rounded to the nearest.

    >>> to_bytes(torch.tensor([0.0, 0.499, 1.0]).view(1, 3, 1, 1)).tolist()
    [[[0, 127, 255]]]
    """
    levels = image[0].permute(1, 2, 0).clamp(0, 1).mul(255).round()
    pixels: NDArray[np.uint8] = levels.to("cpu", torch.uint8).numpy()
    return pixels


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the figure's top left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def draw(ax: Axes, image: Float[Tensor, "1 3 h w"], above: str = "", below: str = "") -> None:
    """An image, and a line over and under it."""
    ax.imshow(to_bytes(image))
    _label(ax, above, below)


def say(ax: Axes, words: str, above: str, size: Sequence[int]) -> None:
    """Words in a frame of the shape of an image of that (height, width), where there is nothing to draw."""
    ax.set_box_aspect(size[0] / size[1])
    ax.text(0.5, 0.5, words.replace(": ", ":\n"), ha="center", va="center", size=9, transform=ax.transAxes)
    _label(ax, above)


def _label(ax: Axes, above: str = "", below: str = "") -> None:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_linewidth(0.5)
    ax.set_title(above, size=10)
    ax.set_xlabel(below, size=8)


class Heading(NamedTuple):
    """The lines at the top of a figure: what it is about, in bold, and below how it was made."""

    title: list[str]
    subtitle: list[str]

    @classmethod
    def of(cls, title: str, subtitle: str, width: float) -> Heading:
        """Wrapped to a width in inches; what needs more than two lines ends in an ellipsis."""
        return cls(_wrapped(title, width, _BOLD), _wrapped(subtitle, width, _PLAIN))

    @property
    def height(self) -> float:
        """In inches, with the space above and below, and a line for the titles of the axes."""
        return 0.5 + _LINE * len(self.title) + _SMALL_LINE * len(self.subtitle)

    def write(self, figure: Figure, left: float) -> None:
        """Put the lines onto a figure; a dollar sign is a dollar sign."""
        across, down = figure.get_size_inches()
        top = 0.15
        for lines, step, font in ((self.title, _LINE, _BOLD), (self.subtitle, _SMALL_LINE, _PLAIN)):
            for line in lines:
                figure.text(left / across, 1 - top / down, line, font=font, va="top", parse_math=False)
                top += step


def _wrapped(text: str, width: float, font: FontProperties) -> list[str]:
    """As many letters a line as fit if all were as wide as these are on the average, and a little less."""
    text = " ".join(text.split())
    if not text:
        return []
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return textwrap.wrap(text, max(2, int(0.95 * len(text) * width * 72 / points)), max_lines=2, placeholder=" …")
