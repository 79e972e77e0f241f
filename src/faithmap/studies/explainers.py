"""The explainer that the settings of a study stand for."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from faithmap.errors import UserError
from faithmap.methods import Explainer
from faithmap.methods.cams import Expected, Integrated, Smooth
from faithmap.methods.masks.masker import Masker
from faithmap.methods.masks.masker_files import read_masker
from faithmap.methods.registry import METHODS
from faithmap.model import Classifier
from faithmap.studies.settings import ExplainSettings

_SETTINGS = ("resolution", "target_layer", "iterations", "samples", "masker", "baseline", "score")


def has_resolution(name: str) -> bool:
    """Whether the resolution of a method's map is a setting."""
    return any(field.name == "resolution" for field in fields(METHODS[name].explainer))


def make_explainer(model: Classifier, settings: ExplainSettings) -> Explainer:
    """The method with the given settings; all others are the method's defaults.

    Raises:
        UserError: for a setting that the method does not have.
    """
    explainer = METHODS[settings.method].explainer
    own = {field.name for field in fields(explainer)}
    given: dict[str, Any] = {name: getattr(settings, name) for name in _SETTINGS if getattr(settings, name) is not None}
    gradient = getattr(explainer(model), "gradient", None)
    if "samples" in given and isinstance(gradient, (Smooth, Integrated, Expected)):
        given["gradient"] = gradient = replace(gradient, samples=given.pop("samples"))
    if "baseline" in given and isinstance(gradient, (Integrated, Expected)):
        given["gradient"] = gradient.starting_from(given.pop("baseline"))
    for name, other in (("samples", "masks"), ("baseline", "references")):
        if name in given and name not in own and other in own:
            given[other] = given.pop(name)
    for name in given.keys() - own:
        raise UserError(f"--{name.replace('_', '-')} is no setting of {settings.method}; leave it out")
    if "masker" in own:
        given["masker"] = _masker(model, settings)
    if "target_layer" in given:
        given["target_layer"] = [name.strip() for name in given["target_layer"].split(",")]
    return explainer(model, chunk_size=settings.chunk, seed=settings.seed, **given)


def _masker(model: Classifier, settings: ExplainSettings) -> Masker:
    """The network that was trained for the model.

    Raises:
        UserError: if no file is given.
        ValueError: for a file that cannot be read or belongs to another model.
    """
    if settings.masker is None:
        made = "'faithmap train-masker' makes one, and 'faithmap explain' takes it as --masker FILE"
        raise UserError(f"{settings.method} needs a network that was trained for the model; {made}")
    return read_masker(settings.masker, model)
