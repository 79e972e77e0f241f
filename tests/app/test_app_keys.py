"""The page by keys alone, tab after tab: all is reached and used, the focus is always seen, and passing by changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from app_tools import page_open, picture
from bench.run_writer import RunWriter, row
from viewer_tools import PANDAS
from visitor_tools import Visitor, axe_finds_nothing, checked

pytestmark = pytest.mark.filterwarnings(*PANDAS)

IMAGES = 11
FOCUSED = """() => {
    const at = document.activeElement, ring = (e) => e && getComputedStyle(e).outlineStyle !== "none";
    const boxes = [at, at.closest(".wrap"), at.closest("label"), at.nextElementSibling];
    return at === document.body ? "nothing" : boxes.some(ring) ? "" : at.outerHTML.slice(0, 200);
}"""
"""What has the focus and does not show it."""

CHOOSABLE = "text => [...document.querySelectorAll('ul[role=listbox] .active')].some((one) => one.innerText.includes(text))"
"""Enter would take what has the text in it."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page with a run of eleven images and two methods."""
    place = tmp_path_factory.mktemp("place")
    writer = RunWriter(place / "run")
    writer.start(
        ["a", "b"], models=[{"name": "net", "geometry": {"resize": 32, "crop": [32, 32], "interpolation": "bilinear"}}]
    )
    (place / "photos").mkdir()
    for i in range(IMAGES):
        (place / "photos" / f"{i}.png").write_bytes(picture(i, (32, 40)))
    curves = {"deletion_curve": [1.0, 0.5, 0.0], "insertion_curve": [0.0, 0.5, 1.0], "curve_fractions": [0.0, 0.25, 1.0]}
    for method in "ab":
        heatmap = np.linspace(0, 1, 16).reshape(4, 4)
        rows = [row(method, i, deletion=0.0, insertion=i / 20, heatmap=heatmap, **curves) for i in range(IMAGES)]
        writer.unit(method, rows)
    with page_open(run=place / "run") as (opened, _):
        yield opened


class Typist(Visitor):
    """One who has no mouse."""

    def go(self, selector: str, most: int = 40) -> None:
        """On with the tab key until the focus is there; it is seen all the way."""
        for _ in range(most):
            self.tab.keyboard.press("Tab")
            assert self.tab.evaluate(FOCUSED) == "", "the focus is lost, or is not seen"
            if self.tab.evaluate("at => document.activeElement.matches(at)", selector):
                return
        raise AssertionError(f"{selector} is not reached")

    def enter(self, title: str) -> None:
        """Open a tab."""
        self.tab.get_by_role("tab", name="Explain").focus()
        for _ in range(5):
            if title in self.tab.evaluate("document.activeElement.innerText"):
                break
            self.tab.keyboard.press("Tab")
        self.tab.keyboard.press("Enter")

    def write(self, text: str) -> None:
        """At a person's speed: Gradio takes a moment to hand on what is typed."""
        self.tab.keyboard.type(text, delay=40)
        self.tab.wait_for_timeout(400)

    def choose(self, text: str) -> None:
        """The one of a list of choices that the text is a part of."""
        self.tab.wait_for_timeout(400)  # a list that has just been reached opens first
        self.tab.keyboard.press("Control+a")
        self.write(text)
        self.tab.wait_for_function(CHOOSABLE, arg=text)
        self.tab.keyboard.press("Enter")
        self.tab.wait_for_timeout(200)  # left within 10 ms, the list goes back to what it had: faster than fingers are

    def look(self, name: str) -> None:
        """At the maps of a tab, by all that the viewer has, and doubt them."""
        keys = self.tab.keyboard
        self.go(f"{name} .segments input")
        keys.press("ArrowRight")
        assert self.tab.locator(f"{name} .segments input").nth(1).is_checked()
        keys.press("ArrowLeft")
        for selector in (".opacity", ".palette", ".beside"):
            self.go(f"{name} {selector}")
        keys.press("Space")
        assert self.tab.locator(f"{name} .map").first.is_visible(), "the photograph stands beside the maps"
        maps = self.tab.locator(f"{name} .map canvas[tabindex='0']").count()
        for _ in range(maps):
            self.go(f"{name} .map canvas", 1)
            keys.press("Home")
            assert "of the map" in self.tab.locator(f"{name} .spoken").inner_text()
        self.go(f"{name} .play", 1)
        self.go(f"{name} .scrubber", 1)
        keys.press("End")
        self.tab.wait_for_function(f"document.querySelector('{name} .share').textContent === '100 %'")


@pytest.fixture(scope="module")
def context(chromium: Any) -> Iterator[Any]:
    opened = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield opened
    opened.close()


@pytest.fixture
def typist(chromium: Any, context: Any, address: str) -> Iterator[Typist]:
    opened = Typist(chromium, address, context)
    yield from checked(opened, address)
    opened.tab.close()


