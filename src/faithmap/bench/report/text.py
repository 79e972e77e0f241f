"""Numbers and untrusted words, as each kind of file takes them.

HTML is escaped by jinja2. Here are Markdown, whose readers may render HTML within it, and CSV, whose readers may take a cell
for a formula.
"""

from __future__ import annotations

import math
import re

from faithmap.text import one_line

NONE = "-"
"""Where there is no number."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~&$])")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def number(value: float | None, digits: int = 3) -> str:
    """With so many decimals.

    >>> number(-0.00001), number(0.1234), number(None)
    ('0.000', '0.123', '-')
    """
    if value is None or math.isnan(value):
        return NONE
    return f"{round(value, digits) + 0.0:.{digits}f}"


def amount(value: float | None) -> str:
    """To three digits, for what has no natural scale.

    >>> amount(12345.6), amount(0.01234), amount(None)
    ('12,346', '0.0123', '-')
    """
    if value is None or math.isnan(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def p_value(p: float) -> str:
    """To two digits; what is too small to matter is said to be so.

    >>> p_value(0.0421), p_value(1e-9)
    ('0.042', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def markdown(text: str) -> str:
    r"""On one line, with no meaning to Markdown or HTML.

    >>> print(markdown("<b>|a_b|"))
    &lt;b&gt;\|a\_b\|
    """
    return _MARKDOWN.sub(lambda found: _ENTITIES.get(found[1], "\\" + found[1]), one_line(text))


def csv_text(text: str) -> str:
    """On one line; an apostrophe stands before what a spreadsheet would take for a formula.

    >>> csv_text("=1+1"), csv_text("cat.jpg")
    ("'=1+1", 'cat.jpg')
    """
    text = one_line(text)
    return "'" + text if text.lstrip()[:1] in set("=+-@") | {"\uff1d", "\uff0b", "\uff0d", "\uff20"} else text
