"""Candidates: the methods of a selection by default, and the checks of its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from faithmap.methods.base import Explainer
from faithmap.methods.controls import Control
from faithmap.methods.masks.masker import Masker
from faithmap.methods.registry import METHODS, explainer_from
from faithmap.methods.settings import has_any_resolution, settings_of
from faithmap.model import check_images
from faithmap.score import ImageTarget, Target
from faithmap.selection.choice import SCORES


def explainers_for(
    model: nn.Module,
    names: Sequence[str] | None = None,
    *,
    resolution: int = 28,
    chunk_size: int = 32,
    seed: int = 0,
    masker: Masker | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Explainer]:
    """Methods of the registry; maps whose resolution is a setting have the given one.

    >>> explainers_for(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), ["gradient"]).keys() >= {"gradient", "random_map"}
    True

    Args:
        model: the model to explain.
        names: of methods; None for all. Controls are always included.
        resolution: number of cells per side.
        chunk_size: maximum number of images per pass.
        seed: seed of the run.
        masker: a network that was trained for the model, for the learned mask; without one, that method cannot be used.
        settings: of a method, by its name, in plain form (:mod:`faithmap.methods.settings`); all others are its defaults.

    Raises:
        ValueError: for an unknown name, a setting that a method does not have, or a value that it does not accept.
    """
    for name in names or ():
        if name not in METHODS:
            raise ValueError(f"{name!r} is no method; give some of {', '.join(METHODS)}")
    controls = [name for name, method in METHODS.items() if issubclass(method.explainer, Control)]
    made: dict[str, Explainer] = {}
    for name in METHODS if names is None else dict.fromkeys([*names, *controls]):
        method, kind = METHODS[name], METHODS[name].explainer
        common = {"resolution": resolution, "masker": masker, "chunk_size": chunk_size, "seed": seed}
        if not has_any_resolution(kind):
            del common["resolution"]
        given = {key: value for key, value in common.items() if key in settings_of(kind)} | dict((settings or {}).get(name, {}))
        if "masker" in method.needs and given["masker"] is None:
            made[name] = kind(model)  # raises an error when it is called
        else:
            made[name] = explainer_from(name, model, given)
    return made


def check_arguments(
    model: nn.Module,
    images: Sequence[Tensor],
    target: Target,
    explainers: Mapping[str, Explainer] | None,
    budget: float,
    score: str,
    resolution: int,
    keys: Sequence[int] | None,
    chunk_size: int,
) -> None:
    """Raise ValueError for arguments of a selection that do not fit each other."""
    if not images:
        raise ValueError("there are no images; give at least one")
    for image in images:
        check_images(model, image)
        if len(image) != 1 or not 1 <= resolution <= min(image.shape[-2:]):
            raise ValueError(
                f"an image has shape {tuple(image.shape)} and the resolution is {resolution}; give "
                "(1, channels, height, width), and at most one cell per pixel along each side"
            )
    if not budget > 0 or score not in SCORES or chunk_size < 1:
        raise ValueError(
            f"budget is {budget}, score {score!r} and chunk_size {chunk_size}; give seconds above 0, one of "
            f"{', '.join(SCORES)}, and at least 1 image"
        )
    if explainers is not None and all(isinstance(explainer, Control) for explainer in explainers.values()):
        raise ValueError("explainers has only controls; give at least one method, or None for all")
    count = _targets(target)
    if count not in (None, len(images)):
        raise ValueError(f"target has {count} entries for {len(images)} images; give one for each, or one for all")
    if keys is not None and len(keys) != len(images):
        raise ValueError(f"{len(keys)} keys for {len(images)} images; give one for each")


def _targets(target: Target) -> int | None:
    """Number of images for which there are classes or settings; None if one is for all."""
    if isinstance(target, Tensor):
        return len(target) if target.ndim else None
    if isinstance(target, ImageTarget):
        return target.count
    return len(target) if isinstance(target, Sequence) else None
