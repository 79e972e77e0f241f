"""Browser: JavaScript and constants to draw overlays, deletion and insertion on a page as this package draws them."""

from __future__ import annotations

import base64
from importlib.resources import files

import numpy as np
from matplotlib import colormaps

from faithmap.viz.figure import OPACITY, PALENESS, SATURATION


def script() -> str:
    """The JavaScript. It defines functions only, and changes no page before one of them is called."""
    return (files("faithmap.viz") / "browser.js").read_text(encoding="utf-8")


def colours(colormap: str) -> str:
    r"""256 colours of a colormap, three bytes each, in base64.

    >>> base64.b64decode(colours("gray"))[-3:]
    b'\xff\xff\xff'
    """
    table = (colormaps[colormap](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    return base64.b64encode(table.tobytes()).decode()


def display() -> dict[str, float]:
    """The constants of the overlay: opacity, saturation and paleness."""
    return {"opacity": OPACITY, "saturation": SATURATION, "paleness": PALENESS}
