"""The explainer that the settings of a study stand for."""

from __future__ import annotations

from typing import Any

from faithmap.errors import UserError
from faithmap.methods import Explainer
from faithmap.methods.registry import METHODS, assigned, explainer_from
from faithmap.methods.settings import SettingError, find_setting, settings_of
from faithmap.model import Classifier
from faithmap.studies.settings import ExplainSettings

_SHORT = {
    "resolution": ("resolution",),
    "target_layer": ("target_layer",),
    "iterations": ("iterations",),
    "samples": ("samples", "masks"),
    "masker": ("masker",),
    "baseline": ("baseline", "references"),
    "score": ("score",),
}
"""Settings that have an option of their own, and their names in the methods."""


def has_resolution(name: str) -> bool:
    """Whether the resolution of a method's map is a setting."""
    return "resolution" in settings_of(METHODS[name].explainer)


def make_explainer(model: Classifier, settings: ExplainSettings) -> Explainer:
    """The method with the given settings; all others are the method's defaults.

    Raises:
        UserError: for a setting that the method does not have, or that is missing.
        SettingError: a ValueError, for a value that the method does not accept.
    """
    method = settings.method
    given = assigned(settings.set, [method])[method]
    for option in _SHORT:
        value = getattr(settings, option)
        if value is not None:
            given[_name_in(method, option)] = _plain(option, value)
    if "masker" in METHODS[method].needs and settings.masker is None:
        made = "'faithmap train-masker' makes one, and 'faithmap explain' takes it as --masker FILE"
        raise UserError(f"{method} needs a network that was trained for the model; {made}")
    return explainer_from(method, model, {**given, "chunk_size": settings.chunk, "seed": settings.seed})


def options_of(method: str) -> frozenset[str]:
    """The settings of a method that have an option of their own."""
    return frozenset(option for option in _SHORT if any(_has(method, name) for name in _SHORT[option]))


def _name_in(method: str, option: str) -> str:
    """The method's name for a setting that has an option of its own."""
    for name in _SHORT[option]:
        if _has(method, name):
            return name
    raise UserError(f"--{option.replace('_', '-')} is no setting of {method}; leave it out")


def _has(method: str, name: str) -> bool:
    try:
        find_setting(METHODS[method].explainer, name)
    except SettingError:
        return False
    return True


def _plain(option: str, value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if option == "target_layer" else value
