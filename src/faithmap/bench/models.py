"""Load the models of a benchmark once, with the digest of their weights, and make the explainers of its methods."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from faithmap import zoo
from faithmap.bench.errors import BenchError, BenchSettingError
from faithmap.methods.base import Explainer
from faithmap.methods.registry import METHODS, explainer_from
from faithmap.methods.settings import SettingError, settings_of
from faithmap.model import Classifier

if TYPE_CHECKING:
    from faithmap.bench.spec import ModelSpec


@dataclass
class ModelCache:
    """Loads models on demand and keeps the last one.

    Args:
        device: of the models; None for the CPU.
    """

    device: str | None = None
    _last: dict[str, tuple[Classifier, str]] = field(default_factory=dict)

    def get(self, spec: ModelSpec) -> tuple[Classifier, str]:
        """The model and the digest of its weights.

        Raises:
            BenchError: if the model cannot be loaded.
        """
        key = spec.model_dump_json()
        if key not in self._last:
            self._last.clear()
            model = _from_factory(spec, self.device) if spec.factory else _from_zoo(spec, self.device)
            self._last[key] = model, model.digest or zoo.state_digest(model)
        return self._last[key]


def _from_zoo(spec: ModelSpec, device: str | None) -> Classifier:
    try:
        return zoo.load(spec.name, weights=spec.weights, device=device)
    except ValueError as error:
        raise BenchError(f"model {spec.name}: {error}") from error


def _from_factory(spec: ModelSpec, device: str | None) -> Classifier:
    """Call the user's function, which may be in the current folder."""
    assert spec.factory is not None  # noqa: S101
    module, _, function = spec.factory.partition(":")
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        model = getattr(import_module(module), function)()
    except (Exception, SystemExit) as error:  # a script may exit when it is imported
        raise BenchError(f"model {spec.name}: {spec.factory} failed ({type(error).__name__}: {error})") from error
    finally:
        sys.path.remove(folder)
    if not isinstance(model, Classifier):
        raise BenchError(f"model {spec.name}: {spec.factory} returned {type(model).__name__}; return a faithmap.Classifier")
    return model.to(device or "cpu").eval()


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
        resolution: cells per side, for methods with a free resolution.
        chunk_size: maximum number of images in one pass.
        autocast: a lower precision, by name.

    Raises:
        BenchSettingError: a BenchError, for settings that the method does not have or accept.
    """
    own = settings_of(METHODS[name].explainer)
    for key in settings:
        if key in own and own[key].of_run:
            raise BenchSettingError(f"{name} has no setting {key!r}; it is a field of the specification, for all methods", key)
    run = {"resolution": resolution, "chunk_size": chunk_size, "autocast": autocast}
    given = {**settings, **{key: value for key, value in run.items() if value is not None}}
    try:
        return explainer_from(name, model, given)
    except SettingError as error:
        raise BenchSettingError(error, error.setting) from error
    except (TypeError, ValueError, ModuleNotFoundError) as error:
        raise BenchSettingError(error) from error
