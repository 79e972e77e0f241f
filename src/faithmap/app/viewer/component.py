"""The viewer as a part of a Gradio page."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from faithmap.app.part import Part
from faithmap.viz.browser import script

_SCRIPTS = ("look.js", "doubt.js", "controls.js", "figures.js", "scrubber.js", "viewer.js")
"""One after the other: what a file makes is there for those that follow."""


class Viewer(Part):
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
            **settings,
        )


def _text(name: str) -> str:
    return (files("faithmap.app.viewer") / name).read_text(encoding="utf-8")
