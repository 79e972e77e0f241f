"""A run, listed, sorted and opened: stored numbers and maps, and nothing that is not the run's to show."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("pydantic")

from bench.run_writer import RunWriter, failed, row
from PIL import Image
from viewer_tools import HOSTILE, PANDAS, Tab, served

from faithmap.app.listing import DISAGREEMENT, MEAN, SCATTER, open_listings
from faithmap.app.opening import opened, sheet
from faithmap.app.runs import HIGHEST, LINES, LOWEST, BrowsedRun, browse
from faithmap.errors import RunError

NAME = HOSTILE.replace("/", "_") + ".png"
CURVES = {"deletion_curve": [1.0, 0.5, 0.0], "insertion_curve": [0.0, 0.5, 1.0], "curve_fractions": [0.0, 0.25, 1.0]}
GEOMETRY = {"resize": 32, "crop": [32, 32], "interpolation": "bilinear"}


@pytest.fixture
def writer(tmp_path: Path) -> RunWriter:
    return RunWriter(tmp_path / "run")


def photos(writer: RunWriter, *names: str) -> None:
    folder = writer.folder.parent / "photos"
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        Image.new("RGB", (64, 32), (40 * i, 90, 200)).save(folder / name)


def scored(method: str, index: int, insertion: float, **values: Any) -> dict[str, Any]:
    return row(method, index, deletion=0.0, insertion=insertion, **values)


def three(writer: RunWriter) -> None:
    """Of image 2 the second method has no number; image 3 was explained by nobody."""
    writer.start(["a", "b"], models=[{"name": "net", "geometry": GEOMETRY}])
    writer.unit("a", [scored("a", 0, 0.5), scored("a", 1, 0.1), scored("a", 2, 0.3), failed("a", 3, "broken")])
    writer.unit("b", [scored("b", 0, 0.6), scored("b", 1, 0.9), failed("b", 2, "broken"), failed("b", 3, "broken")])


@pytest.mark.parametrize(
    ("by", "highest", "lowest"),
    [
        (MEAN, [0, 1, 2, 3], [2, 1, 0, 3]),
        ("a", [0, 2, 1, 3], [1, 2, 0, 3]),
        ("b", [1, 0, 2, 3], [0, 1, 2, 3]),
        (SCATTER, [1, 0, 2, 3], [0, 1, 2, 3]),
    ],
)
def test_images_are_sorted_and_those_without_a_number_come_last(
    writer: RunWriter, by: str, highest: list[int], lowest: list[int]
) -> None:
    three(writer)
    (listing,) = open_listings(writer.folder)
    assert listing.ordered("insertion", by) == highest
    assert listing.ordered("insertion", by, highest_first=False) == lowest


def test_images_are_sorted_by_how_much_their_maps_differ(writer: RunWriter) -> None:
    random_map = {"id": "random", "name": "random_map", "class": "RandomMap", "resolution": 4}
    writer.start(["a", {"id": "b", "resolution": 2}, "c", random_map], models=[{"name": "net", "geometry": GEOMETRY}])
    ramp, coarse = np.tile(np.arange(4.0), (4, 1)), np.tile([0.0, 1.0], (2, 1))
    # of image 0 all three run the same way; of image 1 one runs down; of image 2 two run across; image 3 has one map alone
    maps: dict[str, list[Any]] = {
        "a": [ramp, ramp, ramp, ramp],
        "b": [coarse, -coarse, coarse.T, None],
        "c": [3 * ramp, ramp, ramp, None],
    }
    for method, heatmaps in maps.items():
        sizes: dict[str, Any] = {"heatmap_scale": 2.0}
        rows = [scored(method, i, 0.5, heatmap=heatmap, **sizes) for i, heatmap in enumerate(heatmaps)]
        writer.unit(method, rows, row_group_size=1)
    writer.unit("random", [scored("random", i, 0.5, heatmap=-ramp) for i in range(4)])
    (listing,) = open_listings(writer.folder)
    # of three pairs none, two and two differ; ties of a ramp share their mean rank
    np.testing.assert_allclose(listing.differences, [0, 1 + 1 / 3, 2 / 3, np.nan], atol=1e-6)
    assert listing.ordered("insertion", DISAGREEMENT) == [1, 2, 0, 3]
    assert listing.ordered("insertion", DISAGREEMENT, highest_first=False) == [0, 2, 1, 3]


def test_a_score_says_which_way_is_better(writer: RunWriter) -> None:
    three(writer)
    (listing,) = open_listings(writer.folder)
    labels = [listing.with_direction(metric) for metric in listing.metrics]
    assert labels == ["insertion - deletion (higher is better)", "deletion (lower is better)", "insertion (higher is better)"]
    assert listing.with_direction("seconds") == "seconds"


def test_equal_images_keep_their_order(writer: RunWriter) -> None:
    writer.start(["a"])
    writer.unit("a", [scored("a", i, float(i % 2)) for i in range(40)])
    (listing,) = open_listings(writer.folder)
    assert listing.ordered("insertion") == [*range(1, 40, 2), *range(0, 40, 2)]
    assert listing.ordered("insertion", highest_first=False) == [*range(0, 40, 2), *range(1, 40, 2)]
    with pytest.raises(ValueError, match="cannot be sorted by 'c'"):
        listing.ordered("insertion", "c")


def test_the_score_that_says_most_comes_first(writer: RunWriter) -> None:
    three(writer)
    (listing,) = open_listings(writer.folder)
    assert listing.metrics == ["insertion - deletion", "deletion", "insertion"]
    np.testing.assert_allclose(listing.scores("insertion"), [[0.5, 0.6], [0.1, 0.9], [0.3, np.nan], [np.nan, np.nan]])


def test_methods_of_the_same_name_get_different_labels(writer: RunWriter) -> None:
    writer.start([{"id": f"m{n}", "name": "m", "label": "M", "resolution": n} for n in (4, 2)])
    for n in (4, 2):
        writer.unit(f"m{n}", [scored(f"m{n}", 0, 0.1, heatmap=np.random.default_rng(0).random((n, n)))])
    (listing,) = open_listings(writer.folder)
    assert list(listing.methods) == ["M, 4x4", "M, 2x2"]


def test_an_opened_image_has_the_stored_maps_and_curves(writer: RunWriter) -> None:
    control = {"id": "random", "name": "random_map", "class": "RandomMap", "label": "Random"}
    writer.start(["a", "b", control], models=[{"name": "net", "geometry": GEOMETRY}])
    photos(writer, "0.png", "1.png")
    heatmap = np.linspace(0, 1, 16).reshape(4, 4)
    values = {"heatmap": heatmap, "heatmap_scale": 3.0, "warnings": ["look out"], "complexity": 0.7, **CURVES}
    writer.unit("a", [scored("a", i, 0.5, **values) for i in range(2)], row_group_size=1)
    writer.unit("b", [scored("b", i, 0.5, heatmap=-heatmap) for i in range(2)])
    writer.unit("random", [scored("random", i, 0.25 + i, heatmap=heatmap) for i in range(2)])
    (listing,) = open_listings(writer.folder)
    found: Any = opened(listing, 1, ["b", "a"])
    second, first = found["panels"]
    assert (first["name"], first["target"], first["warnings"]) == ("a", "cat", ["look out"])
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(first["values"]), "<f4"), 3 * heatmap.ravel(), rtol=1e-3)
    assert first["counts"] == [0, 4, 16]
    assert first["curves"]["deletion"]["scores"] == [1.0, 0.5, 0.0]
    assert first["curves"]["deletion"]["area"] == pytest.approx(0.25 * 0.75 + 0.75 * 0.25)
    assert first["curves"]["insertion"]["random_area"] == pytest.approx(1.25)
    assert dict(map(tuple, first["facts"])) == {
        "forward passes": "1", "backward passes": "1", "seconds": "0.5", "complexity": "0.7"
    }  # fmt: skip
    assert second["curves"] is None
    assert found["agreement"] == [[1, -1], [-1, 1]]
    # the middle 32 of 64 columns, as the plan says
    assert found["window"] == [0, 0.25, 1, 0.5]


def test_maps_are_ranked_at_the_resolution_of_their_curves(writer: RunWriter) -> None:
    control = {"id": "random", "class": "RandomMap", "resolution": 4}
    writer.start([{"id": "a", "resolution": 3}, control], models=[{"name": "net", "geometry": {**GEOMETRY, "crop": [9, 9]}}])
    photos(writer, "0.png")
    writer.unit("random", [scored("random", 0, 0.2, size=[9, 9])])
    placed = {"heatmap": np.array([[0.0, 4.0]]), "rows_at": [4.0], "columns_at": [2.0, 6.0], "size": [9, 9]}
    writer.unit("a", [scored("a", 0, 0.5, **placed, **CURVES)])
    (listing,) = open_listings(writer.folder)
    panel: Any = opened(listing, 0, ["a"])["panels"][0]  # type: ignore[index]
    assert panel["ranked"] == [3, 3]
    assert panel["curves"]["insertion"]["random_area"] is None, "a random map of other cells is no measure"
    # columns of a 3 x 3 mask stand at pixels 0, 4 and 8, where the map is 0, 2 and 4
    assert np.frombuffer(base64.b64decode(panel["places"]), "<i4").tolist() == [6, 3, 0, 7, 4, 1, 8, 5, 2]
    assert (panel["rows"], panel["columns"]) == ([4], [2, 6])


@pytest.mark.parametrize(("mean", "pixel"), [((1.0, 0.0, 0.0), (255, 0, 0)), ((0.0, 1.0, 0.0), (0, 255, 0))])
def test_removed_pixels_of_the_baseline_zero_have_the_models_mean_colour(
    writer: RunWriter, mean: tuple[float, ...], pixel: tuple[int, ...]
) -> None:
    model = {"name": "net", "geometry": GEOMETRY, "mean": mean}
    writer.start(["a"], metric_settings={"baseline": "zero"}, models=[model])
    photos(writer, "0.png")
    writer.unit("a", [scored("a", 0, 0.5)])
    found: Any = opened(open_listings(writer.folder)[0], 0, ["a"])
    removed = Image.open(BytesIO(base64.b64decode(found["blurred"].partition(",")[2])))
    assert removed.convert("RGB").getpixel((0, 0)) == pixel


def test_a_plan_that_does_not_tell_the_cut_shows_the_middle(writer: RunWriter) -> None:
    writer.start(["a"])
    photos(writer, "0.png")
    writer.unit("a", [scored("a", 0, 0.5)])
    browsed = BrowsedRun(open_listings(writer.folder))
    made, words = browsed.open("net", ["a"], 0)
    assert made["window"] == [0, 0.25, 1, 0.5]
    assert words == "0.png (The record of the run does not have the model's cropping: the middle of the images is shown.)"


def test_files_outside_the_run_are_refused_without_a_path(writer: RunWriter, tmp_path: Path) -> None:
    writer.start(["a"])
    photos(writer, "0.png")
    (tmp_path / "secret.png").write_bytes((tmp_path / "photos" / "0.png").read_bytes())
    (tmp_path / "photos" / "2.png").write_text("no picture")
    names = ["0.png", "../secret.png", "2.png", str(tmp_path / "secret.png"), "5.png"]
    writer.unit("a", [scored("a", i, 0.1, image=name) for i, name in enumerate(names)])
    browsed = BrowsedRun(open_listings(writer.folder))
    assert browsed.open("net", ["a"], 0)[0] is not None
    for index in (1, 2, 3, 4):
        made, words = browsed.open("net", ["a"], index)
        assert made is None
        assert words == f"{names[index]}: the photograph is missing or cannot be read"
    wrong: Any
    for wrong in (7, -1, "0", None, 0.5, [0], {"a": 1}):
        assert browsed.open("net", ["a"], wrong) == (None, "there is no such image in this run")
    assert "none of these methods has a map of it" in browsed.open("net", [], 0)[1]
    lines: Any = sheet(browsed.listings[0], [0, 1], "insertion", ["a"])["lines"]
    assert [line["picture"] is None for line in lines] == [False, True]
    assert lines[0]["maps"][0]["score"] == "0.100"


def test_pages_stay_within_the_list(writer: RunWriter) -> None:
    writer.start(["a", "b"])
    photos(writer, *(f"{i}.png" for i in range(11)))
    writer.unit("a", [scored("a", i, 0.1 * i) for i in range(11)])
    writer.unit("b", [scored("b", i, 0.5) for i in range(10)])
    browsed = BrowsedRun(open_listings(writer.folder))
    assert LINES == 8
    for number, given in ((-3, 0), (0, 0), (1, 1), (9, 1)):
        made, words, displayed = browsed.page("net", "insertion", "a", HIGHEST, ["a", "b"], number)
        indices = [line["index"] for line in made["lines"]]
        assert (indices, displayed) == ([10, 9, 8, 7, 6, 5, 4, 3] if given == 0 else [2, 1, 0], given)
        assert words == ("1 to 8 of 11 images", "9 to 11 of 11 images")[given]
    first = browsed.page("net", "insertion", "a", LOWEST, ["a", "b"], 0)[0]["lines"]
    assert [line["index"] for line in first] == list(range(8))
    strange = browsed.page("no model", "no metric", "no method", "no order", ["no method"], 0)[0]["lines"]
    assert [line["index"] for line in strange][:2] == [10, 9]
    assert strange[0]["maps"] == []


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, writer: RunWriter) -> None:
    with pytest.raises(RunError, match="is no run"):
        open_listings(tmp_path)
    writer.start(["a"])
    writer.unit("a", [failed("a", 0, "broken")])
    with pytest.raises(RunError, match="no row has a score"):
        open_listings(writer.folder)


@pytest.mark.filterwarnings(*PANDAS)
def test_the_tab_is_browsed(writer: RunWriter, chromium: Any) -> None:
    writer.start(["a", "b"], models=[{"name": "net", "geometry": GEOMETRY}])
    names = [NAME, *(f"{i}.png" for i in range(1, 11))]
    photos(writer, *names)
    heatmap = np.linspace(0, 1, 16).reshape(4, 4)
    for method in "ab":
        given = {"heatmap": heatmap if method == "a" else -heatmap, **CURVES}
        writer.unit(method, [scored(method, i, abs(5 - i) / 10, image=name, **given) for i, name in enumerate(names)])
    with served(lambda: browse(writer.folder)) as url:
        tab = Tab(chromium, url, viewport={"width": 1280, "height": 900})
        page, lines = tab.page, tab.page.locator(".faithmap-sheet li button")
        page.wait_for_selector(".faithmap-sheet[data-ready] li")
        assert lines.count() == LINES
        assert NAME in lines.first.text_content()
        page.get_by_role("button", name="Next").click()
        page.wait_for_function("document.querySelectorAll('.faithmap-sheet li').length === 3")
        page.get_by_role("button", name="Previous").click()
        page.wait_for_function("document.querySelectorAll('.faithmap-sheet li').length === 8")
        page.get_by_label("Order").click()
        page.get_by_role("option", name=LOWEST).click()
        page.wait_for_function("document.querySelector('.faithmap-sheet li').textContent.includes('5.png')")
        lines.nth(1).focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(".faithmap-viewer[data-ready]")
        assert page.get_by_label("Opened").input_value() == "4.png"
        assert lines.nth(1).get_attribute("aria-current") == "true"
        assert page.locator(".faithmap-viewer .map strong").all_text_contents() == ["Photograph", "a", "b"]
        assert page.locator(".faithmap-viewer .scrubber").get_attribute("max") == "2"
        assert page.locator(".faithmap-viewer img, .faithmap-sheet img").count() == 0
        assert tab.errors == []
        assert not [url for url in tab.requested if "example.invalid" in url]
        tab.context.close()
