"""Explainers from plain settings: what a file can say, made into what a method takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import nn

from faithmap.bench.errors import BenchError, SettingError
from faithmap.bench.fitting import NAMED, field_annotation, misfit
from faithmap.methods.base import Explainer
from faithmap.methods.registry import METHODS

RUN = frozenset({"chunk_size", "seed", "autocast", "model", "resolution"})
"""Settings that are the run's."""


def make_explainer(
    model: nn.Module,
    name: str,
    settings: Mapping[str, Any],
    *,
    resolution: int | None = None,
    chunk_size: int = 32,
    autocast: str | None = None,
) -> Explainer:
    """A method of the registry with settings from a file.

    Args:
        model: that is asked.
        name: in the registry.
        settings: keywords of the method, or of its gradient estimator. A list becomes a tuple; a table with ``kind`` what that
            names (blur, median_blur, line_search, nesterov).
        resolution: cells a side, for methods that have any number.
        chunk_size: images in one pass at the most.
        autocast: a lower precision, by name.

    Raises:
        SettingError: a BenchError, for settings that the method does not have or take.
    """
    kind: Any = METHODS[name].explainer
    own = {field.name for field in fields(kind) if not field.name.startswith("_")}
    given = {key: plain_setting(key, value) for key, value in settings.items()}
    try:
        if "masker" in own:
            given["masker"] = _masker(given.get("masker"), model)
        inner = _estimator_settings(kind, model, given, own)
        if resolution is not None:
            given["resolution"] = resolution
        for key, value in given.items():
            if key not in own or (key in RUN and key != "resolution"):
                raise SettingError(f"{name} has no setting {key!r}; its settings are {', '.join(sorted(own - RUN))}", key)
            _check_fit(kind, key, value)
        if inner is not None:
            given["gradient"] = inner
        precision = None if autocast is None else getattr(torch, autocast)
        made: Explainer = kind(model, chunk_size=chunk_size, autocast=precision, **given)
    except (TypeError, ValueError, ModuleNotFoundError) as error:
        raise error if isinstance(error, SettingError) else SettingError(error) from error
    return made


def _check_fit(kind: type, key: str, value: Any) -> None:
    wanted = misfit(value, *field_annotation(kind, key))
    if wanted is not None:
        raise SettingError(f"{key} is {value!r}; give {wanted}", key)


def _estimator_settings(kind: Any, model: nn.Module, given: dict[str, Any], own: set[str]) -> Any:
    """The gradient estimator of a CAM with those of the settings that are its own, which are taken out."""
    if "gradient" not in own or "gradient" in given:
        return None
    estimator: Any = kind(model).gradient
    mine = {field.name for field in fields(estimator)} if is_dataclass(estimator) else set()
    inner = {key: given.pop(key) for key in list(given) if key in mine and key not in own}
    for key, value in inner.items():
        _check_fit(type(estimator), key, value)
    return replace(estimator, **inner) if inner else None


def _masker(path: Any, model: nn.Module) -> Any:
    from faithmap.methods.masks.masker_files import read_masker  # noqa: PLC0415

    if not isinstance(path, str):
        raise SettingError("learned_mask needs a network that was trained for the model; give masker, a file", "masker")
    return read_masker(path, model)


def plain_setting(key: str, value: Any) -> Any:
    """A setting's value as a method or metric takes it.

    Raises:
        SettingError: for a table that stands for no object.
    """
    try:
        return plain_value(value)
    except BenchError as error:
        raise SettingError(error, key) from error


def plain_value(value: Any) -> Any:
    """A file's value as a method or metric takes it: tuples for lists, objects for tables with a ``kind``."""
    if isinstance(value, list):
        return tuple(plain_value(item) for item in value)
    return _object(value) if isinstance(value, dict) else value


def _object(table: Mapping[str, Any]) -> Any:
    """What a table with a ``kind`` stands for, its own settings seen to fit."""
    name = table.get("kind")
    kind = NAMED.get(name) if isinstance(name, str) else None
    if kind is None:
        raise BenchError(f"a table has the kind {name!r}; give one of {', '.join(NAMED)}")
    given = {key: plain_value(item) for key, item in table.items() if key != "kind"}
    own = [field.name for field in fields(kind)]
    for key, value in given.items():
        if key not in own:
            raise BenchError(f"{name} has no setting {key!r}; its settings are {', '.join(own)}")
        wanted = misfit(value, *field_annotation(kind, key))
        if wanted is not None:
            raise BenchError(f"{key} of {name} is {value!r}; give {wanted}")
    try:
        return kind(**given)
    except ValueError as error:
        raise BenchError(f"{name}: {error}") from error
