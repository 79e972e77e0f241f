"""The page in a real browser, part by part: headless Chromium, where it and playwright are installed."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_tools import bad_files, page_open, picture
from bench.run_writer import RunWriter, row
from viewer_tools import PANDAS
from visitor_tools import Visitor, axe_finds_nothing, checked

from faithmap.app import page as pages
from faithmap.app.desk import AppState
from faithmap.app.safety import BUSY

pytestmark = pytest.mark.filterwarnings(*PANDAS)


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[str, AppState]]:
    """With an empty file in the place of the pictures in result folders, which take seconds to draw."""
    with pytest.MonkeyPatch.context() as patched, page_open() as opened:
        patched.setattr("faithmap.studies.explain.draw_pictures", lambda out, *others: (out / "panel.png").touch())
        yield opened


@pytest.fixture(scope="module")
def first(chromium: Any, site: tuple[str, AppState]) -> Iterator[Visitor]:
    opened = Visitor(chromium, site[0])
    yield opened
    opened.context.close()


@pytest.fixture
def visitor(first: Visitor, site: tuple[str, AppState]) -> Iterator[Visitor]:
    """One who stays from test to test, and is at the first tab."""
    first.open("Explain")
    yield from checked(first, site[0])


@pytest.fixture
def newcomer(first: Visitor, chromium: Any, site: tuple[str, AppState]) -> Iterator[Visitor]:
    """A page opened anew, for a test that changes what the others would find."""
    opened = Visitor(chromium, site[0], first.context)
    yield from checked(opened, site[0])
    opened.tab.close()


def test_a_photograph_is_explained_and_exported(visitor: Visitor, tmp_path: Path) -> None:
    tab = visitor.tab
    assert tab.locator("#guesses label").count() == 5
    assert tab.locator("#guesses img").count() == 0, "a class's name is text"
    assert visitor.ask("explain").startswith("done in ")
    assert visitor.maps("explain") >= 1
    tab.click("#explain-take button >> nth=0")
    assert "faithmap explain" in tab.locator("#explain-command").inner_text()
    assert "fm.RankDescent(model)" in tab.locator("#explain-python").inner_text()
    with tab.expect_download() as fetched:
        tab.click("#explain-pack")
    fetched.value.save_as(tmp_path / "result.zip")
    assert fetched.value.suggested_filename == "chelsea.zip"
    with zipfile.ZipFile(tmp_path / "result.zip") as archive:
        assert "chelsea/result.json" in archive.namelist()


def test_the_slider_sends_no_request(visitor: Visitor) -> None:
    visitor.ask("explain")
    visitor.tab.wait_for_timeout(300)
    initial = len(visitor.requested)
    scrubber = visitor.tab.locator("#explain-viewer .scrubber")
    scrubber.focus()
    share = visitor.tab.locator("#explain-viewer .share").inner_text()
    for _ in range(10):
        visitor.tab.keyboard.press("ArrowRight")
    visitor.tab.wait_for_function("before => document.querySelector('#explain-viewer .share').innerText !== before", arg=share)
    visitor.tab.wait_for_timeout(300)  # time for a request that would follow
    assert [url for url in visitor.requested[initial:] if not url.startswith(("data:", "blob:"))] == []


def test_any_class_is_found_by_search_and_replaces_the_buttons(newcomer: Visitor) -> None:
    tab = newcomer.tab
    tab.locator("#other input").fill("sheep")
    tab.get_by_role("option", name="sheep dog").click()
    tab.wait_for_function("!document.querySelector('#guesses input:checked')")
    assert newcomer.ask("explain").startswith("done")
    assert "sheep dog" in tab.locator("#explain-viewer").inner_text()
    tab.locator("#guesses label").nth(1).click()
    tab.wait_for_function("document.querySelector('#other input').value === ''")


def test_methods_have_their_own_settings(newcomer: Visitor) -> None:
    tab = newcomer.tab
    tab.click("#explain-settings button >> nth=0")
    tab.wait_for_selector("#explain-resolution")
    tab.locator("#explain-method input").fill("Smooth Grad-CAM")
    tab.get_by_role("option", name="Smooth Grad-CAM", exact=True).click()
    tab.wait_for_selector("#explain-samples")
    assert not tab.locator("#explain-resolution").is_visible()
    assert "noisy copies" in tab.locator(".fm-about").first.inner_text()
    newcomer.number("explain-samples", "3")
    assert newcomer.ask("explain").startswith("done")
    tab.click("#explain-take button >> nth=0")
    assert "--method smooth_gradcam --samples 3" in tab.locator("#explain-command").inner_text().replace("\xa0", " ")


def test_a_number_outside_its_limits_is_refused(newcomer: Visitor) -> None:
    newcomer.tab.click("#explain-settings button >> nth=0")
    newcomer.number("explain-resolution", "999")
    assert newcomer.ask("explain") == "cells per side: 999 is not between 1 and 32; change it"
    newcomer.open("Compare")
    newcomer.number("compare-side", "")
    assert newcomer.ask("compare") == "cells per side: no number is given; give one from 1 to 32"


def test_two_equal_classes_are_refused(newcomer: Visitor) -> None:
    newcomer.open("Why this and not that")
    for side in ("this", "that"):
        newcomer.tab.locator(f"#contrast-{side} input").fill("tabby")
        newcomer.tab.keyboard.press("Enter")
    assert newcomer.ask("contrast") == "both classes are the same; choose two"


def test_two_classes_are_compared_side_by_side_with_their_difference(visitor: Visitor) -> None:
    visitor.open("Why this and not that")
    assert visitor.ask("contrast").startswith("done")
    text = visitor.tab.locator("#contrast-viewer").inner_text()
    assert "Difference" in text
    assert visitor.maps("contrast") >= 3


def test_methods_are_compared_side_by_side_with_their_agreement(visitor: Visitor) -> None:
    visitor.open("Compare")
    assert visitor.ask("compare").startswith("done")
    text = visitor.tab.locator("#compare-viewer").inner_text()
    for words in ("rank descent", "Integrated Gradients", "forward passes", "seconds", "agree"):
        assert words in text
    assert visitor.tab.locator("#compare-viewer .scrubber:visible").count() == 1


def test_saturation_is_measured_and_drawn(visitor: Visitor) -> None:
    visitor.open("Saturation")
    assert visitor.ask("saturation").startswith("done")
    assert "% of the path" in visitor.tab.locator("#saturation-curves figcaption").inner_text()
    assert visitor.tab.evaluate("document.querySelector('#saturation-curves img').naturalWidth") > 100
    assert visitor.maps("saturation") >= 3


def test_a_bad_file_gives_one_line_and_the_page_stays_usable(newcomer: Visitor) -> None:
    for name, data in bad_files().items():
        newcomer.give(name, data)
        line = newcomer.refusal()
        assert line.startswith(f"{name}: ")
        assert not {"\n", "Traceback", "site-packages"} & {
            word for word in ("\n", "Traceback", "site-packages") if word in line
        }
        newcomer.tab.evaluate("document.querySelector('.fm-refusal').textContent = ''")
    newcomer.errors[:] = [text for text in newcomer.errors if "400" not in text]  # the browser's own note of the answers
    with newcomer.looked():
        newcomer.give("good.png", picture(3))
    assert newcomer.ask("explain").startswith("done")


def test_a_name_is_never_more_than_text(newcomer: Visitor) -> None:
    """Markup, a way out of a folder, and a kind that is not the file's own: it is read for what it is, under a plain name."""
    with newcomer.looked():
        newcomer.give("../../<img src=x onerror=alert(1)>.jpg", picture(4))
    assert newcomer.ask("explain").startswith("done")
    newcomer.tab.click("#explain-take button >> nth=0")
    command = newcomer.tab.locator("#explain-command").inner_text().replace("\xa0", " ")
    assert "'_img src=x onerror=alert(1)_.jpg'" in command
    assert ".." not in command
    newcomer.give("../../<b>bold</b>.png", b"no picture")
    line = newcomer.refusal()
    assert line.startswith("b_.png: ")
    assert newcomer.tab.locator(".fm-refusal *, #photo b").count() == 0
    assert newcomer.tab.locator("#explain-viewer .map canvas").count() >= 1, "what was shown stays"
    newcomer.errors[:] = [text for text in newcomer.errors if "400" not in text]


