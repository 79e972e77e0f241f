"""The viewer as a part of a Gradio page."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta, updateable

from faithmap.viz.browser import script

_SCRIPTS = ("look.js", "doubt.js", "controls.js", "figures.js", "scrubber.js", "viewer.js")
"""One after the other: what a file makes is there for those that follow."""


class Unwritten(ComponentMeta):
    """Gradio writes a file of types beside the source of every component's class; of this one it does not."""

    def __new__(cls, name: str, bases: tuple[type, ...], members: dict[str, Any]) -> Any:
        """The class alone, whose settings Gradio can change later."""
        if "__init__" in members:
            members["__init__"] = updateable(members["__init__"])
        return ABCMeta.__new__(cls, name, bases, members)


class Viewer(gr.HTML, metaclass=Unwritten):
    """Shows a :func:`faithmap.app.viewer.scene.scene`; its value is that, or None.

    Whatever moves, moves in the browser: nothing that is done here asks the server. Nothing of the value is ever made part of
    the page's HTML, style or script; the script reads it and sets text.

    Args:
        value: the first scene.
        settings: gradio's own, such as ``elem_id`` and ``visible``.
    """

    def __init__(self, value: Mapping[str, object] | None = None, **settings: Any) -> None:
        super().__init__(
            value,
            html_template='<div class="faithmap-viewer"></div>',
            css_template=_text("viewer.css"),
            js_on_load="\n".join([script(), *map(_text, _SCRIPTS)]),
            apply_default_css=False,
            **settings,
        )

    def preprocess(self, payload: Any) -> None:
        """Nothing comes back: what a browser says it shows is not to be trusted."""
        del payload

    def postprocess(self, value: Any) -> Any:
        """The scene as it is."""
        return None if value is None else dict(value)

    def api_info(self) -> dict[str, Any]:
        """Of the value."""
        return {"type": "object"}


def _text(name: str) -> str:
    return (files("faithmap.app.viewer") / name).read_text(encoding="utf-8")
