"""The parts of all figures: heatmaps as colours over an image, curves, captions, checks of inputs, and PNG files.

Matplotlib without pyplot: no figure is registered or stays open, no backend is chosen for the user's program, and a file has
the same bytes whenever it is written.

**Overlay**: a heatmap's values as colours, blended into the original image. Colours need values in [0, 1]. Their scale depends
on the heatmap only, never on the image (:func:`limits`). The lower end is the lowest value, or 0 if the map has values of both
signs, because evidence against the score is not importance for it. The upper end is the value that only the highest 0.5 % of
the values above the lower end exceed, so that one outlier does not darken the rest, and the few hot cells of a sparse map keep
their order. A map without an order of its cells has no such ends, and is refused.

**Curves**: deletion and insertion, and the saturation of the score along the path from a baseline to the image.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.model import Geometry
from faithmap.warning_types import renamed_parameters

if TYPE_CHECKING:
    from faithmap.methods.cams.saturation import Saturation
    from faithmap.metrics.functional import Curve, DeletionInsertion


COLORMAP = "plasma"
"""Perceptually uniform, distinguishable with every common colour blindness, and never close to white, grey or black."""

CLIPPED = 0.005
"""Share of the values above the lower end of the scale that may lie above its upper end."""

OPACITY = 0.8
"""Opacity of the colours at the highest value; pixels with lower values are more transparent."""

SATURATION = 0.3
"""Saturation of the image under the heatmap, so that yellow parts of the image differ from the colours of the map."""

PALENESS = 2 / 3
"""How far towards white the part of the image outside the model's window is moved."""

_ROUNDING = 16
"""How much a constant map may vary after resampling, in machine epsilons of its largest value."""


def flaw(heatmap: Float[Tensor, "*shape"]) -> str | None:
    """Why the cells of a heatmap have no order, as a text for a figure; None if they have one.

    Args:
        heatmap: values of one map, in any shape.

    >>> flaw(torch.tensor([0.0, 1.0])), flaw(torch.zeros(2))
    (None, 'one value everywhere: ranks nothing')
    """
    if not bool(heatmap.isfinite().all()):
        return "values that are not finite: ranks nothing"
    if heatmap.numel() == 0:
        return "no values: ranks nothing"
    low, high = float(heatmap.detach().min()), float(heatmap.detach().max())
    if high - low <= _ROUNDING * torch.finfo(heatmap.dtype).eps * max(abs(low), abs(high)):
        return "one value everywhere: ranks nothing"
    return None


def limits(heatmap: Float[Tensor, "*shape"]) -> tuple[float, float]:
    """The ends of the colour scale, by the rule of the module; NaN, outside the model's window, is ignored.

    Args:
        heatmap: values of one map, in any shape.

    >>> limits(torch.tensor([-1.0, 0.5, 2.0, torch.nan]))
    (0.0, 2.0)

    Raises:
        ValueError: for a map whose cells have no order.
    """
    values = heatmap.detach()[~heatmap.isnan()]
    problem = flaw(values)
    if problem is not None:
        raise ValueError(f"the heatmap has {problem}")
    low, high = float(values.min()), float(values.max())
    low = 0.0 if low < 0 < high else low
    above = values[values > low].sort().values
    return low, float(above[math.ceil((1 - CLIPPED) * len(above)) - 1])


def scaled(heatmap: Float[Tensor, "*shape"], ends: tuple[float, float] | None = None) -> Float[Tensor, "*shape"]:
    """The heatmap scaled to [0, 1], for display only; NaN stays NaN.

    >>> scaled(torch.tensor([0.0, 1.0, 4.0]), ends=(0.0, 2.0))
    tensor([0.0000, 0.5000, 1.0000])

    Args:
        heatmap: raw values, in any shape.
        ends: the values that become 0 and 1, to draw several maps on one scale; None for the map's own :func:`limits`.

    Raises:
        ValueError: for ends that are not two finite values in ascending order.
    """
    low, high = limits(heatmap) if ends is None else ends
    if not low < high:
        raise ValueError(f"the ends of the scale are {low} and {high}; give two finite values, the lower first")
    return ((heatmap - low) / (high - low)).clamp(0, 1)


