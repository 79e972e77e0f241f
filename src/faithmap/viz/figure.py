"""Figures: matplotlib without pyplot, the checks of their inputs, their captions, and PNG files.

No figure is registered or stays open, no backend is chosen for the user's program, and a file has the same bytes whenever it is
written.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.geometry import Geometry
from faithmap.viz.overlay import flaw, overlay, placed

if TYPE_CHECKING:
    from faithmap.metrics.functional import DeletionInsertion
from typing import TYPE_CHECKING

from jaxtyping import Int

if TYPE_CHECKING:
    from faithmap.metrics.functional import DeletionInsertion

DPI = 120

PIXEL_TOLERANCE = 1e-3
"""How far a pixel may lie outside [0, 1], because of interpolation and half precision."""

_LINE, _SMALL_LINE = 0.25, 0.18
_BOLD, _PLAIN = FontProperties(size=13, weight="bold"), FontProperties(size=9.5)


class InlineFigure(Figure):
    """A matplotlib figure that a notebook displays like a figure of pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure, dpi: float = DPI) -> bytes:
    """A figure as a PNG file without date or software, so that equal figures have equal bytes."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def to_bytes(image: Float[Tensor, "1 3 h w"]) -> NDArray[np.uint8]:
    """Rows, columns and RGB in 8 bits, each value rounded to the nearest.

    >>> to_bytes(torch.tensor([0.0, 0.499, 1.0]).view(1, 3, 1, 1)).tolist()
    [[[0, 127, 255]]]
    """
    pixels: NDArray[np.uint8] = all_to_bytes(image)[0]
    return pixels


def all_to_bytes(images: Float[Tensor, "n 3 h w"]) -> NDArray[np.uint8]:
    """The same for several images of one size: (n, h, w, 3)."""
    levels = images.permute(0, 2, 3, 1).clamp(0, 1).mul(255).round()
    pixels: NDArray[np.uint8] = levels.to("cpu", torch.uint8).numpy()
    return pixels


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a position in inches from the figure's top left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def draw(ax: Axes, image: Float[Tensor, "1 3 h w"], above: str = "", below: str = "") -> None:
    """Draw an image, and a line of text above and below it."""
    ax.imshow(to_bytes(image))
    _label(ax, above, below)


def draw_message(ax: Axes, message: str, above: str, size: Sequence[int]) -> None:
    """Write a message in a frame with the aspect ratio of an image of that (height, width)."""
    ax.set_box_aspect(size[0] / size[1])
    ax.text(0.5, 0.5, message.replace(": ", ":\n"), ha="center", va="center", size=9, transform=ax.transAxes)
    _label(ax, above)


def draw_map(
    ax: Axes,
    image: Float[Tensor, "1 3 h w"],
    explanation: Explanation,
    texts: tuple[str, str],
    colormap: str,
    geometry: Geometry | None = None,
    *,
    narrow: bool = False,
) -> None:
    """Draw a map over an image, with a line of text above and below it; of a map without an order, write what is wrong with it.

    Args:
        ax: where to draw.
        image: the image under the map.
        explanation: its explanation.
        texts: above and below the picture.
        colormap: name of the colours.
        geometry: how the model's input was cut from the image; None if the image is the input.
        narrow: break the message into more lines.
    """
    problem = flaw(explanation.heatmap)
    if problem is None:
        draw(ax, overlay(image, placed(explanation, image, geometry).cpu(), colormap=colormap), *texts)
    else:
        draw_message(ax, problem.replace("value ", "value\n") if narrow else problem, texts[0], image.shape[-2:])


def _label(ax: Axes, above: str = "", below: str = "") -> None:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_linewidth(0.5)
    ax.set_title(above, size=10)
    ax.set_xlabel(below, size=8)


class Heading(NamedTuple):
    """The lines at the top of a figure: a title in bold, and a subtitle."""

    title: list[str]
    subtitle: list[str]

    @classmethod
    def of(cls, title: str, subtitle: str, width: float) -> Heading:
        """Wrap both texts to a width in inches, at most two lines each; a longer text ends in an ellipsis."""
        return cls(_wrapped(title, width, _BOLD), _wrapped(subtitle, width, _PLAIN))

    @property
    def height(self) -> float:
        """Height in inches, with the space above and below, and a line for the titles of the axes."""
        return 0.5 + _LINE * len(self.title) + _SMALL_LINE * len(self.subtitle)

    def write(self, figure: Figure, left: float) -> None:
        """Write the lines on a figure; dollar signs are not mathematics."""
        across, down = figure.get_size_inches()
        top = 0.15
        for lines, step, font in ((self.title, _LINE, _BOLD), (self.subtitle, _SMALL_LINE, _PLAIN)):
            for line in lines:
                figure.text(left / across, 1 - top / down, line, font=font, va="top", parse_math=False)
                top += step


def _wrapped(text: str, width: float, font: FontProperties) -> list[str]:
    """Lines of as many characters as fit by the mean width of the text's characters, minus 5 %."""
    text = " ".join(text.split())
    if not text:
        return []
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return textwrap.wrap(text, max(2, int(0.95 * len(text) * width * 72 / points)), max_lines=2, placeholder=" …")


