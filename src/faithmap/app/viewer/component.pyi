"""The viewer as a part of a Gradio page."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import gradio as gr

from faithmap.viz.browser import script

from gradio.events import Dependency

class Viewer(gr.HTML):
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
            js_on_load=f"{script()}\n{_text('viewer.js')}",
            apply_default_css=False,
            **settings,
        )

    def preprocess(self, payload: Any) -> None:
        """Nothing comes back: what a browser says it shows is not to be trusted."""
        del payload

    def postprocess(self, value: Mapping[str, object] | None) -> Any:
        """The scene as it is."""
        return None if value is None else dict(value)

    def api_info(self) -> dict[str, Any]:
        """Of the value."""
        return {"type": "object"}
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


def _text(name: str) -> str:
    return (files("faithmap.app.viewer") / name).read_text(encoding="utf-8")