"""Page part: a Gradio component whose value is plain data, displayed by a script of this package.

A value never becomes part of the page's HTML, style or script: the script reads it and sets text.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, Unpack

import gradio as gr
from gradio.component_meta import ComponentMeta, updateable


class WithoutTypeFile(ComponentMeta):
    """Prevents Gradio from writing a file of types next to the source of the class."""

    def __new__(cls, name: str, bases: tuple[type, ...], members: dict[str, Any]) -> Any:
        """Create the class; Gradio can change the settings of an instance later."""
        if "__init__" in members:
            members["__init__"] = updateable(members["__init__"])
        return ABCMeta.__new__(cls, name, bases, members)


class PartSettings(TypedDict, total=False):
    """Settings that all page parts take, those of ``gradio.HTML``.

    Attributes:
        elem_id: id of the element in the page.
        elem_classes: CSS classes of the element.
        visible: False leaves the part out of the page; ``"hidden"`` keeps it there without showing it.
        render: add the part to the page where it is made; True by default.
        scale: width beside other parts of a row, relative to theirs.
        min_width: in pixels.
        min_height: in pixels.
        max_height: in pixels.
    """

    elem_id: str | None
    elem_classes: list[str] | str | None
    visible: bool | Literal["hidden"]
    render: bool
    scale: int | None
    min_width: int | None
    min_height: int | None
    max_height: int | None


class PagePart(gr.HTML, metaclass=WithoutTypeFile):
    """Base class of all page parts.

    Args:
        value: the first value, or None.
        html_template: the HTML of the part.
        css_template: its style.
        js_on_load: its script, run when the part is loaded.
        constants: values that the script reads, by their names.
        settings: of ``gradio.HTML``, see :class:`PartSettings`.
    """

    def __init__(
        self,
        value: Mapping[str, object] | None = None,
        *,
        html_template: str,
        css_template: str = "",
        js_on_load: str,
        constants: Mapping[str, Any] | None = None,
        **settings: Unpack[PartSettings],
    ) -> None:
        super().__init__(
            value,
            html_template=html_template,
            css_template=css_template,
            js_on_load=js_on_load,
            apply_default_css=False,
            padding=False,
            **settings,
            **(constants or {}),
        )

    def preprocess(self, payload: Any) -> Any:
        """Return nothing: a value that a browser sends is not trusted."""
        del payload

    def postprocess(self, value: Any) -> Any:
        """Return the value unchanged."""
        return None if value is None else dict(value)

    def api_info(self) -> dict[str, Any]:
        """The type of the value."""
        return {"type": "object"}