def colourise(values: Float[Tensor, "n h w"], colormap: str = COLORMAP) -> Float[Tensor, "n 3 h w"]:
    """RGB of values in [0, 1], with matplotlib's rounding, as in its colour bars.

    Args:
        values: maps scaled to [0, 1]; other values get the colour of the nearer end.
        colormap: name of a colormap of matplotlib.

    >>> colourise(torch.zeros(1, 1, 1), "gray").flatten()
    tensor([0., 0., 0.])

    Raises:
        ValueError: for a colormap that matplotlib does not have.
    """
    if colormap not in colormaps:
        raise ValueError(f"colormap {colormap!r} is unknown; give one that matplotlib has, such as {COLORMAP!r} or 'cividis'")
    chosen = colormaps[colormap]
    table = torch.from_numpy(chosen(np.arange(chosen.N))[:, :3]).to(values)
    index = (values * chosen.N).long().clamp(0, chosen.N - 1)
    return table[index].movedim(-1, -3)


def overlay(
    photo: Float[Tensor, "1 3 h w"],
    heatmap: Float[Tensor, "1 h w"],
    *,
    opacity: float = OPACITY,
    saturation: float = SATURATION,
    colormap: str = COLORMAP,
    ends: tuple[float, float] | None = None,
) -> Float[Tensor, "1 3 h w"]:
    r"""Blend the heatmap's colours into the image; the more important a pixel, the more opaque its colour.

    .. math:: O = (1 - a v) P + a v \, colour(v)

    with :math:`a` the opacity, :math:`v` the heatmap scaled to [0, 1] and :math:`P` the image with reduced saturation. Pixels
    where the heatmap is NaN lie outside the model's window, and become grey and pale.

    >>> tuple(overlay(torch.rand(1, 3, 8, 8), torch.rand(1, 8, 8)).shape)
    (1, 3, 8, 8)

    Args:
        photo: the original image, in [0, 1], RGB.
        heatmap: raw values, one per pixel of the image, as :func:`placed` returns them.
        opacity: opacity of the heatmap, from 0 to 1.
        saturation: from 0, a grey image, to 1, its own colours.
        colormap: name of a colormap of matplotlib.
        ends: the values of the lower and the upper end of the scale; None for :func:`faithmap.viz.limits`.

    Raises:
        ValueError: for shapes that do not fit, settings out of their range, or a heatmap whose cells have no order.
    """
    if photo.ndim != 4 or photo.shape[:2] != (1, 3) or heatmap.shape != photo[:, 0].shape:
        shapes = f"the photo has shape {tuple(photo.shape)} and the heatmap {tuple(heatmap.shape)}"
        raise ValueError(f"{shapes}; give (1, 3, height, width) and (1, height, width)")
    for name, value in (("opacity", opacity), ("saturation", saturation)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; give 0 to 1")
    values = scaled(heatmap, ends).to(photo).unsqueeze(1)
    grey = _grey(photo)
    faded = torch.lerp(grey, photo, saturation)
    heated = torch.lerp(faded, colourise(values[:, 0].nan_to_num(0), colormap), opacity * values)
    return torch.where(values.isnan(), torch.lerp(grey, torch.ones_like(grey), PALENESS), heated)


@renamed_parameters(why="explanation")
def placed(
    explanation: Explanation, photo: Float[Tensor, "n c H W"], geometry: Geometry | None = None
) -> Float[Tensor, "n H W"]:
    """The raw heatmap with one value per pixel of the original image; NaN outside the model's window.

    >>> explanation = Explanation(torch.rand(1, 7, 7), (32, 32))
    >>> tuple(placed(explanation, torch.rand(1, 3, 32, 48), Geometry(crop=(32, 32))).shape)
    (1, 32, 48)

    Args:
        explanation: explanation of the model's input.
        photo: the original image.
        geometry: resize and crop from the original image to the model's input; None if the original image was explained.

    Raises:
        ValueError: if the geometry does not map the original image to the size of the explained image.
    """
    geometry = geometry or Geometry()
    size = (photo.shape[-2], photo.shape[-1])
    view = geometry.crop or geometry.resized(size)
    explained = explanation.image_size
    if tuple(view) != tuple(explained):
        raise ValueError(
            f"the photo of {size[0]} x {size[1]} pixels becomes an input of {view[0]} x {view[1]}, but images of "
            f"{explained[0]} x {explained[1]} were explained; give the photo and the geometry of the model"
        )
    return geometry.place(explanation.at().detach(), size)


def _grey(photo: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """A grey image of the same luma, by the weights of ITU-R BT.601, with three channels."""
    luma = photo.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (photo * luma).sum(dim=1, keepdim=True).expand_as(photo)


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
    label(ax, above, below)


def draw_message(ax: Axes, message: str, above: str, size: Sequence[int]) -> None:
    """Write a message in a frame with the aspect ratio of an image of that (height, width)."""
    ax.set_box_aspect(size[0] / size[1])
    ax.text(0.5, 0.5, message.replace(": ", ":\n"), ha="center", va="center", size=9, transform=ax.transAxes)
    label(ax, above)


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


def label(ax: Axes, above: str = "", below: str = "") -> None:
    """Write a line of text above and below a picture, in place of ticks."""
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


def subtitle_of(explanation: Explanation, evidence: DeletionInsertion | None = None, verdict: str | None = None) -> str:
    """The method and the resolution, the protocol of the curves, and the verdict of a jury."""
    text = f"{explanation.title}, {explanation.resolution[0]} {_TIMES} {explanation.resolution[1]} cells"
    curves = "" if evidence is None else f"; deletion and insertion by the {evidence.protocol.name} protocol"
    return text + curves + ("" if verdict is None else f". Jury: {verdict}")


CurveKind: TypeAlias = Literal["deletion", "insertion"]

KINDS: tuple[CurveKind, CurveKind] = ("deletion", "insertion")

COLOURS: dict[CurveKind, str] = {"deletion": "#d55e00", "insertion": "#0072b2"}
"""Vermilion and blue, distinguishable with every common colour blindness (Okabe and Ito 2008)."""

REFERENCE = "0.55"

_SATURATION_LINES = (("score", "#0072b2", "-"), ("similarity", "#009e73", "--"), ("gradient_norm", "#d55e00", ":"))
"""Blue, green and vermilion, distinguishable with every common colour blindness, and three line styles."""


@renamed_parameters(proof="evidence")
def curves(
    evidence: DeletionInsertion,
    reference: DeletionInsertion | None = None,
    ax: Axes | None = None,
    *,
    score: str = "class probability",
) -> Axes:
    """Plot deletion and insertion with their areas in the legend; of several images, the means.

    >>> import torch
    >>> from faithmap.metrics.functional import PROTOCOLS, Curve, DeletionInsertion
    >>> falling, rising = (Curve(torch.tensor([0.0, 1.0]), torch.tensor([s])) for s in ([1.0, 0.0], [0.0, 1.0]))
    >>> ax = curves(DeletionInsertion(falling, rising, PROTOCOLS["igos"], (7, 7)))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['insertion  0.500', 'deletion  0.500']

    Args:
        evidence: the deletion and insertion curves of the image.
        reference: curves of a random map, drawn as thin grey lines.
        ax: axes to draw on; None creates a figure, the ``figure`` of the result.
        score: label of the vertical axis.

    Raises:
        ValueError: if the reference has another protocol or resolution, so that the areas do not compare.
    """
    if reference is not None and (reference.protocol.name, reference.resolution) != (
        evidence.protocol.name,
        evidence.resolution,
    ):
        ours, theirs = (f"{p.protocol.name} at {p.resolution[0]} x {p.resolution[1]}" for p in (evidence, reference))
        raise ValueError(f"the evidence was evaluated as {ours}, the reference as {theirs}; use one protocol and resolution")
    ax = InlineFigure(figsize=(4.4, 3.4), layout="constrained").add_subplot() if ax is None else ax
    _line(ax, evidence.insertion, "insertion", COLOURS["insertion"], linewidth=2)
    _line(ax, evidence.deletion, "deletion", COLOURS["deletion"], linewidth=2)
    if reference is not None:
        _line(ax, reference.insertion, "random insertion", REFERENCE, linewidth=1, zorder=1.5)
        _line(ax, reference.deletion, "random deletion", REFERENCE, linewidth=1, linestyle="--", zorder=1.5)
    frame(ax, [curve for p in (evidence, reference) if p is not None for curve in (p.insertion, p.deletion)])
    ax.set_xlabel(f"{evidence.protocol.unit} deleted or inserted", size=9)
    ax.set_ylabel(score, size=9)
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2, "frameon": False}
    ax.legend(title="area under", fontsize=8, title_fontsize=8, handlelength=1.6, **below)
    return ax


def frame(ax: Axes, curves: list[Curve]) -> None:
    """Format axes for these curves: fractions from 0 to 1, and probabilities from 0 to 1 or the range of the scores."""
    low = min(float(curve.scores.min()) for curve in curves)
    high = max(float(curve.scores.max()) for curve in curves)
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    margin = 0.02 * (high - low) or 1.0
    ax.set(xlim=(-0.02, 1.02), xticks=np.linspace(0, 1, 6), ylim=(low - margin, high + margin))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.grid(visible=True, alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def line_of(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fractions, and the mean scores over the images."""
    fractions: NDArray[np.float64] = curve.fractions.detach().cpu().double().numpy()
    return fractions, curve.scores.detach().cpu().double().mean(dim=0).numpy()


def _line(ax: Axes, curve: Curve, name: str, colour: str, **style: Any) -> None:
    """Plot a mean curve with its area in the label."""
    ax.plot(*line_of(curve), color=colour, label=f"{name}  {float(curve.area.mean()):.3f}", **style)


@renamed_parameters(walk="saturation")
def saturation_curves(saturation: Saturation, ax: Axes | None = None, *, tolerance: float = 0.05) -> Axes:
    """Plot score, similarity and gradient norm of one image along the path; the saturated part of the path is grey.

    Score and gradient norm are divided by their largest absolute value, which is in the legend.

    >>> import torch
    >>> from faithmap.methods.cams.saturation import Saturation
    >>> path = torch.tensor([[0.0, 0.5, 0.97, 1.0, 1.0]])
    >>> saturation_curves(Saturation(torch.linspace(0, 1, 5), path, path, path, "layer4")).get_title()
    'Saturation at layer4'

    Args:
        saturation: the saturation of one image.
        ax: axes to draw on; None creates a figure, the ``figure`` of the result.
        tolerance: of the score, as a share of its change along the path, within which it counts as saturated.

    Raises:
        ValueError: for several images.
    """
    if len(saturation.score) != 1:
        raise ValueError(f"the saturation has {len(saturation.score)} images; give that of one")
    ax = InlineFigure(figsize=(5.2, 3.6), layout="constrained").add_subplot() if ax is None else ax
    at = saturation.positions.cpu().double().numpy()
    share = float(saturation.share(tolerance)[0])
    ax.axvspan(1 - share, 1, color="0.9", zorder=0, label=f"saturated, {100 * share:.0f} % of the path")
    for name, colour, line in _SATURATION_LINES:
        values = getattr(saturation, name)[0].detach().cpu().double()
        largest = 1.0 if name == "similarity" else float(values.abs().max()) or 1.0
        label = name.replace("_", " ") + ("" if name == "similarity" else f", up to {largest:.3g}")
        ax.plot(at, (values / largest).numpy(), color=colour, linestyle=line, linewidth=2, label=label)
    ax.set(xlim=(0, 1), ylim=(min(0.0, ax.get_ylim()[0]), 1.05))
    ax.set_xlabel("position on the path, from the baseline to the image", size=9)
    ax.set_title(f"Saturation at {saturation.target_layer}", size=10)
    ax.grid(visible=True, alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return ax
