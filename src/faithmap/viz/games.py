"""The images of deletion and insertion, as the metric shows them to the model."""

from __future__ import annotations

from typing import Literal, TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

from faithmap.explanation import cell_ranks
from faithmap.masking import compose, upsample
from faithmap.viz.colours import flaw

Game: TypeAlias = Literal["deletion", "insertion"]

GAMES: tuple[Game, Game] = ("deletion", "insertion")

COLOURS: dict[Game, str] = {"deletion": "#d55e00", "insertion": "#0072b2"}
"""Vermilion and blue, which stay apart with every common colour blindness (Okabe and Ito 2008)."""


def game_masks(heatmap: Float[Tensor, "1 r c"], counts: Int[Tensor, " k"], game: Game) -> Float[Tensor, "k r c"]:
    """The mask after each count of cells was played, highest first: the very masks of ``deletion_insertion``.

    >>> import torch
    >>> game_masks(torch.tensor([[[0.1, 0.9]]]), torch.tensor([0, 1, 2]), "deletion").squeeze()
    tensor([[1., 1.],
            [1., 0.],
            [0., 0.]])

    Raises:
        ValueError: for a map that ranks nothing; its cells have no order that a picture could show.
    """
    problem = flaw(heatmap)
    if problem is not None:
        raise ValueError(f"the heatmap holds {problem}, so that there is nothing to delete or insert first")
    inserted = cell_ranks(heatmap) < counts.to(heatmap.device).view(-1, 1, 1)
    return (inserted if game == "insertion" else ~inserted).to(heatmap.dtype)


def game_images(
    image: Float[Tensor, "1 c h w"], baseline: Float[Tensor, "1 c h w"], masks: Float[Tensor, "k r c"]
) -> Float[Tensor, "k c h w"]:
    """The image under each mask."""
    up = upsample(masks.unsqueeze(1).to(image), (image.shape[-2], image.shape[-1]))
    return compose(image.expand(len(up), -1, -1, -1), baseline.expand(len(up), -1, -1, -1), up)