PASTE = """([numbers, size, name]) => {
    const data = new DataTransfer();
    data.items.add(new File([size ? new ArrayBuffer(size) : new Uint8Array(numbers)], name, { type: "image/png" }));
    document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
}"""


def test_a_photograph_can_be_pasted(newcomer: Visitor) -> None:
    with newcomer.looked():
        newcomer.tab.evaluate(PASTE, [list(picture(5)), 0, "pasted.png"])
    newcomer.ask("explain")
    newcomer.tab.click("#explain-take button >> nth=0")
    assert "pasted.png" in newcomer.tab.locator("#explain-command").inner_text()


def test_a_file_that_is_too_large_is_not_even_sent(visitor: Visitor) -> None:
    visitor.tab.evaluate(PASTE, [[], 17 * 2**20, "large.png"])
    assert visitor.refusal() == "large.png: larger than the limit of 16 MB; give a smaller file"
    assert not [url for url in visitor.requested if url.endswith("/photo")]


def test_another_model_brings_its_own_methods_and_classes(newcomer: Visitor) -> None:
    newcomer.tab.locator("#model input").click()
    with newcomer.looked():
        newcomer.tab.get_by_role("option", name="other").click()
    assert newcomer.ask("explain").startswith("done")
    newcomer.tab.click("#explain-take button >> nth=0")
    assert "--model other" in newcomer.tab.locator("#explain-command").inner_text().replace("\xa0", " ")


