"""The page in a real browser: headless Chromium, where it and playwright are installed."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.run_writer import RunWriter, row
from PIL import Image

from faithmap.bench.report import write_report

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
NAME = "<img src=http://example.invalid onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def page(writer: RunWriter) -> Path:
    """A run of two methods with long names; its image is white where the first map is high, and black elsewhere."""
    methods = [{"id": name, "name": name, "label": f"{name} of a very long name that does not end"} for name in "abcdefgh"]
    writer.start(methods)
    photos = writer.folder.parent / "photos"
    photos.mkdir()
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = 255
    Image.fromarray(image).save(photos / NAME.replace("/", "_"))
    heatmap = np.tile([0.0, 0.0, 1.0, 2.0], (4, 1))
    curves = {"deletion_curve": [1.0, 0.0], "insertion_curve": [0.0, 0.5], "curve_fractions": [0.0, 1.0]}
    for name in "abcdefgh":
        given = {"image": NAME.replace("/", "_"), "heatmap": -heatmap if name == "b" else heatmap, **curves}
        writer.unit(name, [row(name, i, deletion=0.1, insertion=0.5 + 0.01 * i, **given) for i in range(10)])
    return write_report(writer.folder, examples=1).folder / "report.html"


def opened(browser: Any, page: Path, **settings: Any) -> tuple[Any, list[str], list[str]]:
    """The page when its first card is drawn; its requests, and its messages."""
    tab = browser.new_context(**settings).new_page()
    requests: list[str] = []
    messages: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("dialog", lambda dialog: messages.append("dialog"))
    tab.goto(page.as_uri())
    tab.locator(".card").first.scroll_into_view_if_needed()
    tab.wait_for_selector(".card[data-ready]")
    return tab, requests, messages


def pixels(tab: Any, canvas: str) -> np.ndarray[Any, Any]:
    uri = tab.evaluate(f"document.querySelector('.card canvas.{canvas}').toDataURL()")
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"), np.float64)


def test_the_page_makes_no_request_and_logs_no_error(browser: Any, page: Path) -> None:
    _, requests, messages = opened(browser, page)
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    assert messages == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_does_not_scroll_sideways(browser: Any, page: Path, width: int, scheme: str) -> None:
    tab, _, _ = opened(browser, page, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    outside = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.box, .thumbs, svg'))"
    boxes = tab.evaluate(f"{outside}.map(e => e.getBoundingClientRect().right)")
    assert max(boxes) <= width
    narrow = tab.evaluate("[...document.querySelectorAll('tbody th')].map(e => e.getBoundingClientRect().width)")
    assert min(width for width in narrow if width) > 80
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 3 * 128) == (scheme == "light")


def test_the_slider_deletes_and_inserts_cells(browser: Any, page: Path) -> None:
    tab, _, _ = opened(browser, page)
    slider = tab.locator(".card input").first
    readings = tab.locator(".card output").first

    def at(percent: int) -> tuple[Any, Any]:
        slider.fill(str(percent))
        return pixels(tab, "deletion"), pixels(tab, "insertion")

    image, blurred = at(0)
    assert image[:, :12].max() < 40
    assert image[:, 20:].min() > 215
    deleted, inserted = at(100)
    np.testing.assert_allclose(deleted, blurred, atol=1)
    np.testing.assert_allclose(inserted, image, atol=1)
    # a quarter of the cells: the last of four columns, whose mask falls to 0 at the column before, pixel 20.67 of 32
    deleted, inserted = at(25)
    np.testing.assert_allclose(deleted[:, :21], image[:, :21], atol=1)
    np.testing.assert_allclose(deleted[:, 31], blurred[:, 31], atol=1)
    np.testing.assert_allclose(inserted[:, 31], image[:, 31], atol=1)
    share = (26 - 62 / 3) / (31 - 62 / 3)
    np.testing.assert_allclose(deleted[:, 26], (1 - share) * image[:, 26] + share * blurred[:, 26], atol=1.5)
    assert readings.text_content() == "4 of 16 (25 %)"
    assert tab.locator(".card figcaption output").first.text_content() == "score 0.750"


def test_choosing_a_method_uses_its_heatmap(browser: Any, page: Path) -> None:
    tab, _, _ = opened(browser, page)
    tab.locator(".card input").first.fill("25")
    initial = pixels(tab, "deletion")
    tab.locator(".card .thumbs button").nth(1).click()
    after = pixels(tab, "deletion")
    assert tab.locator(".card .thumbs button").nth(1).get_attribute("aria-pressed") == "true"
    # this map's first cells of equal worth are those at the top left, where the edge between black and white is blurred now
    assert initial[0, 14].max() < 20
    assert after[0, 14].min() > 30
    assert after[31, 14].max() < 20
