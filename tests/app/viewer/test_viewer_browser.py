"""The viewer in a real browser: what it paints is what the library deletes, and nothing of it asks the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from viewer_tools import HOSTILE, PANDAS, Tab, served

from faithmap import Explanation, Geometry, deletion_insertion
from faithmap.app.viewer.scene import MapPanel, PanelAreas, scene
from faithmap.metrics.functional.curves import Protocol
from faithmap.viz import limits, overlay, placed
from faithmap.warning_types import suppressed

SIZE = (24, 32)
ROOT = ".faithmap-viewer"

pytestmark = pytest.mark.filterwarnings(*PANDAS)


class RecordingModel(nn.Module):
    """Records every image that it receives."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x.clone())
        bright = x[:, :, :12].mean(dim=(1, 2, 3))
        return torch.stack([8 * bright, 4 - 8 * bright], dim=1)


@dataclass(frozen=True)
class EvaluatedPanel:
    """A map's panel, and the images of the metric at each step."""

    panel: MapPanel
    deletion: Tensor
    insertion: Tensor


def evaluated(
    name: str, explanation: Explanation, view: Tensor, baseline: Tensor, unit: str = "cells", steps: int = 10
) -> EvaluatedPanel:
    model = RecordingModel()
    rules = Protocol("own", unit, steps, baseline, baseline)  # type: ignore[arg-type]
    with suppressed():  # and without the passes that a warning about the baseline would take
        proof = deletion_insertion(model, view, explanation, 0, protocol=rules, chunk_size=1000)
    panel = MapPanel(name, "bright", explanation.heatmap[0], explanation, proof, PanelAreas(0.5, 0.5), {"passes": "62"})
    return EvaluatedPanel(panel, *model.inputs[-2:])


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# white that turns black: a painted value is the mask itself
VIEW, BASELINE = torch.ones(1, 3, *SIZE), torch.zeros(1, 3, *SIZE)
NOISE, BLURRED = uniform(1, 1, 3, *SIZE), uniform(2, 1, 3, *SIZE)
ELSEWHERE = Explanation(
    uniform(4, 1, 3, 4), SIZE, rows=torch.tensor([3.0, 11.0, 19.0]), columns=torch.tensor([4.0, 12.0, 20.0, 28.0])
)
PANELS = {
    "few cells": evaluated("few cells", Explanation(uniform(3, 1, 5, 7), SIZE), VIEW, BASELINE),
    "ties": evaluated("ties", Explanation((uniform(5, 1, 6, 6) * 3).floor(), SIZE), VIEW, BASELINE),
    "elsewhere": evaluated("elsewhere", ELSEWHERE, VIEW, BASELINE, steps=12),
    "pixels": evaluated("pixels", Explanation(uniform(6, 1, 4, 4), SIZE), VIEW, BASELINE, unit="pixels"),
    "noise": evaluated("noise", Explanation(uniform(7, 1, 8, 8), SIZE), NOISE, BLURRED),
    "one row": evaluated("one row", Explanation(uniform(8, 1, 1, 5), SIZE), VIEW, BASELINE, steps=5),
}


def own_scene(name: str) -> dict[str, Any]:
    view, baseline = (NOISE, BLURRED) if name == "noise" else (VIEW, BASELINE)
    found: dict[str, Any] = scene(Image.new("RGB", (32, 24), "grey"), None, view, baseline, [PANELS[name].panel])
    return found


# a photograph of 60 x 40 of which the model sees 24 x 32 pixels in the middle of half the size
WIDE = Image.new("RGB", (80, 60), (90, 120, 60))
HALF = Geometry((30, 40), SIZE)


def panels(*drawn: MapPanel, **settings: Any) -> dict[str, Any]:
    view = HALF(torch.from_numpy(np.array(WIDE)).permute(2, 0, 1).unsqueeze(0) / 255)
    found: dict[str, Any] = scene(WIDE, HALF, view, view, drawn, **settings)
    return found


