"""Deletion and insertion as a film: the image loses its cells in the map's order while the baseline gains them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from faithmap.baselines import Baseline, make_baseline
from faithmap.explanation import Explanation
from faithmap.metrics.functional import DeletionInsertion
from faithmap.viz.checks import check_explained, one_photo
from faithmap.viz.encoding import SUFFIXES, write_film
from faithmap.viz.figure import to_bytes
from faithmap.viz.games import GAMES, Game, game_images, game_masks
from faithmap.viz.screen import Screen

FRAMES, SECONDS = 51, 5.0

_REST = 500
"""How much longer the first and the last frame stay, in milliseconds."""

_SMALLEST = 128
"""A smaller image is enlarged by the whole number that gets its shorter side to so many pixels, for the words beside it."""


def animation(
    image: Float[Tensor, "1 c h w"],
    why: Explanation,
    baseline: Baseline | None,
    proof: DeletionInsertion,
    path: str | os.PathLike[str],
    *,
    frames: int = FRAMES,
    seconds: float = SECONDS,
) -> None:
    """Write deletion and insertion side by side, their scores growing as curves below, as a file that repeats.

    Each frame is a point of the proof's curves: its pictures are those that the model was shown for that point.

    Args:
        image: the one image that was explained, in [0, 1].
        why: its explanation.
        baseline: what the proof showed of removed cells; None for what its protocol says.
        proof: the curves of that explanation.
        path: ends in .gif or .webp.
        frames: at the most; the curves' points are spread evenly over them, both ends in.
        seconds: for one run, without the rest at both ends.

    Raises:
        ValueError: for several images, a proof of another map, a heatmap that ranks nothing, or another suffix.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{os.fspath(path)!r} is no path of a film; give one that ends in {' or '.join(SUFFIXES)}")
    if frames < 2:
        raise ValueError(f"frames is {frames}; give at least 2, the beginning and the end")
    points = len(proof.deletion.fractions)
    moments = torch.linspace(0, points - 1, min(frames, points), dtype=torch.float64).round().long()
    pictures = list(film(image, why, baseline, proof, moments))
    each = max(2, round(100 * seconds / len(pictures))) * 10
    rests = [_REST, *[0] * (len(pictures) - 2), _REST]
    write_film(pictures, [each + rest for rest in rests], Path(path))


def film(
    image: Float[Tensor, "1 c h w"],
    why: Explanation,
    baseline: Baseline | None,
    proof: DeletionInsertion,
    moments: Int[Tensor, " k"],
) -> Iterator[NDArray[np.uint8]]:
    """The frames (rows, columns, RGB) at some points of the curves, given by their indices; see :func:`animation`."""
    image = one_photo(image)
    check_explained(image, why, proof)
    heatmap = _ranked(why, proof)
    counts = (proof.deletion.fractions.cpu().double() * heatmap.numel()).round().long()
    made = {game: _baseline(baseline, proof, game, image) for game in GAMES}
    scale = -(-_SMALLEST // min(image.shape[-2:]))
    screen = Screen(proof, (scale * image.shape[-2], scale * image.shape[-1]), "score" if why.target is None else "probability")
    for moment in moments.tolist():
        shown = {game: game_images(image, made[game], game_masks(heatmap, counts[moment : moment + 1], game)) for game in GAMES}
        yield screen.frame(moment, {game: to_bytes(shown[game]).repeat(scale, 0).repeat(scale, 1) for game in GAMES})


def _ranked(why: Explanation, proof: DeletionInsertion) -> Float[Tensor, "1 r c"]:
    """The map whose cells the proof played."""
    heatmap = (why.cells if proof.protocol.unit == "cells" else why.at()).detach().cpu()
    if tuple(heatmap.shape[-2:]) != tuple(proof.resolution):
        (rows, columns), (r, c) = proof.resolution, heatmap.shape[-2:]
        raise ValueError(f"the proof is of {rows} x {columns} cells, the map of {r} x {c}; give the proof of this map")
    return heatmap


def _baseline(baseline: Baseline | None, proof: DeletionInsertion, game: Game, image: Tensor) -> Tensor:
    rules = proof.protocol
    own = rules.deletion_baseline if game == "deletion" else rules.insertion_baseline
    return make_baseline(own if baseline is None else baseline, image)
