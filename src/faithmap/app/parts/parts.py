"""Parts of the page: the header, the picker of photographs, the line that says how it goes, a picture, and a parcel to fetch.

Text and addresses of a value are set as text and as properties by a part's script, and never become part of the page's HTML.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, ClassVar

from faithmap.app.part import Part
from faithmap.app.shelf import MAX_BYTES, SAMPLES
from faithmap.data import sample_photo

Value = Mapping[str, object] | None


class Scripted(Part):
    """A part of one script and a little HTML."""

    script: ClassVar[str]
    html: ClassVar[str]

    def __init__(self, value: Value = None, **settings: Any) -> None:
        super().__init__(value, html_template=self.html, js_on_load=_text(self.script), padding=False, **settings)


class Header(Scripted):
    """What the page is; its script mends what the keyboard and screen readers miss in Gradio's lists of choices."""

    script = "header.js"
    html = "<header><h1>faithmap</h1><p>What a decision rests on, with the evidence that it does.</p></header>"


class Status(Scripted):
    """One line, read out by screen readers: ``text``, ``share`` (None where there is no progress), ``error``."""

    script = "status.js"
    html = '<div class="fm-status"><progress max="1" aria-label="progress"></progress><p role="status"></p></div>'


class Picture(Scripted):
    """A picture and its words: ``src``, a data URI, and ``words``."""

    script = "picture.js"
    html = '<figure class="fm-picture" hidden><img alt="" /><figcaption></figcaption></figure>'


class Fetch(Scripted):
    """A link to a parcel: ``word`` and ``name``; begins to fetch it when it is given one."""

    script = "fetch.js"
    html = '<p class="fm-fetch" hidden><a download></a></p>'


class Picker(Scripted):
    """Choose, drop or paste a photograph, or take a bundled one; the value is ``word`` and ``name``."""

    script = "picker.js"
    html = (
        '<div class="fm-picker">'
        '<img class="fm-photo" alt="the photograph that is explained" />'
        '<label class="fm-drop"><input type="file" accept="image/*" />'
        "<span>Choose, drop or paste a photograph</span></label>"
        '<div class="fm-samples" role="group" aria-label="bundled photographs"></div>'
        '<p class="fm-refusal" role="alert"></p></div>'
    )

    def __init__(self, **settings: Any) -> None:
        samples = {name: _thumbnail(name) for name in SAMPLES}
        super().__init__({"word": SAMPLES[0], "name": SAMPLES[0]}, samples=samples, most=MAX_BYTES, **settings)

    def preprocess(self, payload: Any) -> str:
        """The word for a photograph, as the browser says it."""
        word = payload.get("word") if isinstance(payload, dict) else None
        return word if isinstance(word, str) else ""


def _thumbnail(name: str) -> str:
    data = sample_photo(name).read_bytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _text(name: str) -> str:
    return (files("faithmap.app.parts") / name).read_text(encoding="utf-8")
