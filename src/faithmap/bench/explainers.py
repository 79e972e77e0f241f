"""Explainers from plain settings: what a file can say, made into what a method takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import nn

from faithmap.baselines import Blur, MedianBlur
from faithmap.bench.errors import BenchError
from faithmap.methods.base import Explainer
from faithmap.methods.masks.line_search import LineSearch
from faithmap.methods.masks.nesterov import Nesterov
from faithmap.methods.registry import METHODS

NAMED = {"blur": Blur, "median_blur": MedianBlur, "line_search": LineSearch, "nesterov": Nesterov}
"""What a table with a key ``kind`` stands for."""

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
        BenchError: for settings that the method does not have or take.
    """
    kind: Any = METHODS[name].explainer
    defaults = {field.name: field.default for field in fields(kind) if not field.name.startswith("_")}
    own = set(defaults)
    given = {key: plain_value(value) for key, value in settings.items()}
    try:
        if "masker" in own:
            given["masker"] = _masker(given.get("masker"), model)
        inner = _estimator_settings(kind, model, given, own)
        if resolution is not None:
            given["resolution"] = resolution
        for key, value in given.items():
            if key not in own or (key in RUN and key != "resolution"):
                raise BenchError(f"{name} has no setting {key!r}; its settings are {', '.join(sorted(own - RUN))}")
            if not _alike(value, defaults[key]):
                raise BenchError(f"method {name}: {key} is {value!r}; give a value like its default, {defaults[key]!r}")
        if inner is not None:
            given["gradient"] = inner
        precision = None if autocast is None else getattr(torch, autocast)
        made: Explainer = kind(model, chunk_size=chunk_size, autocast=precision, **given)
    except (TypeError, ValueError, ModuleNotFoundError) as error:
        raise error if isinstance(error, BenchError) else BenchError(f"method {name}: {error}") from error
    return made


def _alike(value: Any, default: Any) -> bool:
    """Whether a value can be meant where a number or a yes or no stands; of other settings the method decides."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    return not isinstance(default, (int, float)) or not isinstance(value, (str, bool))


def _estimator_settings(kind: Any, model: nn.Module, given: dict[str, Any], own: set[str]) -> Any:
    """The gradient estimator of a CAM with those of the settings that are its own, which are taken out."""
    if "gradient" not in own or "gradient" in given:
        return None
    estimator: Any = kind(model).gradient
    mine = {field.name for field in fields(estimator)} if is_dataclass(estimator) else set()
    inner = {key: given.pop(key) for key in list(given) if key in mine and key not in own}
    return replace(estimator, **inner) if inner else None


def _masker(path: Any, model: nn.Module) -> Any:
    from faithmap.methods.masks.masker_files import read_masker  # noqa: PLC0415

    if not isinstance(path, str):
        raise BenchError("learned_mask needs a network that was trained for the model; give masker, a file")
    return read_masker(path, model)


def plain_value(value: Any) -> Any:
    """A file's value as a method or metric takes it: tuples for lists, objects for tables with a ``kind``."""
    if isinstance(value, list):
        return tuple(plain_value(item) for item in value)
    if isinstance(value, dict):
        rest = {key: plain_value(item) for key, item in value.items() if key != "kind"}
        if value.get("kind") not in NAMED:
            raise BenchError(f"a table has the kind {value.get('kind')!r}; give one of {', '.join(NAMED)}")
        try:
            return NAMED[value["kind"]](**rest)
        except TypeError as error:
            raise BenchError(f"{value['kind']}: {error}") from error
    return value
