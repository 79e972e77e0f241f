"""Models of a benchmark: loaded once, and known by the digest of their weights."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import faithmap
from faithmap.bench.errors import BenchError
from faithmap.model import Classifier
from faithmap.zoo import state_digest

if TYPE_CHECKING:
    from faithmap.bench.spec import ModelSpec


@dataclass
class ModelCache:
    """Models that are loaded when they are asked for; the last one stays.

    Args:
        device: where to.
    """

    device: str | None = None
    _held: dict[str, tuple[Classifier, str]] = field(default_factory=dict)

    def get(self, spec: ModelSpec) -> tuple[Classifier, str]:
        """The model, and the digest of its weights.

        Raises:
            BenchError: for a model that cannot be loaded.
        """
        key = spec.model_dump_json()
        if key not in self._held:
            self._held.clear()
            model = _made(spec, self.device) if spec.factory else _loaded(spec, self.device)
            self._held[key] = model, model.digest or state_digest(model)
        return self._held[key]


def _loaded(spec: ModelSpec, device: str | None) -> Classifier:
    try:
        return faithmap.load(spec.name, weights=spec.weights, device=device)
    except ValueError as error:
        raise BenchError(f"model {spec.name}: {error}") from error


def _made(spec: ModelSpec, device: str | None) -> Classifier:
    """By the user's own function, which may lie in the folder that the program was started in."""
    assert spec.factory is not None  # noqa: S101
    home, _, name = spec.factory.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        made = getattr(import_module(home), name)()
    except (Exception, SystemExit) as error:  # a script that ends itself when it is imported
        raise BenchError(f"model {spec.name}: {spec.factory} failed ({type(error).__name__}: {error})") from error
    finally:
        sys.path.remove(here)
    if not isinstance(made, Classifier):
        raise BenchError(f"model {spec.name}: {spec.factory} returned {type(made).__name__}; return a faithmap.Classifier")
    return made.to(device or "cpu").eval()