def test_methods_are_compared_by_keys(typist: Typist) -> None:
    tab, keys = typist.tab, typist.tab.keyboard
    typist.enter("Compare")
    tokens = tab.locator("#compare-methods .token")
    for key in ("Enter", "Space"):
        typist.go("#compare-methods .token-remove", 5)
        gone = tokens.first.inner_text().strip()
        assert tab.evaluate("document.activeElement.title") == f"Remove {gone}", "a screen reader says which one"
        keys.press(key)
        tab.wait_for_function(f"!document.querySelector('#compare-methods .token').innerText.includes('{gone}')")
        tab.get_by_role("tab", name="Browse").focus()
    typist.go("#compare-methods input")
    typist.choose("RISE")
    tab.wait_for_function("document.querySelectorAll('#compare-methods .token').length === 3")
    typist.go("#compare-side input")
    typist.write("7")
    typist.go("#compare-start")
    keys.press("Enter")
    assert typist.ended("compare").startswith("done")
    assert {"Grad-CAM", "RISE"} <= set(tab.locator("#compare-viewer .map strong").all_inner_texts())
    typist.look("#compare-viewer")
    typist.go("#compare-viewer .wide", 1)
    typist.go("#compare-take button", 1)
    keys.press("Enter")
    tab.wait_for_selector("#compare-pack:visible")
    typist.go("#compare-pack")
    with tab.expect_download():
        keys.press("Enter")


def test_saturation_is_measured_by_keys(typist: Typist) -> None:
    tab, keys = typist.tab, typist.tab.keyboard
    typist.enter("Saturation")
    typist.go("#saturation-methods .token-remove")
    keys.press("Enter")
    typist.go("#saturation-layer input")
    keys.press("ArrowDown")
    keys.press("Enter")
    typist.go("#saturation-baseline input")
    typist.choose("black")
    typist.go("#saturation-channels input")
    typist.write("2")
    typist.go("#saturation-start")
    keys.press("Enter")
    assert typist.ended("saturation").startswith("done")
    assert "top 2 channels" in tab.locator("#saturation-viewer").inner_text()
    typist.look("#saturation-viewer")
    typist.go("#saturation-take button", 1)
    keys.press("Enter")
    tab.wait_for_selector("#saturation-command:visible")
    assert "--baseline black" in tab.locator("#saturation-command").inner_text().replace("\xa0", " ")


def test_a_run_is_browsed_by_keys(typist: Typist) -> None:
    tab, keys = typist.tab, typist.tab.keyboard
    lines = tab.locator(".faithmap-sheet li")
    typist.enter("Browse the benchmark")
    tab.wait_for_selector(".faithmap-sheet[data-ready] li")
    typist.go(".run-next")
    keys.press("Enter")
    tab.wait_for_function(f"document.querySelectorAll('.faithmap-sheet li').length === {IMAGES - 8}")
    tab.get_by_role("tab", name="Browse").focus()
    typist.go(".faithmap-sheet li button")
    assert lines.count() == IMAGES - 8, "whoever passes by the controls stays on the page of the list"
    tab.get_by_role("tab", name="Browse").focus()
    typist.go("input[aria-label='Order']")
    typist.choose("lowest")
    tab.wait_for_function("document.querySelector('.faithmap-sheet li').textContent.includes('0.png')")
    typist.go(".faithmap-sheet li:nth-child(2) button")
    keys.press("Enter")
    tab.wait_for_selector(".run-viewer .map:not([hidden]) canvas")
    assert tab.get_by_label("Opened").input_value() == "1.png"
    typist.look(".run-viewer")
    typist.go(".run-viewer .wide", 1)


def test_moving_the_focus_changes_nothing(typist: Typist) -> None:
    """Gradio tells of an ``input`` when a list of choices is left, whether or not something was chosen."""
    tab, keys = typist.tab, typist.tab.keyboard
    tab.locator("#guesses label").nth(2).click()
    tab.click("#explain-settings button >> nth=0")
    typist.number("explain-resolution", "9")
    typist.requested.clear()
    tab.locator(".fm-samples button").last.focus()
    typist.go("#explain-resolution input")
    for _ in range(12):
        keys.press("Shift+Tab")
    tab.wait_for_timeout(500)
    assert [url for url in typist.requested if "gradio_api" in url] == []
    assert tab.locator("#guesses input").nth(2).is_checked()
    assert tab.locator("#explain-resolution input").input_value() == "9"


def test_axe_finds_nothing_in_a_run(typist: Typist) -> None:
    typist.open("Browse the benchmark")
    axe_finds_nothing(typist, "listed")
    typist.tab.locator(".faithmap-sheet li button").first.click()
    typist.tab.wait_for_selector(".run-viewer .map:not([hidden]) canvas")
    axe_finds_nothing(typist, "opened")


def test_a_run_is_no_wider_than_a_phone(typist: Typist) -> None:
    typist.tab.set_viewport_size({"width": 390, "height": 844})
    typist.tab.get_by_label("More tabs").click()
    typist.tab.get_by_role("button", name="Browse the benchmark").click()
    typist.tab.locator(".faithmap-sheet li button").first.click()
    typist.tab.wait_for_selector(".run-viewer .map:not([hidden]) canvas")
    assert typist.tab.evaluate("document.documentElement.scrollWidth") <= 390