def test_cancel_ends_the_work_and_the_page_stays_usable(newcomer: Visitor) -> None:
    tab = newcomer.tab
    tab.click("#explain-settings button >> nth=0")
    newcomer.number("explain-iterations", "2000")
    tab.click("#explain-start")
    tab.wait_for_selector("#explain-viewer .map canvas")
    assert newcomer.maps("explain") >= 1, "the map grows"
    tab.click("#explain-cancel")
    assert newcomer.ended("explain") == "cancelled"
    newcomer.number("explain-iterations", "2")
    assert newcomer.ask("explain").startswith("done")


def test_closing_the_page_cancels_the_job(chromium: Any, site: tuple[str, AppState]) -> None:
    others = set(site[1]._sessions)
    visitor = Visitor(chromium, site[0])
    visitor.tab.click("#explain-settings button >> nth=0")
    visitor.number("explain-iterations", "2000")
    visitor.tab.click("#explain-start")
    visitor.tab.wait_for_selector("#explain-viewer .map canvas")
    (session,) = site[1]._sessions.keys() - others
    work = site[1]._sessions[session].cancelled
    assert not work.is_set()
    visitor.context.close()
    assert work.wait(30), "cancelled"
    assert session not in site[1]._sessions
    after = Visitor(chromium, site[0])
    assert after.ask("explain").startswith("done")
    after.context.close()


def test_visitors_do_not_see_each_others_photographs(chromium: Any, site: tuple[str, AppState]) -> None:
    one, two = Visitor(chromium, site[0]), Visitor(chromium, site[0])
    with one.looked():
        one.give("secret-cat.png", picture(9))
    one.ask("explain")
    one.tab.click("#explain-take button >> nth=0")
    assert "secret-cat.png" in one.tab.locator("#explain-command").inner_text()
    two.ask("explain")
    two.tab.click("#explain-take button >> nth=0")
    text = two.tab.locator("body").inner_text()
    assert "secret" not in text
    assert "faithmap explain --" in two.tab.locator("#explain-command").inner_text().replace("\xa0", " ")
    words = [word for word in site[1].uploads._stored if site[1].uploads.get(word).name == "secret-cat.png"]
    assert len(words) == 1
    assert words[0] not in two.tab.content()
    with two.tab.expect_download() as fetched:
        two.tab.click("#explain-pack")
    assert fetched.value.suggested_filename == "chelsea.zip"
    for path in (f"gradio_api/file={words[0]}", f"photo/{words[0]}", "gradio_api/file=/tmp", "download/x"):
        assert two.context.request.get(f"{site[0]}/{path}").status == 404
    one.context.close()
    two.context.close()


def test_requests_beyond_the_queue_are_refused_with_a_message(chromium: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "QUEUE", 1)
    with page_open() as (address, state):
        visitor, gate = Visitor(chromium, address), threading.Event()
        busy = threading.Thread(target=lambda: list(state.jobs.run(lambda report: gate.wait(30))))
        busy.start()
        for tab, name in (("Explain", "explain"), ("Why this and not that", "contrast"), ("Compare", "compare")):
            visitor.open(tab)
            with visitor.tab.expect_response("**/gradio_api/queue/join*"):
                visitor.tab.click(f"#{name}-start")
            if name == "explain":  # taken out of the queue, so that contrast finds it empty, and compare finds it full
                visitor.tab.wait_for_function("document.querySelector('#explain-status p').textContent !== ''")
        visitor.tab.wait_for_function(f"document.querySelector('#compare-status p').textContent === {BUSY!r}")
        assert visitor.tab.locator("#compare-start").is_enabled()
        assert visitor.tab.locator("[data-testid=toast-body]:visible").count() == 0, "one message, and it is the page's own"
        gate.set()
        busy.join()
        visitor.ended("contrast")
        assert visitor.ask("compare").startswith("done")
        visitor.context.close()


