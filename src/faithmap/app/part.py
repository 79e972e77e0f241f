"""Page part: a Gradio component whose value is plain data, displayed by a script of this package.

A value never becomes part of the page's HTML, style or script: the script reads it and sets text.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta, updateable


class WithoutTypeFile(ComponentMeta):
    """Prevents Gradio from writing a file of types next to the source of the class."""

    def __new__(cls, name: str, bases: tuple[type, ...], members: dict[str, Any]) -> Any:
        """Create the class; Gradio can change the settings of an instance later."""
        if "__init__" in members:
            members["__init__"] = updateable(members["__init__"])
        return ABCMeta.__new__(cls, name, bases, members)


class PagePart(gr.HTML, metaclass=WithoutTypeFile):
    """Base class of all page parts.

    Args:
        value: the first value, or None.
        settings: of ``gradio.HTML``, such as ``elem_id`` and ``visible``.
    """

    def __init__(self, value: Mapping[str, object] | None = None, **settings: Any) -> None:
        super().__init__(value, apply_default_css=False, **settings)

    def preprocess(self, payload: Any) -> Any:
        """Return nothing: a value that a browser sends is not trusted."""
        del payload

    def postprocess(self, value: Any) -> Any:
        """Return the value unchanged."""
        return None if value is None else dict(value)

    def api_info(self) -> dict[str, Any]:
        """The type of the value."""
        return {"type": "object"}