def one_image(image: Float[Tensor, "1 c h w"], name: str = "image") -> Float[Tensor, "1 3 h w"]:
    """A single image as RGB in [0, 1], in single precision on the CPU; grey images get three equal channels.

    Raises:
        ValueError: for several images, another shape, or pixels outside [0, 1].
    """
    if image.ndim != 4 or image.shape[1] not in (1, 3):
        raise ValueError(f"{name} has shape {tuple(image.shape)}; give (1, 3, height, width), or 1 channel of grey")
    if len(image) != 1:
        raise ValueError(f"{name} has {len(image)} images; give one, such as {name}[i : i + 1]")
    pixels = image.detach().to("cpu", torch.float32)
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -PIXEL_TOLERANCE and high <= 1 + PIXEL_TOLERANCE):
        raise ValueError(f"pixels of {name} range from {low:.3g} to {high:.3g}; give values in [0, 1]")
    return pixels.clamp(0, 1).expand(-1, 3, -1, -1)


def check_explained(
    image: Float[Tensor, "1 c h w"], explanation: Explanation, evidence: DeletionInsertion | None = None
) -> None:
    """Raise ValueError if the explanation or the curves have several images, or the image another size."""
    if len(explanation) != 1:
        raise ValueError(f"the explanation has {len(explanation)} images; give one, such as explanation[i]")
    if tuple(image.shape[-2:]) != tuple(explanation.image_size):
        raise ValueError(
            f"image is {image.shape[-2]} x {image.shape[-1]} pixels, but the explained one was "
            f"{explanation.image_size[0]} x {explanation.image_size[1]}; give the image that was explained"
        )
    if evidence is not None and len(evidence.deletion.scores) != 1:
        count = len(evidence.deletion.scores)
        raise ValueError(f"the evidence has {count} images; give that of one, such as evidence[i]")


def save_image(image: Float[Tensor, "1 c h w"], path: str | os.PathLike[str]) -> None:
    """Write one image as a PNG file of its own size.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_image(torch.rand(1, 3, 8, 8), Path(folder) / "image.png")
    ...     print((Path(folder) / "image.png").read_bytes()[1:4])
    b'PNG'

    Args:
        image: one image, RGB or grey, in [0, 1].
        path: file name, ending in ``.png``.

    Raises:
        ValueError: for several images, pixels outside [0, 1], or another suffix than ``.png``.
    """
    Image.fromarray(to_bytes(one_image(image))).save(_png_path(path), format="PNG")


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: float = DPI) -> None:
    """Write a figure as a PNG file without date or software.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(Figure(), Path(folder) / "figure.png")
    ...     print((Path(folder) / "figure.png").exists())
    True

    Args:
        figure: of this package, or any other of matplotlib.
        path: file name, ending in ``.png``.
        dpi: pixels per inch.

    Raises:
        ValueError: for another suffix than ``.png``.
    """
    _png_path(path).write_bytes(png(figure, dpi))


def _png_path(path: str | os.PathLike[str]) -> Path:
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{os.fspath(path)!r} does not end in .png; figures and images are written as PNG")
    return Path(path)


_LONGEST = 90
"""Maximum number of characters of a class name, so that there is room for its probability."""

_TIMES = "\N{MULTIPLICATION SIGN}"


def class_name(target: Int[Tensor, " 1"] | None, labels: Sequence[str] | None) -> str | None:
    """Name of the explained class; None for a callable target."""
    if target is None:
        return None
    index = int(target[0])
    return labels[index] if labels is not None and index < len(labels) else f"class {index}"


def class_and_score(name: str | None, kind: str, value: float | None) -> str:
    """The class and its score on the clean image.

    >>> class_and_score("otter", "probability", 0.8912)
    'otter, probability 0.891'
    """
    name = name if name is None or len(name) <= _LONGEST else name[: _LONGEST - 2].rstrip(" ,;") + " …"
    if value is None:
        return name or "heatmap"
    return f"explained score {value:.3f}" if name is None else f"{name}, {kind} {value:.3f}"


def title_of(explanation: Explanation, evidence: DeletionInsertion | None, labels: Sequence[str] | None) -> str:
    """The class and its score, if known: the probability of the evidence, or else the explained score."""
    name = class_name(explanation.target, labels)
    if evidence is not None:
        return class_and_score(name, "probability", float(evidence.deletion.scores[0, 0]))
    kind = str(explanation.settings.get("score", "probability"))
    return class_and_score(name, kind, None if explanation.score is None else float(explanation.score[0]))


def subtitle_of(explanation: Explanation, evidence: DeletionInsertion | None = None) -> str:
    """The method and the resolution, and the protocol of the evidence."""
    text = f"{explanation.title}, {explanation.resolution[0]} {_TIMES} {explanation.resolution[1]} cells"
    return text if evidence is None else f"{text}; deletion and insertion by the {evidence.protocol.name} protocol"