TABS = {"explain": "Explain", "contrast": "Why this and not that", "compare": "Compare", "saturation": "Saturation"}


def test_axe_finds_nothing_on_any_tab(newcomer: Visitor) -> None:
    for name, title in TABS.items():
        newcomer.open(title)
        newcomer.ask(name)
        newcomer.tab.click(f"#{name}-take button >> nth=0")
        axe_finds_nothing(newcomer, name)


def test_everything_can_be_used_by_keyboard(newcomer: Visitor) -> None:
    tab, keys = newcomer.tab, newcomer.tab.keyboard
    passed: list[str] = []

    def go(selector: str) -> None:
        """On with the tab key until the focus is there."""
        for _ in range(60):
            keys.press("Tab")
            passed.append(tab.evaluate("document.activeElement.outerHTML.slice(0, 120)"))
            if tab.evaluate("at => document.activeElement.matches(at)", selector):
                return
        raise AssertionError(f"{selector} is not reached: {passed}")

    tab.evaluate("document.activeElement.blur()")
    go("#photo input[type=file]")
    go(".fm-samples button:nth-child(2)")
    with newcomer.looked():
        keys.press("Enter")
    go("#guesses input")
    keys.press("ArrowDown")
    chosen = tab.locator("#guesses label:has(input:checked)").inner_text().rpartition(" ")[0].strip()
    go("#other input")
    keys.press("Escape")
    go("[role=tab]")
    go("#explain-method input")
    keys.press("Escape")
    go("#explain-settings button")
    keys.press("Enter")
    go("#explain-resolution input")
    keys.type("7")
    go("#explain-start")
    keys.press("Enter")
    assert newcomer.ended("explain").startswith("done")
    assert chosen in tab.locator("#explain-viewer").inner_text()
    go("#explain-viewer .segments input")
    keys.press("ArrowRight")
    assert tab.get_by_role("radio", name="Map alone").is_checked()
    keys.press("ArrowLeft")
    for selector in (".opacity", ".palette", ".beside", ".map canvas"):
        go(f"#explain-viewer {selector}")
    keys.press("Home")
    assert "of the map" in tab.locator("#explain-viewer .reading:visible").first.inner_text()
    go("#explain-viewer .play")
    keys.press("Space")
    tab.wait_for_function("Number(document.querySelector('#explain-viewer .scrubber').value) > 6")
    keys.press("Space")
    go("#explain-viewer .scrubber")
    keys.press("End")
    tab.wait_for_function("document.querySelector('#explain-viewer .share').textContent === '100 %'")
    go("#explain-take button")
    keys.press("Enter")
    go("#explain-pack")
    with tab.expect_download():
        keys.press("Enter")
    tab.get_by_role("tab", name="Explain").focus()
    keys.press("Tab")
    keys.press("Enter")
    tab.wait_for_selector("#contrast-start:visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone_and_everything_has_a_name(
    chromium: Any, site: tuple[str, AppState], scheme: str
) -> None:
    visitor = Visitor(chromium, site[0], color_scheme=scheme)
    visitor.tab.set_viewport_size({"width": 390, "height": 844})
    visitor.ask("explain")
    assert visitor.tab.evaluate("document.documentElement.scrollWidth") <= 390
    nameless = visitor.tab.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, img")].filter((e) => e.checkVisibility()
            && !(e.ariaLabel || e.labels?.length || e.innerText?.trim() || e.title || e.alt))
            .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    visitor.context.close()


def test_a_run_has_a_tab_of_its_own(chromium: Any, tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run")
    writer.start([{"id": "a", "name": "a", "label": "first method"}])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").write_bytes(picture(size=(32, 32)))
    curves = {"deletion_curve": [1.0, 0.0], "insertion_curve": [0.0, 0.5], "curve_fractions": [0.0, 1.0]}
    heatmap = np.tile([0.0, 0.0, 1.0, 2.0], (4, 1))
    writer.unit("a", [row("a", 0, deletion=0.1, insertion=0.5, image="cat.png", heatmap=heatmap, **curves)])
    with page_open(run=tmp_path / "run") as (address, _):
        visitor = Visitor(chromium, address)
        visitor.open("Browse the benchmark")
        visitor.tab.get_by_text("cat.png").first.wait_for()
        visitor.context.close()
