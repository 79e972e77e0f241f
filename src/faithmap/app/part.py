"""Part: a piece of a Gradio page whose value is plain data, shown by a script of this project's.

Nothing of a value is ever made part of the page's HTML, style or script; the script reads it and sets text.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta, updateable


class Unwritten(ComponentMeta):
    """Gradio writes a file of types beside the source of every component's class; of this one it does not."""

    def __new__(cls, name: str, bases: tuple[type, ...], members: dict[str, Any]) -> Any:
        """The class alone, whose settings Gradio can change later."""
        if "__init__" in members:
            members["__init__"] = updateable(members["__init__"])
        return ABCMeta.__new__(cls, name, bases, members)


class Part(gr.HTML, metaclass=Unwritten):
    """Base.

    Args:
        value: the first, or None.
        settings: gradio's own, such as ``elem_id`` and ``visible``.
    """

    def __init__(self, value: Mapping[str, object] | None = None, **settings: Any) -> None:
        super().__init__(value, apply_default_css=False, **settings)

    def preprocess(self, payload: Any) -> Any:
        """Nothing comes back: what a browser says it shows is not to be trusted."""
        del payload

    def postprocess(self, value: Any) -> Any:
        """The value as it is."""
        return None if value is None else dict(value)

    def api_info(self) -> dict[str, Any]:
        """Of the value."""
        return {"type": "object"}
