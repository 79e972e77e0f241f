"""A Gradio page of a test's own in a headless Chromium, and what is painted on it."""

from __future__ import annotations

import base64
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
PANDAS = ("ignore:'future.no_silent_downcasting'", "ignore:The copy keyword is deprecated")
"""Gradio counts its requests with pandas, which warns of how it does."""

HOSTILE = "<img src=http://example.invalid/x onerror=alert(1)>${alert(2)}{{3}}"


@contextmanager
def served(build: Callable[[], None]) -> Iterator[str]:
    """The address of a page with these parts."""
    import gradio as gr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with gr.Blocks(analytics_enabled=False) as page:
            build()
        theme = gr.themes.Default(font=["system-ui"], font_mono=["monospace"])
        page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", theme=theme, footer_links=[])
    try:
        yield str(page.local_url)
    finally:
        page.close(verbose=False)


class Tab:
    """A page that is open; the requests that it sent, and its errors."""

    def __init__(self, browser: Any, url: str, *, dark: bool = False, **settings: Any) -> None:
        self.context = browser.new_context(color_scheme="dark" if dark else "light", **settings)
        self.page = self.context.new_page()
        self.requested: list[str] = []
        self.errors: list[str] = []
        self.page.route("**/*", self._pass)
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.set_default_timeout(8000)
        self.page.goto(url)

    def _pass(self, route: Any) -> None:
        """To this machine alone; what Gradio asks of other hosts goes nowhere."""
        url = route.request.url
        self.requested.append(url)
        if "127.0.0.1" in url or url.startswith(("data:", "blob:")):
            route.continue_()
        else:
            route.abort()

    def _dismiss(self, dialog: Any) -> None:
        self.errors.append("dialog")
        dialog.dismiss()

    def pixels(self, selector: str, at: int = 0) -> NDArray[np.float64]:
        """What is painted on a canvas."""
        uri = self.page.locator(selector).nth(at).evaluate("canvas => canvas.toDataURL()")
        return np.asarray(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"), np.float64)

    def settle(self) -> None:
        """Until the next pictures are painted."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
