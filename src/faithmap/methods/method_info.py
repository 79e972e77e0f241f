"""What is known of a method before it is loaded: the command line reads it without waiting for torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from faithmap.methods.base import Explainer

Need: TypeAlias = Literal["gradient", "layer", "references", "masker", "captum"]
"""What a method asks of a model, or of its user: gradients; a layer with a spatial output; images to begin paths at; a network
that was trained for the model; captum."""


@dataclass(frozen=True)
class MethodInfo:
    """One method.

    >>> MethodInfo("controls.Edges", "a control: where the image changes", "1 forward", "Adebayo 2018").explainer.__name__
    'Edges'

    Attributes:
        home: its class, by its dotted path below ``faithmap.methods``.
        summary: one line.
        passes: of the model, that an image takes at the defaults, the one that finds the class among them.
        source: where it comes from.
        needs: what it cannot do without.
        also: other names that it goes by.
    """

    home: str
    summary: str
    passes: str
    source: str
    needs: tuple[Need, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def explainer(self) -> type[Explainer]:
        """Its class; imports torch."""
        module, _, name = self.home.rpartition(".")
        found: type[Explainer] = getattr(import_module(f"faithmap.methods.{module}"), name)
        return found
