"""The adversarial check on one sheet: both images and what differs, both maps, and how much of each has to be inserted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from faithmap.explanation import Explanation
from faithmap.metrics.functional import AdversarialCheck, Curve
from faithmap.viz.captions import how, named
from faithmap.viz.checks import check_explained, one_photo
from faithmap.viz.colours import COLORMAP, flaw
from faithmap.viz.curves import frame, line_of
from faithmap.viz.figure import Heading, Picture, axes_at, draw, say
from faithmap.viz.overlay import overlay, placed

_HEIGHT, _BELOW, _SIDE, _GAP, _PLOT_GAP = 2.7, 0.72, 0.25, 0.3, 0.5
_LEGEND, _LONGEST = 0.72, 28

_CLEAN, _ADVERSARIAL = "#0072b2", "#d55e00"
"""Blue and vermilion, which stay apart with every common colour blindness; the second line is dashed, too."""


def adversarial_panel(
    image: Float[Tensor, "1 c h w"],
    check: AdversarialCheck,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    colormap: str = COLORMAP,
) -> Figure:
    """Clean image, adversarial image and their difference; under them both maps, and both insertion curves.

    The difference is magnified around grey until its largest value nearly fills the range of colours, by a whole number of
    times that stands below it. The circles on the curves mark the fraction that brings the share of the score back.

    Args:
        image: the one clean image, in [0, 1].
        check: of it alone.
        labels: one name per class.
        title: instead of both classes and their probabilities.
        colormap: one of matplotlib's, by name.

    Raises:
        ValueError: for several images, or an image and a check that do not fit each other.
    """
    clean = one_photo(image)
    if len(check) != 1:
        raise ValueError(f"the check holds {len(check)} images; give that of one, such as check[i]")
    check_explained(clean, check.clean)
    changed = one_photo(check.attack.images)
    answers = _answers(check, labels)
    figure, axes = _sheet(clean, (title or _title(check, answers), _made(check, clean, changed)))
    difference, words = magnified(clean, changed)
    draw(axes[0], clean, "Clean image", answers[0])
    draw(axes[1], changed, "Adversarial image", answers[1])
    draw(axes[2], difference, "Difference", words)
    below = [f"for {_short(named(why.target, labels) or '')}" for why in (check.clean, check.adversarial)]
    correlation = float(check.correlation[0])
    below[1] += "" if math.isnan(correlation) else f"; rank correlation to the other {correlation:.2f}"
    _map(axes[3], clean, check.clean, ("Map of the clean image", below[0]), colormap)
    _map(axes[4], changed, check.adversarial, ("Map of the adversarial image", below[1]), colormap)
    insertion_curves(check, axes[5])
    return figure


def magnified(clean: Float[Tensor, "1 3 h w"], changed: Float[Tensor, "1 3 h w"]) -> tuple[Float[Tensor, "1 3 h w"], str]:
    """What was changed, around a grey of 0.5 and as many times larger as fit, and how many times in words.

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
    """Plot the insertion curves of one image and its adversarial twin, and mark the fraction needed on each.

    Args:
        check: of one image.
        ax: where to draw; None makes a figure, found at the result's ``figure``.

    Raises:
        ValueError: for several images.
    """
    if len(check) != 1:
        raise ValueError(f"the check holds {len(check)} images; give that of one, such as check[i]")
    ax = Picture(figsize=(4.4, 3.4), layout="constrained").add_subplot() if ax is None else ax
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
    """One curve; where the map ranks, a circle on it, and a line down to the fraction needed."""
    fractions, scores = line_of(curve)
    ax.plot(fractions, scores, color=colour, linestyle=line, linewidth=2, label=label)
    if math.isnan(needed):
        return
    (at,) = curve.scores[0][curve.fractions == needed].tolist()
    ax.plot([needed], [at], "o", color=colour, markersize=7, markerfacecolor="white", markeredgewidth=2, zorder=3)
    ax.vlines(needed, 0, at, color=colour, linestyle=":", linewidth=1)


def _part(needed: float) -> str:
    return "the map ranks nothing" if math.isnan(needed) else f"{100 * needed:.0f} % of the cells"


def _map(ax: Axes, image: Float[Tensor, "1 3 h w"], why: Explanation, words: tuple[str, str], colormap: str) -> None:
    problem = flaw(why.heatmap)
    if problem is not None:
        say(ax, problem, words[0], image.shape[-2:])
        return
    draw(ax, overlay(image, placed(why, image).cpu(), colormap=colormap), *words)


def _answers(check: AdversarialCheck, labels: Sequence[str] | None) -> tuple[str, str]:
    """What the model says of both images."""
    said = []
    for classes, probabilities in (
        (check.attack.clean_class, check.attack.clean_probabilities),
        (check.attack.adversarial_class, check.attack.adversarial_probabilities),
    ):
        said.append(f"{_short(named(classes, labels) or '')}, probability {float(probabilities.max()):.3f}")
    return said[0], said[1]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 2].rstrip(" ,;") + " …"


def _title(check: AdversarialCheck, answers: tuple[str, str]) -> str:
    if bool(check.fooled[0]):
        return f"{answers[0]} \N{RIGHTWARDS ARROW} {answers[1]}"
    return f"The attack failed: {answers[0]} \N{RIGHTWARDS ARROW} {answers[1]}"


def _made(check: AdversarialCheck, clean: Tensor, changed: Tensor) -> str:
    """How: the attack, the maps, the game."""
    largest = float((changed - clean).abs().max())
    text = f"MI-FGSM, no pixel changed by more than {largest:.3g} of 1; {how(check.clean)}; "
    return text + f"insertion by the {check.protocol.name} protocol"


def _sheet(image: Tensor, words: tuple[str, str]) -> tuple[Picture, list[Axes]]:
    """A figure with nothing but its heading, and its axes: three pictures, and under them two pictures and a plot."""
    wide = _HEIGHT * min(max(image.shape[-1] / image.shape[-2], 0.6), 2.0)
    last = _PLOT_GAP + max(wide, 2.7)
    width = 2 * _SIDE + 2 * (wide + _GAP) + last
    heading = Heading.of(*words, width - 2 * _SIDE)
    figure = Picture(figsize=(width, heading.height + 2 * (_HEIGHT + _BELOW)))
    heading.write(figure, _SIDE)
    axes = []
    for row in range(2):
        top = heading.height + row * (_HEIGHT + _BELOW)
        lefts = [_SIDE, _SIDE + wide + _GAP, _SIDE + 2 * (wide + _GAP) + _PLOT_GAP]
        axes += [axes_at(figure, left, top, wide, _HEIGHT) for left in lefts[:2]]
        axes.append(axes_at(figure, lefts[2], top, max(wide, 2.7) if row else wide, _HEIGHT - row * _LEGEND + row * 0.3))
    return figure, axes
