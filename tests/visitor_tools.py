"""Someone who has the page open in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest


class Visitor:
    """A page that is open, in a browser of its own unless one is given; the requests that it sent, and its errors."""

    def __init__(self, browser: Any, address: str, context: Any = None, **settings: Any) -> None:
        self.context = context or browser.new_context(viewport={"width": 1280, "height": 900}, **settings)
        self.tab = self.context.new_page()
        self.requested: list[str] = []
        self.errors: list[str] = []
        self.tab.set_default_timeout(60_000)
        self.tab.on("request", lambda request: self.requested.append(request.url))
        self.tab.on("console", lambda message: self.errors.extend([message.text] * (message.type == "error")))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.errors.append("dialog"))
        self.tab.goto(address)
        self.tab.wait_for_selector("#guesses label")

    def open(self, tab: str) -> None:
        self.tab.get_by_role("tab", name=tab).click()

    def status(self, name: str) -> str:
        return str(self.tab.locator(f"#{name}-status p").inner_text())

    def number(self, place: str, text: str) -> None:
        """Type a number as people do: a part that has just been opened takes what is typed at once for its old value."""
        field = self.tab.locator(f"#{place} input")
        for _ in range(20):
            field.press("Control+a")
            field.press("Backspace")
            field.press_sequentially(text, delay=20)
            self.tab.evaluate("document.activeElement.blur()")
            self.tab.wait_for_timeout(200)
            if field.input_value() == text:
                return
        raise AssertionError(f"{place} does not take {text!r}")

    def ask(self, name: str) -> str:
        """Click, and wait for how it ended."""
        self.tab.evaluate(f"document.querySelector('#{name}-status p').textContent = ''")
        self.tab.click(f"#{name}-start")
        return self.ended(name)

    def ended(self, name: str) -> str:
        self.tab.wait_for_function(
            f"!document.querySelector('#{name}-start').disabled && document.querySelector('#{name}-cancel').disabled"
            f" && document.querySelector('#{name}-status p').textContent.match(/done|cancel|;|class/)"
        )
        return self.status(name)

    def give(self, name: str, data: bytes) -> None:
        self.tab.set_input_files("#photo input[type=file]", {"name": name, "mimeType": "image/png", "buffer": data})

    @contextmanager
    def looked(self) -> Iterator[None]:
        """Wait until the model has seen what the block gives it: the buttons are made anew, and one is chosen."""
        self.tab.evaluate("document.querySelectorAll('#guesses label').forEach((one) => { one.dataset.old = 1; })")
        yield
        self.tab.wait_for_selector("#guesses label:not([data-old]) input:checked", state="attached")
        self.tab.wait_for_function("!document.querySelector('#looking p').textContent")

    def refusal(self) -> str:
        self.tab.wait_for_function("document.querySelector('.fm-refusal').textContent")
        return str(self.tab.locator(".fm-refusal").inner_text())

    def maps(self, name: str) -> int:
        return int(self.tab.locator(f"#{name}-viewer .map canvas:visible").count())


FADED = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => Promise.all(
    document.getAnimations().filter((one) => one.effect?.getComputedTiming().endTime !== Infinity)
        .map((one) => one.finished.catch(() => {}))))"""
"""Waits until all colours have faded to their final values."""

V = TypeVar("V", bound=Visitor)


def axe_finds_nothing(visitor: Visitor, where: str) -> None:
    """Check the page for accessibility, light and dark.

    Skips the test if axe-core, which comes with axe-playwright-python, is not installed.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    for dark in (False, True):
        visitor.tab.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        visitor.tab.evaluate(FADED)
        found = axe.run(visitor.tab).response["violations"]
        wrong = [(one["id"], node["html"][:200]) for one in found for node in one["nodes"]]
        assert wrong == [], f"{where}, {'dark' if dark else 'light'}: {wrong}"
    visitor.tab.evaluate("document.body.classList.remove('dark')")


def checked(opened: V, address: str) -> Iterator[V]:
    """Everything that it asks for comes from this machine, and nothing goes wrong."""
    opened.requested.clear()
    opened.errors.clear()
    yield opened
    assert [url for url in opened.requested if not url.startswith((f"{address}/", "data:", f"blob:{address}/"))] == []
    assert opened.errors == []
