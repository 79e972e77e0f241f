"""Facts about a method that are known before it is imported: the command line reads them without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from faithmap.methods.base import Explainer

Need: TypeAlias = Literal["gradient", "layer", "references", "masker", "captum"]
"""What a method cannot do without: gradients of the model; a layer with a spatial output; reference images; a network that was
trained for the model; the captum library."""


@dataclass(frozen=True)
class MethodInfo:
    """One method of the registry.

    >>> info = MethodInfo("controls.Edges", "control: edges of the image", "1 forward + 0 backward", "Adebayo 2018")
    >>> info.explainer.__name__
    'Edges'

    Attributes:
        home: dotted path of the class below ``faithmap.methods``.
        summary: what the method computes, in one line.
        passes: passes of the model per image at the default settings, as ``"N forward + M backward"``; the pass that finds the
            explained class is included. ``benchmarks/method_costs.py`` counts them.
        source: author and year of the publication.
        needs: what the method cannot do without.
        also: other names of the method.
    """

    home: str
    summary: str
    passes: str
    source: str
    needs: tuple[Need, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def explainer(self) -> type[Explainer]:
        """The class; imports torch."""
        module, _, name = self.home.rpartition(".")
        found: type[Explainer] = getattr(import_module(f"faithmap.methods.{module}"), name)
        return found
