"""Removal steps: the images of deletion and insertion after a number of cells, and a strip of a few of them.

The strip is that of Figures 12 to 15 of the I-GOS paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor, nn

from faithmap.baselines import Baseline, make_baseline
from faithmap.deprecation import renamed_parameters
from faithmap.explanation import Explanation, cell_ranks
from faithmap.masking import compose, upsample
from faithmap.model import Classifier, check_images, undisturbed
from faithmap.probe import MaskProbe, clean_scores
from faithmap.score import Score, Target
from faithmap.viz.captions import class_and_score, class_name, subtitle_of
from faithmap.viz.figure import Heading, InlineFigure, axes_at, check_explained, draw, one_image
from faithmap.viz.overlay import flaw

CurveKind: TypeAlias = Literal["deletion", "insertion"]

KINDS: tuple[CurveKind, CurveKind] = ("deletion", "insertion")

COLOURS: dict[CurveKind, str] = {"deletion": "#d55e00", "insertion": "#0072b2"}
"""Vermilion and blue, distinguishable with every common colour blindness (Okabe and Ito 2008)."""

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
        baseline: what removed cells become.
        ratios: fractions of the cells, from 0 to 1; the unchanged picture always comes first.
        target: the class whose softmax probability is written; None for the explanation's target, or else the predicted class.
        chunk_size: maximum number of images per pass.
        title: instead of the class and its probability.

    Raises:
        ValueError: for several images, ratios outside [0, 1], or a heatmap whose cells have no order.
    """
    check_images(model, image)
    one_image(image)
    check_explained(image, explanation)
    image, made = image.detach(), make_baseline(baseline, image)
    cells = explanation.heatmap[0].numel()
    counts = _counts(ratios, cells)
    masks = torch.cat([step_masks(explanation.cells, counts, kind) for kind in KINDS])
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
