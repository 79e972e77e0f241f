"""Explainers: methods that compute a heatmap for the score of a model on an image.

Every name is imported when it is first used: the registry can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faithmap.methods.base import Explainer
    from faithmap.methods.masks import IGOS, LineSearch, Mask

__all__ = ["IGOS", "Explainer", "LineSearch", "Mask"]

_HOMES = {"Explainer": "base", "IGOS": "masks", "LineSearch": "masks", "Mask": "masks"}


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name in _HOMES:
        return getattr(import_module(f"faithmap.methods.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'faithmap.methods' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
