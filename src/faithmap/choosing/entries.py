"""Entries: the methods that enter by themselves, and what is checked before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from faithmap.choosing.choice import SCORES
from faithmap.methods.base import Explainer
from faithmap.methods.controls import Control
from faithmap.methods.registry import METHODS
from faithmap.model import check_images


def explainers_for(
    model: nn.Module, names: Sequence[str] | None = None, *, resolution: int = 28, chunk_size: int = 32, seed: int = 0
) -> dict[str, Explainer]:
    """Methods of the registry with their own defaults, those whose maps can have any number of cells at the resolution.

    Args:
        model: that is asked.
        names: of methods; None for all. Controls come by themselves.
        resolution: cells a side.
        chunk_size: images in one pass at the most.
        seed: of the run.
    """
    controls = [name for name, method in METHODS.items() if issubclass(method.explainer, Control)]
    made: dict[str, Explainer] = {}
    for name in METHODS if names is None else dict.fromkeys([*names, *controls]):
        explainer: Any = METHODS[name].explainer
        settings = {"resolution": resolution} if any(setting.name == "resolution" for setting in fields(explainer)) else {}
        made[name] = explainer(model, chunk_size=chunk_size, seed=seed, **settings)
    return made


def check_entries(
    model: nn.Module, photographs: Sequence[Tensor], budget: float, score: str, resolution: int, keys: Sequence[int] | None
) -> None:
    """Raise ValueError for what cannot be done."""
    if not photographs:
        raise ValueError("there are no photographs; give at least one")
    for photograph in photographs:
        check_images(model, photograph)
        if len(photograph) != 1 or not 1 <= resolution <= min(photograph.shape[-2:]):
            raise ValueError(
                f"a photograph has shape {tuple(photograph.shape)} and the resolution is {resolution}; give "
                "(1, channels, height, width), and no more cells than pixels a side"
            )
    if not budget > 0 or score not in SCORES:
        raise ValueError(f"budget is {budget} and score {score!r}; give seconds above 0, and one of {', '.join(SCORES)}")
    if keys is not None and len(keys) != len(photographs):
        raise ValueError(f"{len(keys)} keys for {len(photographs)} photographs; give one for each")
