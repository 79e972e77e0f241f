"""Deletion and insertion at a few moments, as in Figures 12 to 15 of the I-GOS paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor, nn

from faithmap.baselines import Baseline, make_baseline
from faithmap.explanation import Explanation
from faithmap.model import Classifier, check_images, undisturbed
from faithmap.probe import MaskedModel, clean_scores
from faithmap.score import Score, Target
from faithmap.viz.captions import answered, how, named
from faithmap.viz.checks import check_explained, one_photo
from faithmap.viz.figure import Heading, Picture, axes_at, draw
from faithmap.viz.games import COLOURS, GAMES, game_images, game_masks

RATIOS = (0.02, 0.05, 0.1, 0.2, 0.5)

_EXPLAINED = {
    "deletion": "the most important\ncells are removed",
    "insertion": "only the most important\ncells are shown",
}
_HEIGHT, _LEFT, _GAP, _BELOW, _SIDE = 1.5, 2.0, 0.12, 0.3, 0.25


def strip(
    model: nn.Module,
    image: Float[Tensor, "1 c h w"],
    why: Explanation,
    baseline: Baseline = "blur",
    *,
    ratios: Sequence[float] = RATIOS,
    target: Target = None,
    chunk_size: int = 32,
    title: str | None = None,
) -> Figure:
    """The image as its most important cells go, and the baseline as they come, the score beneath each picture.

    The masks are those of ``deletion_insertion`` under the ``igos`` protocol, and each score is the model's answer to just
    the picture above it. Over the columns stand the true fractions: of 49 cells, 2 % is one, but 5 % is two, or 4.1 %.

    Args:
        model: as it was explained.
        image: the one image that was explained, in [0, 1].
        why: its explanation.
        baseline: what is shown of removed cells.
        ratios: fractions of the cells, from 0 to 1; the untouched picture comes first in any case.
        target: whose softmax probability is written; None for the explanation's, else the predicted class.
        chunk_size: images in one pass of the model at the most.
        title: instead of the class and its probability.

    Raises:
        ValueError: for several images, ratios outside [0, 1], or a heatmap that ranks nothing.
    """
    check_images(model, image)
    one_photo(image)
    check_explained(image, why)
    image, made = image.detach(), make_baseline(baseline, image)
    counts = _counts(ratios, why.heatmap[0].numel())
    masks = torch.cat([game_masks(why.cells, counts, game) for game in GAMES])
    score, scores = _scores(model, image, made, masks, why.explained if target is None else target, chunk_size)
    name = named(score.classes, model.labels if isinstance(model, Classifier) else None)
    heading = title or answered(name, "probability", float(scores[0])), f"{how(why)}; beneath each picture its score"
    pictures = game_images(image, made, masks)
    return _drawn(pictures, scores, [_percent(int(k) / why.heatmap[0].numel()) for k in counts], heading)


def _counts(ratios: Sequence[float], cells: int) -> Int[Tensor, " k"]:
    if not all(0 <= ratio <= 1 for ratio in ratios):
        raise ValueError(f"ratios are {tuple(ratios)}; give fractions from 0 to 1")
    return (torch.tensor([0.0, *ratios], dtype=torch.float64) * cells).round().long()


def _scores(
    model: nn.Module, image: Tensor, baseline: Tensor, masks: Float[Tensor, "m r c"], target: Target, chunk_size: int
) -> tuple[Score, Float[Tensor, " m"]]:
    """What is asked of the model, and its answer to the image under each mask."""
    with undisturbed(model):
        _, score, _ = clean_scores(model, image, target, "probability", chunk_size)
        masked = MaskedModel(model, score, image, baseline, chunk_size=chunk_size)
        return score, masked.scores(masks.to(image), torch.zeros(len(masks), dtype=torch.long, device=image.device))


def _drawn(
    pictures: Float[Tensor, "m c h w"], scores: Float[Tensor, " m"], shares: list[str], words: tuple[str, str]
) -> Figure:
    """Deletion over insertion, a column for each share of the cells."""
    wide = _HEIGHT * min(max(pictures.shape[-1] / pictures.shape[-2], 0.6), 2.0)
    width = _LEFT + len(shares) * (wide + _GAP) - _GAP + _SIDE
    heading = Heading.of(*words, width - 2 * _SIDE)
    figure = Picture(figsize=(width, heading.height + len(GAMES) * (_HEIGHT + _BELOW) + 0.1))
    heading.write(figure, _SIDE)
    for i, (picture, answer) in enumerate(zip(pictures, scores.tolist(), strict=True)):
        row, column = divmod(i, len(shares))
        top = heading.height + row * (_HEIGHT + _BELOW)
        ax = axes_at(figure, _LEFT + column * (wide + _GAP), top, wide, _HEIGHT)
        draw(ax, one_photo(picture.unsqueeze(0)), "" if row else shares[column], f"{answer:.3f}")
        if column == 0:
            at: dict[str, Any] = {"x": -(_LEFT - _SIDE) / wide, "transform": ax.transAxes}
            ax.text(s=GAMES[row], y=0.56, size=11, weight="bold", color=COLOURS[GAMES[row]], va="bottom", **at)
            ax.text(s=_EXPLAINED[GAMES[row]], y=0.52, size=8.5, va="top", **at)
    return figure


def _percent(share: float) -> str:
    """With at most one decimal.

    >>> _percent(16 / 784), _percent(2 / 49), _percent(1.0)
    ('2 %', '4.1 %', '100 %')
    """
    return f"{100 * share:.1f}".removesuffix(".0") + " %"