FEW, TIES = PANELS["few cells"].panel, PANELS["ties"].panel
BAD = replace(FEW, name=HOSTILE, target=HOSTILE, facts={HOSTILE: HOSTILE}, warnings=[HOSTILE])
SCENES = {
    **{name: own_scene(name) for name in PANELS},
    "two": panels(
        replace(FEW, target="cat"), replace(FEW, target="dog", heatmap=-FEW.heatmap, explanation=None), difference=True
    ),
    "four": panels(FEW, TIES, FEW, TIES, agreement=np.eye(4).tolist()),
    "hostile": panels(BAD, BAD, agreement=[[1, 0.5], [0.5, 1]]),
    "flat": panels(MapPanel("flat", "cat", torch.ones(3, 3))),
    "growing": panels(replace(FEW, curves=None)),
    "few and many": panels(MapPanel("small", "cat", uniform(9, 2, 2), curves=None), FEW),
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    def build() -> None:
        import gradio as gr

        from faithmap.app.viewer.component import Viewer

        viewer = Viewer()
        for name, value in {**SCENES, "nothing": None}.items():
            gr.Button(name).click(lambda value=value: value, None, viewer, show_progress="hidden")

    with served(build) as url:
        yield url


@pytest.fixture(scope="module")
def tab(chromium: Any, address: str) -> Iterator[Tab]:
    opened = Tab(chromium, address, viewport={"width": 1280, "height": 900})
    opened.page.wait_for_selector(f"{ROOT}[data-ready]", state="attached")
    yield opened
    opened.context.close()


def show(tab: Tab, name: str) -> None:
    """Also where it is shown already."""
    for button in ("nothing", name):
        initial = tab.page.locator(ROOT).get_attribute("data-ready")
        if (button, initial) == ("nothing", "empty"):
            continue
        tab.page.get_by_role("button", name=button, exact=True).click()
        tab.page.wait_for_function(f"before => document.querySelector('{ROOT}').dataset.ready !== before", arg=initial)


def scrub(tab: Tab, step: int) -> None:
    tab.page.locator(f"{ROOT} .scrubber").fill(str(step))
    tab.settle()


def as_pixels(image: Tensor) -> Any:
    return image.permute(1, 2, 0).mul(255).double().numpy()


@pytest.mark.parametrize("name", list(PANELS))
def test_the_painted_images_are_those_of_the_metric(tab: Tab, name: str) -> None:
    evaluated_panel = PANELS[name]
    show(tab, name)
    steps = len(evaluated_panel.deletion) - 1
    scores = evaluated_panel.panel.curves
    assert scores is not None
    assert tab.page.locator(f"{ROOT} .scrubber").get_attribute("max") == str(steps)
    # each picture of noise was rounded to 8 bits before they were laid over each other
    tolerance = 1.01 if name == "noise" else 0.51
    for step in (0, 1, steps // 2, steps - 1, steps):
        scrub(tab, step)
        for kind, images, curve in (
            ("deletion", evaluated_panel.deletion, scores.deletion),
            ("insertion", evaluated_panel.insertion, scores.insertion),
        ):
            painted = tab.pixels(f"{ROOT} canvas.{kind}")
            np.testing.assert_allclose(painted, as_pixels(images[step]), atol=tolerance)
            said = tab.page.locator(f"{ROOT} .step-view:has(canvas.{kind}) output").text_content()
            assert said == f"score {float(curve.scores[0, step]):.3f}"


def test_markers_are_on_both_curves(tab: Tab) -> None:
    show(tab, "few cells")
    for step in (0, 4, 10):
        scrub(tab, step)
        for kind in ("deletion", "insertion"):
            points = tab.page.locator(f"{ROOT} polyline.{kind}").get_attribute("points").split()
            dot = tab.page.locator(f"{ROOT} circle.{kind}")
            x, y = (float(dot.get_attribute(name)) for name in ("cx", "cy"))
            assert (x, y) == pytest.approx([float(part) for part in points[step].split(",")], abs=0.06)


def test_no_interaction_sends_a_request(tab: Tab) -> None:
    show(tab, "two")
    tab.page.wait_for_timeout(300)
    initial = len(tab.requested)
    page = tab.page
    page.locator(f"{ROOT} .scrubber").focus()
    for key in ("ArrowRight", "PageUp", "End", "Home", "ArrowRight"):
        page.keyboard.press(key)
        tab.settle()
    page.locator(f"{ROOT} .play").click()
    page.wait_for_timeout(500)
    page.locator(f"{ROOT} .play").click()
    page.locator(f"{ROOT} .opacity").fill("30")
    page.locator(f"{ROOT} .palette").select_option("viridis")
    page.get_by_role("radio", name="Map alone").check()
    page.get_by_role("radio", name="On the photograph").check()
    page.locator(f"{ROOT} .map canvas").nth(1).hover()
    page.locator(f"{ROOT} .map canvas").nth(1).focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(300)
    assert tab.requested[initial:] == []
    assert tab.errors == [], "nothing went wrong on the way"


def test_one_slider_moves_all_maps(tab: Tab) -> None:
    show(tab, "four")
    scrub(tab, 5)
    counts = tab.page.locator(f"{ROOT} .count").all_text_contents()
    assert counts == ["18 of 35 cells", "18 of 36 cells"] * 2
    assert tab.page.locator(f"{ROOT} .share").text_content() == "50 %"
    show(tab, "few and many")
    scrub(tab, 10)
    assert tab.page.locator(f"{ROOT} .count").all_text_contents() == ["4 of 4 cells", "35 of 35 cells"]
    scrub(tab, 3)
    assert tab.page.locator(f"{ROOT} .count").all_text_contents() == ["1 of 4 cells", "10 of 35 cells"]


def test_the_map_lies_on_the_photograph_as_in_the_librarys_pictures(tab: Tab) -> None:
    show(tab, "two")
    tab.page.locator(f"{ROOT} .palette").select_option("plasma")
    tab.page.locator(f"{ROOT} .opacity").fill("80")
    photo = torch.from_numpy(np.array(WIDE)).permute(2, 0, 1).unsqueeze(0) / 255
    explanation = Explanation(FEW.heatmap.unsqueeze(0), SIZE)
    expected = overlay(photo, placed(explanation, photo, HALF), ends=limits(explanation.heatmap))
    painted = tab.pixels(f"{ROOT} .map canvas", 1)
    np.testing.assert_allclose(painted, as_pixels(expected[0]), atol=2.5)
    assert np.ptp(painted[:5], axis=(0, 1)).max() == 0, "where the model did not look, the photograph is pale"
    photograph = tab.pixels(f"{ROOT} .map canvas", 0)
    np.testing.assert_allclose(photograph, np.array(WIDE), atol=2)


def test_opacity_and_colours_and_the_map_alone(tab: Tab) -> None:
    show(tab, "two")
    middle = (30, 40)
    opacity, canvas = tab.page.locator(f"{ROOT} .opacity"), f"{ROOT} .map canvas"
    opacity.fill("0")
    grey = 0.299 * 90 + 0.587 * 120 + 0.114 * 60
    faded = [grey + 0.3 * (value - grey) for value in (90, 120, 60)]
    np.testing.assert_allclose(tab.pixels(canvas, 1)[middle], faded, atol=2)
    tab.page.get_by_role("radio", name="Map alone").check()
    alone = tab.pixels(canvas, 1)
    assert opacity.is_disabled()
    tab.page.locator(f"{ROOT} .palette").select_option("cividis")
    assert np.abs(tab.pixels(canvas, 1) - alone).max() > 50
    tab.page.get_by_role("radio", name="On the photograph").check()
    opacity.fill("80")
    tab.page.locator(f"{ROOT} .palette").select_option("plasma")
    tab.page.locator(f"{ROOT} .beside").uncheck()
    assert not tab.page.locator(f"{ROOT} .map").first.is_visible()
    tab.page.locator(f"{ROOT} .beside").check()
    assert tab.page.locator(f"{ROOT} .map").first.is_visible()


def test_values_are_read_by_keys_and_by_pointer(tab: Tab) -> None:
    show(tab, "two")
    canvas, reading = tab.page.locator(f"{ROOT} .map canvas").nth(1), tab.page.locator(f"{ROOT} .map .reading").nth(1)
    said = tab.page.locator(f"{ROOT} [role=status]")
    canvas.focus()
    tab.page.keyboard.press("Home")
    highest = float(Explanation(FEW.heatmap.unsqueeze(0), SIZE).at().max())
    assert float(said.text_content().split(" ")[0]) == pytest.approx(highest, rel=6e-3)
    assert "higher than 99 % of the map" in said.text_content()
    for _ in range(11):
        tab.page.keyboard.press("Shift+ArrowLeft")
    assert said.text_content() == "Not part of the model's input"
    box = canvas.bounding_box()
    # the middle of the photograph is between the middle pixels of what the model saw
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    field = Explanation(FEW.heatmap.unsqueeze(0), SIZE).at()[0]
    assert float(reading.text_content().split(" ")[0]) == pytest.approx(float(field[11:13, 15:17].mean()), abs=0.02)
    tab.page.mouse.move(2, 2)
    tab.page.locator(f"{ROOT} .scrubber").focus()
    assert not reading.is_visible()


def test_the_difference_is_that_of_the_drawn_maps(tab: Tab) -> None:
    show(tab, "two")
    tab.page.locator(f"{ROOT} .opacity").fill("100")
    words = tab.page.locator(f"{ROOT} .map").nth(3).text_content()
    assert "more for dog" in words
    assert "more for cat" in words
    first, second = (Explanation(sign * FEW.heatmap.unsqueeze(0), SIZE).at()[0] for sign in (1, -1))
    scaled = [(m - low).div(high - low).clamp(0, 1) for m, (low, high) in ((m, limits(m)) for m in (first, second))]
    difference = scaled[0] - scaled[1]
    assert f"{round(100 * float(difference.abs().max()))} % of a map's scale" in words
    painted = tab.pixels(f"{ROOT} .map canvas", 3)
    # the place where the first is most above the second is red, the other end blue
    for extreme, channel in ((int(difference.argmax()), 0), (int(difference.argmin()), 2)):
        row, column = divmod(extreme, SIZE[1])
        pixel = painted[6 + 2 * row, 8 + 2 * column]
        assert pixel[channel] == pixel.max()
        assert pixel.max() - pixel.min() > 40
    tab.page.locator(f"{ROOT} .opacity").fill("80")


def test_hostile_text_is_text(tab: Tab) -> None:
    show(tab, "hostile")
    words = tab.page.locator(ROOT)
    assert tab.page.locator(f"{ROOT} img").count() == 0
    for selector in (".map strong", ".facts dt", ".facts dd", ".warnings li", ".agreement th"):
        assert words.locator(selector).filter(has_text=HOSTILE).count() >= 2, selector
    assert not [url for url in tab.requested if "example.invalid" in url]
    assert tab.errors == []


def test_a_constant_map_has_a_warning(tab: Tab) -> None:
    show(tab, "flat")
    assert "one value everywhere: ranks nothing" in tab.page.locator(f"{ROOT} .warnings").text_content()
    show(tab, "growing")
    assert "No curves have been measured" in tab.page.locator(ROOT).text_content()
    show(tab, "nothing")
    assert tab.page.locator(f"{ROOT} .empty").is_visible()
    assert not tab.page.locator(f"{ROOT} .body").is_visible()


def test_choices_stay_while_a_map_grows(tab: Tab) -> None:
    show(tab, "growing")
    initial = tab.page.locator(ROOT).get_attribute("data-ready")
    tab.page.locator(f"{ROOT} .opacity").fill("35")
    scrub(tab, 14)
    tab.page.locator(f"{ROOT} .map canvas").nth(1).focus()
    tab.page.evaluate("window.focused = document.activeElement")
    tab.page.evaluate("[...document.querySelectorAll('button')].find(e => e.textContent.trim() === 'few cells').click()")
    tab.page.wait_for_function(f"before => document.querySelector('{ROOT}').dataset.ready !== before", arg=initial)
    assert tab.page.locator(f"{ROOT} .opacity").input_value() == "35"
    assert tab.page.locator(f"{ROOT} .scrubber").input_value() == "3"
    assert tab.page.evaluate("document.activeElement === window.focused"), "the focus stays where it was"
    tab.page.locator(f"{ROOT} .opacity").fill("80")


def test_areas_are_compared_with_those_of_a_random_map(tab: Tab) -> None:
    show(tab, "few cells")
    proof = FEW.curves
    assert proof is not None
    cells = tab.page.locator(f"{ROOT} .areas td").all_text_contents()
    assert cells == [f"{float(proof.deletion.area):.3f}", "0.500", f"{float(proof.insertion.area):.3f}", "0.500"]
    won = (float(proof.deletion.area) < 0.5, float(proof.insertion.area) > 0.5)
    words = {(True, True): "in deletion and insertion", (True, False): "in deletion only", (False, True): "in insertion only"}
    assert words.get(won, "No better than a random map") in tab.page.locator(f"{ROOT} .verdict").text_content()


LUMINANCE = """
colour => {
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((v) => linear(v / 255));
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_can_be_read(chromium: Any, address: str, width: int, dark: bool) -> None:
    tab = Tab(chromium, address, dark=dark, viewport={"width": width, "height": 900})
    tab.page.wait_for_selector(f"{ROOT}[data-ready]", state="attached")
    for name in ("two", "four", "hostile"):
        show(tab, name)
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        right = tab.page.evaluate(
            f"[...document.querySelectorAll('{ROOT} :not(.wide *)')].map(e => e.getBoundingClientRect().right)"
        )
        assert max(right) <= width
    contrast = f"""() => {{
      const of = {LUMINANCE};
      const paper = of(getComputedStyle(document.querySelector('{ROOT} .scrub')).backgroundColor);
      const texts = [...document.querySelectorAll('{ROOT} :is(p, small, th, td, dt, dd, strong, h2, h3, .play, .verdict)')];
      return texts.filter(e => !e.matches('.reading, .spoken') && e.textContent.trim()).map(e => {{
        const ink = of(getComputedStyle(e).color);
        return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
      }});
    }}"""
    assert min(tab.page.evaluate(contrast)) >= 4.5
    background = tab.page.evaluate(f"({LUMINANCE})(getComputedStyle(document.querySelector('{ROOT} .scrub')).backgroundColor)")
    assert (background > 0.5) != dark
    tab.context.close()


def test_everything_has_a_name_for_screen_readers(tab: Tab) -> None:
    show(tab, "two")
    named = "e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.[0]?.textContent.trim()"
    parts = f"[...document.querySelectorAll('{ROOT} :is(canvas, input, select, button, svg)')]"
    nameless = tab.page.evaluate(
        f"{parts}.filter(e => !({named}) && e.getAttribute('role') !== 'presentation').map(e => e.outerHTML)"
    )
    assert nameless == []
    label = tab.page.locator(f"{ROOT} .map canvas").nth(1).get_attribute("aria-label")
    assert label.startswith("Map of few cells for cat, highest ")
    scrub(tab, 5)
    assert tab.page.locator(f"{ROOT} .scrubber").get_attribute("aria-valuetext") == "50 % of the cells"
    assert "18 most important of 35 cells removed: score" in tab.page.locator(f"{ROOT} canvas.deletion").first.get_attribute(
        "aria-label"
    )
