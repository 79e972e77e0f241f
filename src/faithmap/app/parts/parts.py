"""Parts of the page: header, picker of photographs, status line, picture, and download link.

A part's script sets the text and addresses of a value as text and properties; they never become part of the page's HTML.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, ClassVar, Unpack

from faithmap.app.part import PagePart, PartSettings
from faithmap.app.shelf import MAX_UPLOAD_BYTES, SAMPLES
from faithmap.data import sample_photo

Value = Mapping[str, object] | None


class ScriptedPart(PagePart):
    """A part with one script and a little HTML."""

    script: ClassVar[str]
    html: ClassVar[str]

    def __init__(
        self, value: Value = None, *, constants: Mapping[str, Any] | None = None, **settings: Unpack[PartSettings]
    ) -> None:
        super().__init__(value, html_template=self.html, js_on_load=_text(self.script), constants=constants, **settings)


class Header(ScriptedPart):
    """The heading; its script makes Gradio's dropdowns accessible by keyboard and screen reader."""

    script = "header.js"
    html = "<header><h1>faithmap</h1><p>Heatmaps that show which pixels a decision depends on, with evidence.</p></header>"


class StatusLine(ScriptedPart):
    """One line, read by screen readers: ``text``, ``share`` (None without progress) and ``error``."""

    script = "status.js"
    html = '<div class="fm-status"><progress max="1" aria-label="progress"></progress><p role="status"></p></div>'


class Picture(ScriptedPart):
    """A picture and its caption: ``src``, a data URI, and ``words``."""

    script = "picture.js"
    html = '<figure class="fm-picture" hidden><img alt="" /><figcaption></figcaption></figure>'


class DownloadLink(ScriptedPart):
    """A link to a download: ``token`` and ``name``; starts the download when it receives a value."""

    script = "fetch.js"
    html = '<p class="fm-fetch" hidden><a download></a></p>'


class Picker(ScriptedPart):
    """Choose, drop or paste a photograph, or choose a sample; the value is ``token`` and ``name``."""

    script = "picker.js"
    html = (
        '<div class="fm-picker">'
        '<img class="fm-photo" alt="the photograph that is explained" />'
        '<label class="fm-drop"><input type="file" accept="image/*" />'
        "<span>Choose, drop or paste a photograph</span></label>"
        '<div class="fm-samples" role="group" aria-label="sample photographs"></div>'
        '<p class="fm-refusal" role="alert"></p></div>'
    )

    def __init__(self, **settings: Unpack[PartSettings]) -> None:
        constants = {"samples": {name: _thumbnail(name) for name in SAMPLES}, "limit": MAX_UPLOAD_BYTES}
        super().__init__({"token": SAMPLES[0], "name": SAMPLES[0]}, constants=constants, **settings)

    def preprocess(self, payload: Any) -> str:
        """The token that the browser sends."""
        token = payload.get("token") if isinstance(payload, dict) else None
        return token if isinstance(token, str) else ""


def _thumbnail(name: str) -> str:
    data = sample_photo(name).read_bytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _text(name: str) -> str:
    return (files("faithmap.app.parts") / name).read_text(encoding="utf-8")
