"""The report as one HTML page that asks the network for nothing.

Style and script stand in the page. A content security policy in its head allows these two by their SHA-256, and pictures that
are in the page, and nothing else: even a name that slipped through jinja2's escaping would neither run nor load anything.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from faithmap.bench.report.page import Page
from faithmap.text import one_line
from faithmap.viz.browser import colours, display, script
from faithmap.viz.colours import COLORMAP

_TEMPLATES = files("faithmap.bench.report") / "templates"


def as_html(page: Page) -> str:
    """The page."""
    style, play = _text("style.css"), f"{script()}\n{_text('script.js')}"
    allowed = f"img-src data:; style-src {_digest(style)}; script-src {_digest(play)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    loader = FunctionLoader(_text)
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=loader, trim_blocks=True, lstrip_blocks=True)
    environment.filters["line"] = one_line
    template = environment.get_template("report.html")
    return template.render(page=page, policy=policy, style=style, script=play, show=_show(), cards=_cards(page))


def _cards(page: Page) -> list[dict[str, Any]]:
    """What the script needs of each card, in the order of the page."""
    return [
        {"height": card.height, "width": card.width, "maps": list(card.maps)}
        for model in page.models
        for card in model.album.cards
    ]


def _show() -> Mapping[str, Any]:
    """How maps are coloured: the rules of :mod:`faithmap.viz.overlay`."""
    return {"colours": colours(COLORMAP), **display()}


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
