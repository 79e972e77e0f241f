"""The images of a run as lines to choose from: a thumbnail, and each method's map with its score."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Unpack

from faithmap.app.part import PagePart, PartSettings
from faithmap.viz.browser import script


class Sheet(PagePart):
    """Shows the lines of :func:`faithmap.app.opening.sheet`; choosing a line is a ``click`` whose event has an ``index``.

    Args:
        value: the first lines.
        settings: of ``gradio.HTML``, see :class:`~faithmap.app.part.PartSettings`.
    """

    def __init__(self, value: Mapping[str, object] | None = None, **settings: Unpack[PartSettings]) -> None:
        text = {name: (files("faithmap.app.viewer") / name).read_text(encoding="utf-8") for name in ("sheet.css", "sheet.js")}
        super().__init__(
            value,
            html_template='<ol class="faithmap-sheet"></ol>',
            css_template=text["sheet.css"],
            js_on_load=f"{script()}\n{text['sheet.js']}",
            **settings,
        )
