"""Explainers with the settings of a specification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from faithmap.bench.errors import SettingError
from faithmap.methods.base import Explainer
from faithmap.methods.registry import METHODS, explainer_from
from faithmap.methods.settings import SettingError as MethodSettingError, settings_of


def make_explainer(
    model: nn.Module,
    name: str,
    settings: Mapping[str, Any],
    *,
    resolution: int | None = None,
    chunk_size: int = 32,
    autocast: str | None = None,
) -> Explainer:
    """A method of the registry with the settings of a specification.

    Args:
        model: the explained model.
        name: in the registry.
        settings: of the method, in plain form (:mod:`faithmap.methods.settings`).
        resolution: cells a side, for methods that have any number.
        chunk_size: maximum number of images in one pass.
        autocast: a lower precision, by name.

    Raises:
        SettingError: a BenchError, for settings that the method does not have or accept.
    """
    own = settings_of(METHODS[name].explainer)
    for key in settings:
        if key in own and own[key].of_run:
            raise SettingError(f"{name} has no setting {key!r}; it is a field of the specification, for all methods", key)
    run = {"resolution": resolution, "chunk_size": chunk_size, "autocast": autocast}
    given = {**settings, **{key: value for key, value in run.items() if value is not None}}
    try:
        return explainer_from(name, model, given)
    except MethodSettingError as error:
        raise SettingError(error, error.setting) from error
    except (TypeError, ValueError, ModuleNotFoundError) as error:
        raise SettingError(error) from error
