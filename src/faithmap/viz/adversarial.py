"""Adversarial check: both images and their difference, both maps, and both insertion curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from faithmap.viz.figure import (
    COLORMAP,
    Heading,
    InlineFigure,
    axes_at,
    check_explained,
    class_name,
    draw,
    draw_map,
    frame,
    line_of,
    one_image,
    subtitle_of,
)

if TYPE_CHECKING:
    from faithmap.metrics.functional import AdversarialCheck, Curve

_HEIGHT, _BELOW, _SIDE, _GAP, _PLOT_GAP = 2.7, 0.72, 0.25, 0.3, 0.5
_LEGEND, _LONGEST = 0.72, 28

_CLEAN, _ADVERSARIAL = "#0072b2", "#d55e00"
"""Blue and vermilion, distinguishable with every common colour blindness; the second line is also dashed."""


def adversarial_panel(
    image: Float[Tensor, "1 c h w"],
    check: AdversarialCheck,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    colormap: str = COLORMAP,
) -> Figure:
    """Draw the clean image, the adversarial image and their difference; below them both maps, and both insertion curves.

    The difference is magnified around grey by the largest integer factor that fits the range of colours; the factor is below
    it. The circles on the curves mark the fraction that restores the share of the score.

    >>> from faithmap import Gradient
    >>> from faithmap.metrics.functional import adversarial_check
    >>> image = torch.rand(1, 3, 16, 16)
    >>> explainer = Gradient(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 5)))
    >>> figure = adversarial_panel(image, adversarial_check(explainer, image, radius=0.1))
    >>> [ax.get_title() for ax in figure.axes[:3]]
    ['Clean image', 'Adversarial image', 'Difference']

    Args:
        image: the one clean image, in [0, 1].
        check: the adversarial check of this image.
        labels: one name per class.
        title: instead of both classes and their probabilities.
        colormap: name of a colormap of matplotlib.

    Raises:
        ValueError: for several images, or an image and a check that do not fit each other.
    """
    clean = one_image(image)
    if len(check) != 1:
        raise ValueError(f"the check has {len(check)} images; give that of one, such as check[i]")
    check_explained(clean, check.clean)
    changed = one_image(check.attack.images)
    predictions = _predictions(check, labels)
    figure, axes = _sheet(clean, (title or _title(check, predictions), _subtitle(check, clean, changed)))
    difference, factor = magnified(clean, changed)
    draw(axes[0], clean, "Clean image", predictions[0])
    draw(axes[1], changed, "Adversarial image", predictions[1])
    draw(axes[2], difference, "Difference", factor)
    below = [f"for {_short(class_name(one.target, labels) or '')}" for one in (check.clean, check.adversarial)]
    correlation = float(check.correlation[0])
    below[1] += "" if math.isnan(correlation) else f"; rank correlation to the other {correlation:.2f}"
    draw_map(axes[3], clean, check.clean, ("Map of the clean image", below[0]), colormap)
    draw_map(axes[4], changed, check.adversarial, ("Map of the adversarial image", below[1]), colormap)
    insertion_curves(check, axes[5])
    return figure


def magnified(clean: Float[Tensor, "1 3 h w"], changed: Float[Tensor, "1 3 h w"]) -> tuple[Float[Tensor, "1 3 h w"], str]:
    """The difference around a grey of 0.5, magnified by the largest integer factor that fits, and a text with the factor.

    >>> grey = torch.full((1, 3, 1, 1), 0.25)
    >>> magnified(grey, grey + 0.125)[1]
    'magnified 4 times, grey is no change'
    """
    change = changed - clean
    largest = float(change.abs().max())
    if largest == 0:
        return torch.full_like(clean, 0.5), "no pixel was changed"
    times = 0.5 / largest
    times = math.floor(times + 1e-4) if times >= 1 else times
    return (0.5 + times * change).clamp(0, 1), f"magnified {times:.3g} times, grey is no change"


def insertion_curves(check: AdversarialCheck, ax: Axes | None = None) -> Axes:
    """Plot the insertion curves of a clean and its adversarial image, and mark the fraction needed on each.

    >>> from faithmap import Gradient
    >>> from faithmap.metrics.functional import adversarial_check
    >>> explainer = Gradient(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 5)))
    >>> ax = insertion_curves(adversarial_check(explainer, torch.rand(1, 3, 16, 16), radius=0.1))
    >>> ax.get_title()
    'Insertion'

    Args:
        check: the adversarial check of one image.
        ax: axes to draw on; None creates a figure, the ``figure`` of the result.

    Raises:
        ValueError: for several images.
    """
    if len(check) != 1:
        raise ValueError(f"the check has {len(check)} images; give that of one, such as check[i]")
    ax = InlineFigure(figsize=(4.4, 3.4), layout="constrained").add_subplot() if ax is None else ax
    sides = (
        ("clean", check.clean_insertion, check.clean_needed, _CLEAN, "-"),
        ("adversarial", check.adversarial_insertion, check.adversarial_needed, _ADVERSARIAL, "--"),
    )
    for name, curve, needed, colour, line in sides:
        _curve(ax, curve, f"{name}: {_part(float(needed[0]))}", float(needed[0]), colour, line)
    frame(ax, [check.clean_insertion, check.adversarial_insertion])
    ax.set_title("Insertion", size=10)
    ax.set_xlabel(f"{check.protocol.unit} inserted", size=9)
    ax.set_ylabel("class probability", size=9)
    under: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "frameon": False}
    head = f"needed for {100 * check.share:.3g} % of the full image's probability"
    ax.legend(title=head, fontsize=8, title_fontsize=8, ncols=1, handlelength=1.8, **under)
    return ax


def _curve(ax: Axes, curve: Curve, label: str, needed: float, colour: str, line: str) -> None:
    """Plot one curve, with a circle on it and a line down to the fraction needed, unless the map is constant."""
    fractions, scores = line_of(curve)
    ax.plot(fractions, scores, color=colour, linestyle=line, linewidth=2, label=label)
    if math.isnan(needed):
        return
    (at,) = curve.scores[0][curve.fractions == needed].tolist()
    ax.plot([needed], [at], "o", color=colour, markersize=7, markerfacecolor="white", markeredgewidth=2, zorder=3)
    ax.vlines(needed, 0, at, color=colour, linestyle=":", linewidth=1)


def _part(needed: float) -> str:
    return "the map ranks nothing" if math.isnan(needed) else f"{100 * needed:.0f} % of the cells"


def _predictions(check: AdversarialCheck, labels: Sequence[str] | None) -> tuple[str, str]:
    """Predicted class and probability of both images."""
    texts = []
    for classes, probabilities in (
        (check.attack.clean_class, check.attack.clean_probabilities),
        (check.attack.adversarial_class, check.attack.adversarial_probabilities),
    ):
        texts.append(f"{_short(class_name(classes, labels) or '')}, probability {float(probabilities.max()):.3f}")
    return texts[0], texts[1]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 2].rstrip(" ,;") + " …"


def _title(check: AdversarialCheck, predictions: tuple[str, str]) -> str:
    if bool(check.fooled[0]):
        return f"{predictions[0]} \N{RIGHTWARDS ARROW} {predictions[1]}"
    return f"The attack failed: {predictions[0]} \N{RIGHTWARDS ARROW} {predictions[1]}"


def _subtitle(check: AdversarialCheck, clean: Tensor, changed: Tensor) -> str:
    """The attack, the maps and the protocol."""
    largest = float((changed - clean).abs().max())
    text = f"MI-FGSM, no pixel changed by more than {largest:.3g} of 1; {subtitle_of(check.clean)}; "
    return text + f"insertion by the {check.protocol.name} protocol"


def _sheet(image: Tensor, texts: tuple[str, str]) -> tuple[InlineFigure, list[Axes]]:
    """A figure with its heading, and its axes: three pictures, and below them two pictures and a plot."""
    wide = _HEIGHT * min(max(image.shape[-1] / image.shape[-2], 0.6), 2.0)
    last = _PLOT_GAP + max(wide, 2.7)
    width = 2 * _SIDE + 2 * (wide + _GAP) + last
    heading = Heading.of(*texts, width - 2 * _SIDE)
    figure = InlineFigure(figsize=(width, heading.height + 2 * (_HEIGHT + _BELOW)))
    heading.write(figure, _SIDE)
    axes = []
    for row in range(2):
        top = heading.height + row * (_HEIGHT + _BELOW)
        lefts = [_SIDE, _SIDE + wide + _GAP, _SIDE + 2 * (wide + _GAP) + _PLOT_GAP]
        axes += [axes_at(figure, left, top, wide, _HEIGHT) for left in lefts[:2]]
        axes.append(axes_at(figure, lefts[2], top, max(wide, 2.7) if row else wide, _HEIGHT - row * _LEGEND + row * 0.3))
    return figure, axes
