"""The viewer as a component of a Gradio page."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Unpack

from faithmap.app.part import PagePart, PartSettings
from faithmap.viz.browser import script

_SCRIPTS = ("look.js", "doubt.js", "controls.js", "figures.js", "scrubber.js", "viewer.js")
"""In this order: a file uses what the files before it define."""


class Viewer(PagePart):
    """Shows a :func:`faithmap.app.viewer.scene.scene`; the value is a scene, or None.

    Everything that moves is computed in the browser: no interaction sends a request. The value never becomes part of the page's
    HTML, style or script; the script reads it and sets text.

    Args:
        value: the first scene.
        settings: of ``gradio.HTML``, see :class:`~faithmap.app.part.PartSettings`.

    >>> Viewer(elem_id="maps", visible=False).elem_id
    'maps'
    """

    def __init__(self, value: Mapping[str, object] | None = None, **settings: Unpack[PartSettings]) -> None:
        super().__init__(
            value,
            html_template='<div class="faithmap-viewer"></div>',
            css_template=_text("viewer.css"),
            js_on_load="\n".join([script(), *map(_text, _SCRIPTS)]),
            **settings,
        )


def _text(name: str) -> str:
    return (files("faithmap.app.viewer") / name).read_text(encoding="utf-8")
